"""Runs the tests of this folder with Keras on JAX."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax")

TESTS = Path(__file__).parents[2]
CORE = (
    "unit/noise/test_measure.py::test_gradient_is_that_of_fit[compute_loss]",
    "unit/noise/test_measure.py::test_sketch_is_within_one_percent_of_exact",
    "integration/noise/test_callback.py::test_training_is_bitwise_the_same[dataset]",
)
ALL = (
    "unit/noise/test_measure.py",
    "unit/noise/test_data.py",
    "integration/noise/test_callback.py",
    "integration/noise/test_online.py::test_it_agrees_with_a_measurement[Keras 3-ACClip]",
    "integration/noise/test_online.py::test_norms_are_those_of_numpy",
)


@pytest.mark.parametrize(
    "tests",
    [
        pytest.param(CORE, id="core"),
        pytest.param(
            ALL,
            id="all",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_noise_on_jax(tests):
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-n0",
            "-p",
            "no:cacheprovider",
            "-m",
            "",
            *(str(TESTS / t) for t in tests),
        ],
        env=os.environ | {"KERAS_BACKEND": "jax", "CUDA_VISIBLE_DEVICES": ""},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-2000:]
    assert "passed" in finished.stdout
