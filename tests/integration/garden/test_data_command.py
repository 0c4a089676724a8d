import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keras_acclip.garden.data import Recipe, make_pretraining_data
from keras_acclip.text import corpus
from tests.unit.garden.samples import contents

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_a_killed_command_goes_on_with_the_same_result(english, tmp_path):
    folder, unbroken = tmp_path / "data", tmp_path / "unbroken"
    text, recipe = corpus.text_files([english]), Recipe(seq_length=32, dupe_factor=2)
    make_pretraining_data(text, unbroken, vocab_size=600, recipe=recipe, num_shards=3, processes=1)
    command = [sys.executable, "-m", "keras_acclip.garden.data", "pretraining", "--input", english]
    command += ["--output", folder, "--vocab_size", "600", "--seq_length", "32"]
    command += ["--dupe_factor", "2", "--num_shards", "3", "--processes", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    deadline = time.monotonic() + 120
    while not contents(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert contents(folder) and not (folder / "data.yaml").exists()
    # The workers die with the command, so that nobody writes here any more.
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("a worker outlived the command")
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "named last" in result.stdout
    assert contents(folder) == contents(unbroken)
    assert not list(folder.glob("*.partial"))
