"""The same classes on JAX and PyTorch, beside TensorFlow and the float64 reference."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import backend_run, data_parallel, reference
from tests.tiers import some

BACKENDS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(name) is None, reason=f"{name} is not installed"
        ),
    )
    for name in ("jax", "torch")
]


QUICK = ["GClip averaging", "CClip", "ACClip", "GClip moving", "Clip"]


def wanted(request, fixture):
    """The optimizers that the selected tests ask a fixture for, whose program takes no others."""
    asked = [item for item in request.session.items if fixture in getattr(item, "fixturenames", ())]
    names = [item.callspec.params.get("name") for item in asked if hasattr(item, "callspec")]
    return list(dict.fromkeys(filter(None, names))) or QUICK


pytestmark = pytest.mark.xdist_group("backends")  # The fixture runs once, in one process.


@pytest.fixture(scope="module", params=BACKENDS)
def results(request, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param) / "results.npz"
    finished = subprocess.run(
        [sys.executable, "-m", "tests.backend_run", str(out), *wanted(request, "results")],
        env=os.environ | {"KERAS_BACKEND": request.param, "CUDA_VISIBLE_DEVICES": ""},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    said = [line for line in finished.stderr.splitlines() if "runs its step without" in line]
    return {"backend": request.param, "said": said, **np.load(out)}


@pytest.fixture(scope="module")
def parallel(request, tmp_path_factory):
    """Weights after a training on JAX, on one device and on two virtual ones."""
    pytest.importorskip("jax")
    out = tmp_path_factory.mktemp("parallel") / "results.npz"
    flags = "--xla_force_host_platform_device_count=2"
    finished = subprocess.run(
        [sys.executable, "-m", "tests.data_parallel", str(out), *wanted(request, "parallel")],
        env=os.environ | {"KERAS_BACKEND": "jax", "CUDA_VISIBLE_DEVICES": "", "XLA_FLAGS": flags},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return dict(np.load(out))


@pytest.mark.parametrize("name", some(data_parallel.MAKERS, ["Clip(AdamW)", "ACClip"]))
def test_two_devices_of_jax_equal_one(parallel, name):
    alone, both = (
        [w for key, w in parallel.items() if key.startswith(f"{kind}-{name}-")]
        for kind in ("alone", "parallel")
    )
    assert len(alone) == 4
    assert reference.relative_error(both, alone) <= 1e-5


@pytest.mark.parametrize("name", some(backend_run.MAKERS, QUICK))
def test_given_gradients_equal_the_reference(results, name):
    values, steps = backend_run.gradients()
    cls, options = backend_run.REFERENCE[name]
    xs, _, averages = reference.METHODS[cls](values, steps, lr=0.05, **options)
    expected = averages if "averaging" in name else xs
    got = [results[f"apply-{name}-{i}"] for i in range(len(xs))]
    assert reference.relative_error(got, expected) <= 1e-5


@pytest.mark.parametrize("name", some(backend_run.MAKERS, QUICK))
def test_fit_equals_tensorflow(results, name):
    expected = backend_run.fit(name)
    got = [results[f"fit-{name}-{i}"] for i in range(len(expected))]
    assert reference.relative_error(got, expected) <= 1e-5


def test_the_first_optimizer_of_each_class_says_why_it_is_not_compiled(results):
    classes = {type(backend_run.MAKERS[name]()) for name in results["names"]}
    assert len(results["said"]) == len(classes) > 0
    assert all(f"the {results['backend']} backend" in line for line in results["said"])


def test_jit_compile_true_is_refused(results):
    assert bool(results["refused"])


def test_eager_steps_on_jax_compile_nothing_after_the_first(results):
    """`jax.lax.cond` in eager code compiles at each call, which made a step 40 times as slow."""
    assert results.get("compiled again", 0) == 0
