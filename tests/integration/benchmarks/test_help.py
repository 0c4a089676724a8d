"""The benchmarks answer at once: `--help` loads nothing that takes seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
HEAVY = {"jax", "keras", "matplotlib", "official", "scipy", "tensorflow", "tf_keras", "torch"}


@pytest.mark.parametrize("script", ["step_time", "noise_cost", "garden_step"])
def test_help_is_there_at_once(script):
    line = [sys.executable, "-X", "importtime", str(BENCHMARKS / f"{script}.py"), "--help"]
    told = subprocess.run(line, capture_output=True, text=True, check=True)
    assert f"python benchmarks/{script}.py" in told.stdout
    imported = (words.rpartition("|")[2].strip() for words in told.stderr.splitlines())
    assert not {name.partition(".")[0] for name in imported} & HEAVY
