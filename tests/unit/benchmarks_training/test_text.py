"""The masked words of the comparison are the main job's, made here or read from another machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import dataclasses, json, os, sys
from pathlib import Path
import numpy as np
from training import text, workloads

sizes = {"sequence_length": 16, "layers": 1, "hidden": 64, "vocabulary_size": 50, "held_out": 64}
workload = dataclasses.replace(workloads.WORKLOADS["mlm-16"], steps=16, batch=4, sizes=sizes)
random = np.random.default_rng(0)
made = [random.integers(5, 50, (n, 16)).astype("int32") for n in (100, 70)]
for rows in made:
    rows[:, 0], rows[:, -1] = 1, 2
folder = Path(sys.argv[1])
if sys.argv[2] == "make":
    from paper.lab import masked_lm

    text._make_rows = lambda *sizes: (*made, 50)
    text.save_rows(folder, 50, 16, None)
    # As `run.py --save-tokens` does it: the masks are made of the rows that were written.
    os.environ["TRAINING_TOKENS"] = str(folder)
    text.save_masks(folder, workload, [7])
    del os.environ["TRAINING_TOKENS"]
    batches = masked_lm.training_batches(made[0], 50, 4, 7, 0, 16).as_numpy_iterator()
    held_out = masked_lm.validation_batches(made[1], 50, 64, 64).as_numpy_iterator()
    expected = [*batches, *held_out]
else:
    for module in ("tensorflow", "tensorflow_text", "tf_keras"):
        sys.modules[module] = None
    os.environ["TRAINING_TOKENS"] = str(folder)
    try:
        text.masked_lm(workload, 7, 17)
    except ValueError as error:
        assert "masks of 16 steps, not of 17" in str(error)
    else:
        raise AssertionError("masks of too few steps")
problem = text.masked_lm(workload, 7, 8)
steps = range(8 if sys.argv[2] == "make" else 16)
found = [problem.batch(problem.shared, problem.own, step) for step in steps]
inputs, labels = problem.held_out(problem.shared, problem.own)
found += [({k: v[0] for k, v in inputs.items()}, labels[0])]
if sys.argv[2] == "make":
    found = found[:-1] + expected[8:16] + found[-1:]
    for (inputs, labels), (e_inputs, e_labels) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(labels, e_labels)
        for name in ("token_ids", "mask_positions"):
            np.testing.assert_array_equal(inputs[name], e_inputs[name])
flat = [np.asarray(x).tolist() for i, l in found for x in (i["token_ids"], i["mask_positions"], l)]
print(json.dumps(flat))
"""


@pytest.mark.slow
def test_masks_are_the_main_jobs_with_and_without_tensorflow(tmp_path):
    paths = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "examples")]
    flat = []
    for word in ("make", "read"):
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path), word],
            env={"PYTHONPATH": ":".join(paths), "KERAS_BACKEND": "jax", "PATH": "", "HOME": "/tmp"},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr[-2000:]
        flat.append(json.loads(run.stdout.splitlines()[-1]))
    assert flat[0] == flat[1]
