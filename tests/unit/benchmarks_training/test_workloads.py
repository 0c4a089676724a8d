"""The workloads' data are functions of the seed, and what they are said to be."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from training import workloads

ROOT = Path(__file__).parents[3]
PATHS = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "examples")]
ENVIRONMENT = {"PYTHONPATH": ":".join(PATHS), "KERAS_BACKEND": "jax", "PATH": "", "HOME": "/tmp"}
PROGRAM = """
import dataclasses, json
import numpy as np
from training import text, trainer, workloads

def told(name, **changes):
    workload = dataclasses.replace(workloads.WORKLOADS[name], **changes)
    made = [workload.make(workload, seed, 32) for seed in (0, 0, 1)]
    batches = [
        [np.asarray(x).tolist() for x in p.batch(p.shared, p.own, 31)] for p in made
    ]
    inputs, labels = made[0].held_out(made[0].shared, made[0].own)
    return {
        "alike": batches[0] == batches[1], "other": batches[0] != batches[2],
        "batch": batches[0], "held_out": [np.shape(inputs), np.shape(labels)],
    }

def outliers():
    workload = workloads.WORKLOADS["outliers"]
    p = workload.make(workload, 5, workload.steps)
    labels = [np.asarray(p.batch(p.shared, p.own, k)[1]) for k in range(workload.steps)]
    return [k for k, of in enumerate(labels) if len(np.unique(of)) == 1]

def longer(name):
    # The same until there, and others then.
    workload = workloads.WORKLOADS[name]
    short, long = (workload.make(workload, 3, workload.steps + n) for n in (0, 300))
    def seen(p, steps):
        pairs = [p.batch(p.shared, p.own, step) for step in steps]
        return [np.concatenate([np.asarray(x).ravel() for x in part]) for part in zip(*pairs)]
    steps, further = range(0, workload.steps, 7), range(workload.steps, workload.steps + 300)
    same = all(np.array_equal(a, b) for a, b in zip(seen(short, steps), seen(long, steps)))
    first = seen(long, range(300))
    return same, all(not np.array_equal(a, b) for a, b in zip(seen(long, further), first))

random = np.random.default_rng(0)
rows = random.integers(0, 50, (200, 17)).astype("uint16")
text.rows = lambda *sizes: (rows[:150], rows[150:], 50)
small = {
    "sequence_length": 16, "layers": 1, "hidden": 64, "vocabulary_size": 50, "held_out": 32,
}
large = workloads.WORKLOADS["gpt-30m"]
gpt = dataclasses.replace(large, steps=16, batch=4, pieces=2, sizes=large.sizes | small)
settings = {"rate": 1e-3, "beta_1": 0.9, "beta_2": 0.99, "warmup": 0.1, "weight_decay": 0.0,
            "epsilon": 1e-5}
trained = trainer.train(gpt, "acclip", [(settings, 0), (settings, 1)], 16)
single = dataclasses.replace(gpt, sizes=gpt.sizes | {"dtype": "float32"})
pieces = [
    trainer.train(dataclasses.replace(single, pieces=n), "acclip", [(settings, 0)], 16)[0]["curve"]
    for n in (1, 4)
]
problem = gpt.make(gpt, 0, 16)
whole = dataclasses.replace(large, sizes=large.sizes | {"held_out": 32})
text.rows = lambda *sizes: (rows[:, :1], rows[:, :1], large.sizes["vocabulary_size"])
print(json.dumps({
    "longer": [longer(name) for name in ("zipf-64", "images", "outliers")],
    "images": told("images"), "outliers": told("outliers"), "wrong": outliers(),
    "trained": trained, "pieces": pieces,
    "dtypes": [problem.model.compute_dtype, problem.model.trainable_variables[0].dtype],
    "parameters": text.gpt(large.sizes["vocabulary_size"], large.sizes).count_params(),
}))
"""


@pytest.fixture(scope="module")
def told():
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout.splitlines()[-1])


pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("workloads")]


@pytest.mark.parametrize("name", ["images", "outliers"])
def test_a_batch_is_a_function_of_seed_and_step(told, name):
    assert told[name]["alike"] and told[name]["other"]


def test_a_longer_training_sees_the_same_first(told):
    assert told["longer"] == [[True, True]] * 3


def test_digits_are_a_fifth_held_out(told):
    inputs, labels = told["images"]["held_out"]
    assert inputs == [1, 360, 8, 8, 1] and labels == [1, 360]
    images, labels = told["images"]["batch"]
    assert np.shape(images) == (32, 8, 8, 1) and np.ptp(images) == 1
    assert set(labels) <= set(range(10))


def test_one_batch_in_a_hundred_has_one_label(told):
    count = workloads.WORKLOADS["outliers"].steps / 100
    assert abs(len(told["wrong"]) - count) <= 3 * count**0.5 and told["wrong"]


def test_losses_by_fifths_make_up_the_loss(told):
    for one in told["trained"]:
        parts = one["fifths"]
        assert sum(part["labels"] for part in parts) == 32 * 16
        assert sum(part["words"] for part in parts) == 50
        total = sum(part["labels"] * part["loss"] for part in parts if part["labels"])
        assert total / (32 * 16) == pytest.approx(one["loss"], rel=1e-4)


def test_a_batch_in_pieces_is_the_batch(told):
    whole, pieces = np.array(told["pieces"])
    np.testing.assert_allclose(whole, pieces, rtol=1e-5)


def test_the_large_gpt_has_31_million_parameters_and_computes_in_bfloat16(told):
    assert told["dtypes"] == ["bfloat16", "float32"]
    assert told["parameters"] == pytest.approx(31e6, rel=0.02)
