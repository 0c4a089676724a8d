"""The questions that are fine-tuned on, from the text to a training that finds answers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("official.nlp.data.squad_lib", reason="the Model Garden is not installed")

ROOT = Path(__file__).parents[3]
PATHS = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "examples")]
PROGRAM = """
import dataclasses, json, os, sys
from pathlib import Path
import numpy as np
from keras_acclip.text import corpus
from training import questions, trainer, workloads
from training.contestants import CONTESTANTS

corpus.PACKAGES = ("numpy",)
corpus.embedded_corpus = lambda cache, whole=corpus.embedded_corpus: whole(cache, ("numpy",))
small = {"layers": 1, "hidden": 64, "vocabulary_size": 500}
for name, changes in (
    ("mlm-16", {"steps": 32, "batch": 4}), ("squad", {"steps": 64, "rates": 1.0})
):
    made = workloads.WORKLOADS[name]
    sizes = made.sizes | small | {"held_out": 64}
    sizes |= {"questions": 200} if name == "squad" else {}
    workloads.WORKLOADS[name] = dataclasses.replace(made, sizes=sizes, **changes)
folder, word = Path(sys.argv[1]), sys.argv[2]
if word == "make":
    questions.save(folder)
else:
    for module in ("tensorflow", "tensorflow_text", "tf_keras", "official"):
        sys.modules[module] = None
    os.environ[workloads.TOKENS] = str(folder)
found = questions.questions()
squad = workloads.WORKLOADS["squad"]
settings = dict(CONTESTANTS["adam"].default)
(result,) = trainer.train(squad, "adam", [(settings, 0)], 64)
print(json.dumps({
    "curve": result["curve"], "initial": result["initial"], "name": questions.name(),
    **{name: np.asarray(x).tolist() for name, x in found.items()},
}))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    environment = {"PYTHONPATH": os.pathsep.join(PATHS), "KERAS_BACKEND": "jax"}
    environment |= {"PATH": os.environ["PATH"], "HOME": str(folder)}
    found = []
    for word in ("make", "read"):
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(folder), word],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr[-2000:]
        found.append(json.loads(run.stdout.splitlines()[-1]))
    return found


pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("questions")]


def test_a_machine_without_tensorflow_trains_alike(told):
    assert told[0] == told[1]


def test_an_answer_lies_in_its_row_and_the_question_before_it(told):
    for part in ("train", "dev"):
        tokens, spans = (np.array(told[0][f"{part}_{name}"]) for name in ("tokens", "spans"))
        assert tokens.shape == (len(spans), 64) and len(spans) >= 32
        first, last = spans.T
        end = np.count_nonzero(tokens, axis=1)
        # [CLS] question [SEP] context [SEP]
        separator = np.argmax(tokens == 2, axis=1)
        assert np.all((separator < first) & (first <= last) & (last < end - 1))


def test_a_training_begins_at_chance_and_learns(told):
    curve = [loss for _, loss in told[0]["curve"]]
    assert told[0]["initial"] == pytest.approx(np.log(64), abs=0.5)
    assert curve[-1] < told[0]["initial"] - 0.3
