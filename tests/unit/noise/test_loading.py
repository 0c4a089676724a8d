"""What importing the noise package loads, and what it says where something is missing."""

import subprocess
import sys

import pytest

from keras_acclip import noise
from keras_acclip.noise import tails

HEAVY = ("keras", "tensorflow", "tf_keras", "jax", "scipy", "matplotlib")


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_names_load_where_they_are_first_used():
    run_python(
        "import sys\n"
        "from keras_acclip import noise\n"
        "from keras_acclip.noise import plots, tails\n"
        "assert {'GradientNoise', 'measure_noise', 'tails'} <= {*dir(noise)}\n"
        "assert {'classify', 'Verdict'} <= {*dir(tails)}\n"
        "assert {'panel', 'save'} <= {*dir(plots)}\n"
        "noise.NoiseSample, noise.Advice\n"
        f"loaded = {{*sys.modules}} & {{*{HEAVY}}}\n"
        "assert not loaded, loaded\n"
        "tails.classify\n"
        f"loaded = {{*sys.modules}} & {{*{HEAVY}}}\n"
        "assert loaded == {'scipy'}, loaded\n"
    )


@pytest.mark.parametrize(
    ("module", "use", "extra"),
    [
        ("scipy", "import keras_acclip.noise.tails", "noise"),
        ("scipy", "from keras_acclip.noise import classify", "noise"),
        ("matplotlib", "import keras_acclip.noise.plots", "plot"),
        ("scipy", "from keras_acclip.noise import recorder; recorder.NoiseRecorder()", "noise"),
    ],
)
def test_a_missing_extra_is_named(module, use, extra):
    run_python(
        "import sys\n"
        f"sys.modules[{module!r}] = None\n"
        f"try: {use}\n"
        f"except ImportError as error: assert 'keras-acclip[{extra}]' in str(error), error\n"
        "else: raise SystemExit('no error')\n"
    )


def test_names_are_those_of_the_modules():
    for name in ("hill", "classify", "Verdict", "TailEstimate"):
        assert getattr(noise, name) is getattr(tails, name)
    for package in (noise, tails, noise.plots):
        assert {*package.__all__} <= {*dir(package)}
        for name in package.__all__:
            assert getattr(package, name) is not None
        with pytest.raises(AttributeError, match="missing"):
            package.missing  # noqa: B018
