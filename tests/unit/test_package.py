"""What importing the package loads, and that its metadata says what it needs."""

import ast
import configparser
import importlib
import inspect
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import keras_acclip

ROOT = Path(__file__).parents[2]


def loaded_by(code):
    """The top-level modules that are loaded after running `code` in a fresh process."""
    code += "; import sys; print('\\n'.join({name.partition('.')[0] for name in sys.modules}))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(out.stdout.split())


HEAVY = {"keras", "tensorflow", "jax", "torch", "scipy", "matplotlib", "tf_keras", "official"}


def test_importing_the_package_loads_nothing_heavy():
    loaded = loaded_by(
        "import keras_acclip, keras_acclip.noise, keras_acclip.optimizers, keras_acclip.tf_keras"
        "; import keras_acclip.rules, keras_acclip.garden, keras_acclip.text"
        "; dir(keras_acclip), keras_acclip.__version__"
    )
    assert "keras_acclip" in loaded
    assert not loaded & HEAVY


def test_an_optimizer_loads_no_extra():
    extra = loaded_by(
        "import keras, tensorflow, sys; base = set(sys.modules)"
        "; import keras_acclip; keras_acclip.ACClip, keras_acclip.thresholds"
        "; [sys.modules.pop(name) for name in base - {'sys'}]"
    )
    assert "keras_acclip" in extra
    assert not extra & {"scipy", "matplotlib", "tf_keras", "official", "keras_hub", "powerlaw"}


def test_public_names():
    assert "GradientNoise" in dir(keras_acclip)
    for name in keras_acclip.__all__:
        assert name in dir(keras_acclip)
        assert getattr(keras_acclip, name).__doc__
    with pytest.raises(AttributeError, match="'keras_acclip' has no attribute 'Adam'"):
        keras_acclip.Adam  # noqa: B018


def static_names(path):
    """The names that a static reader sees in a module: what it imports and defines at its top."""
    tree = ast.parse(path.read_text())
    bodies = [tree.body, *(n.body for n in tree.body if isinstance(n, ast.If))]
    imported = (n for body in bodies for n in body if isinstance(n, ast.ImportFrom))
    return {alias.asname or alias.name for n in imported for alias in n.names}


def test_lazy_names_are_visible_to_static_readers():
    for package in ("", "noise", "optimizers", "tf_keras"):
        name = ".".join(filter(None, ["keras_acclip", package]))
        module = importlib.import_module(name)
        assert set(module.__all__) <= static_names(Path(module.__file__)), name


def test_docstrings_and_signatures_stand_in_the_source():
    """What `help()` shows of a public class is what its file says: nothing is made at import."""
    for cls in (keras_acclip.ACClip, keras_acclip.GradientNoise, keras_acclip.tf_keras.GClip):
        tree = ast.parse(Path(inspect.getfile(cls)).read_text())
        (node,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == cls.__name__]
        # From Python 3.13 on the compiler takes the indentation off.
        assert ast.get_docstring(node) == inspect.getdoc(cls)
        (init,) = [n for n in node.body if getattr(n, "name", "") == "__init__"]
        names = [a.arg for a in (*init.args.args, *init.args.kwonlyargs)][1:]
        assert list(inspect.signature(cls).parameters) == names


def test_version_and_marker_of_types():
    assert version("keras-acclip") == keras_acclip.__version__
    assert (ROOT / "keras_acclip" / "py.typed").exists()


def test_extras():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    assert set(extras) == {"plot", "noise", "garden", "examples", "paper", "docs", "test"}

    def names(extra):
        return {re.match(r"[\w-]+", line)[0] for line in extras[extra].split()}

    # The Model Garden's versions are narrower than those that the examples take.
    for extra in ("plot", "noise", "garden", "examples", "paper"):
        assert names(extra) <= names("test")


def test_subpackages_are_there_without_an_import_of_their_own():
    code = (
        "import keras_acclip, sys; assert 'tf_keras' not in sys.modules;"
        "print(keras_acclip.tf_keras.ACClip.__name__, keras_acclip.garden.__name__)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["ACClip", "keras_acclip.garden"]
