"""What importing the package loads, and that its metadata says what it needs."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

import keras_acclip

ROOT = Path(__file__).parents[2]


def loaded_by(code):
    """The top-level modules that are loaded after running `code` in a fresh process."""
    code += "; import sys; print('\\n'.join({name.partition('.')[0] for name in sys.modules}))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(out.stdout.split())


def test_importing_the_package_loads_no_extra():
    base = loaded_by("import keras, tensorflow")
    extra = loaded_by("import keras_acclip") - base
    assert not extra & {"scipy", "matplotlib", "tf_keras", "official", "keras_hub", "powerlaw"}
    assert "keras_acclip" in extra


def test_public_names():
    for name in keras_acclip.__all__:
        assert getattr(keras_acclip, name).__doc__


def test_docstrings_are_complete():
    for cls in (keras_acclip.GClip, keras_acclip.CClip, keras_acclip.ACClip):
        assert "{{" not in cls.__doc__
        for part in (
            "Args:",
            "Raises:",
            "Example:",
            "References:",
            "Defaults to",
            "skip_nonfinite",
        ):
            assert part in cls.__doc__


def test_extras():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    assert set(extras) == {"plot", "noise", "garden", "examples", "test"}

    def names(extra):
        return {re.match(r"[\w-]+", line)[0] for line in extras[extra].split()}

    # The Model Garden's versions are narrower than those that the examples take.
    for extra in ("plot", "noise", "garden", "examples"):
        assert names(extra) <= names("test")
