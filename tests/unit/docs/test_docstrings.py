"""The examples in docstrings run, and come to what they show."""

import ast
import builtins
import doctest
import importlib
import io

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf

import keras_acclip
from keras_acclip import noise
from tests.tiers import some
from tests.unit.docs.pages import ROOT
from tests.unit.docs.readers import GardenReader, Keras2Reader, Reader

# Takes too long, at any scale that the example could name.
NOT_RUN = {"keras_acclip.garden.runner.run": "tests/integration/garden/test_train.py"}
IMPORTED = {"keras": keras, "keras_acclip": keras_acclip, "np": np, "plt": plt, "tf": tf}
READERS = {
    "keras_acclip": Reader,
    "keras_acclip.garden": GardenReader,
    "keras_acclip.noise.callback_tf_keras": Keras2Reader,
    "keras_acclip.noise.monitor_tf_keras": Keras2Reader,
    "keras_acclip.tf_keras": Keras2Reader,
}
# What takes long: mostly it trains or draws, of which one each is quick.
SLOW = (
    "keras_acclip.garden.accumulation.Accumulator",
    "keras_acclip.garden.actions.FollowAction",
    "keras_acclip.garden.actions.NoiseAction",
    "keras_acclip.garden.data.pretraining.make_pretraining_data",
    "keras_acclip.garden.experiments.MaskedLMTask",
    "keras_acclip.garden.input_position.InputPosition",
    "keras_acclip.garden.trainer.Trainer",
    "keras_acclip.noise.callback.",
    "keras_acclip.noise.callback_tf_keras.",
    "keras_acclip.noise.measure.",
    "keras_acclip.noise.monitor.",
    "keras_acclip.noise.monitor_tf_keras.",
    "keras_acclip.noise.plots",
    "keras_acclip.text.corpus.embedded_corpus",
    "keras_acclip.text.vocabulary.learn_vocabulary",
    "keras_acclip.tf_keras.acclip.",
)


def docstrings(path):
    """The docstrings of a file that have examples, by the names of what they are of."""

    def within(node, name):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node) or ""
            if ">>> " in text:
                yield name, text
            for child in ast.iter_child_nodes(node):
                yield from within(child, f"{name}.{getattr(child, 'name', '')}")

    return dict(within(ast.parse(path.read_text("utf-8")), module(path)))


def module(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = sorted((ROOT / "keras_acclip").rglob("*.py"))
EXAMPLES = {name: text for path in FILES for name, text in docstrings(path).items()}
MODULES = {name: module(path) for path in FILES for name in docstrings(path)}


class Checker(doctest.OutputChecker):
    """Compares what an example shows; where it shows nothing it may come to anything."""

    def check_output(self, want, got, optionflags):
        return not want or super().check_output(want, got, optionflags)


def unset(examples):
    """The names that examples read and that they don't set before."""
    known, found = set(dir(builtins)), []
    for example in examples:
        nodes = list(ast.walk(ast.parse(example.source)))
        names = [n for n in nodes if isinstance(n, ast.Name)]
        inner = {n.arg for n in nodes if isinstance(n, ast.arg)}
        inner |= {n.name for n in nodes if isinstance(n, ast.ExceptHandler)}
        stored = {n.id for n in names if not isinstance(n.ctx, ast.Load)}
        made = {n.id for n in names if isinstance(n.ctx, ast.Load)} - known - inner
        # `x, y = f(x)` reads before it sets; what a loop or a comprehension sets, it reads after.
        plain = isinstance(nodes[0].body[0], ast.Assign) and not any(
            isinstance(n, ast.comprehension) for n in nodes
        )
        found += sorted(made if plain else made - stored)
        known |= stored
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                known |= {a.asname or a.name.partition(".")[0] for a in node.names}
            elif isinstance(node, ast.ClassDef | ast.FunctionDef):
                known.add(node.name)
    return dict.fromkeys(found)


def names_of(name, examples):
    """What an example's reader has: the module's names, the package's, then data and models."""
    within = vars(importlib.import_module(MODULES[name]))
    longest = max((prefix for prefix in READERS if f"{name}.".startswith(f"{prefix}.")), key=len)
    reader = READERS[longest]()
    names = {"__name__": MODULES[name]}
    places = (noise, keras_acclip, noise.tails)
    for key in unset(examples):
        if hasattr(reader, key):
            names[key] = getattr(reader, key)
        elif key in within or key in IMPORTED:
            names[key] = within.get(key, IMPORTED.get(key))
        else:
            names[key] = next(getattr(place, key) for place in places if hasattr(place, key))
    return names


RUN = sorted(set(EXAMPLES) - set(NOT_RUN))


def test_all_docstrings_with_examples_are_found():
    assert len(EXAMPLES) > 70
    sources = "".join(path.read_text("utf-8") for path in FILES)
    # One more stands in a string of code.
    assert sum(text.count(">>> ") for text in EXAMPLES.values()) == sources.count(">>> ")
    assert set(NOT_RUN) <= set(EXAMPLES)
    assert all((ROOT / path).exists() for path in NOT_RUN.values())
    assert all(any(name.startswith(part) for name in RUN) for part in SLOW)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_can_be_read(name):
    for example in doctest.DocTestParser().get_examples(EXAMPLES[name]):
        ast.parse(example.source)


@pytest.mark.parametrize("name", some(RUN, [n for n in RUN if not n.startswith(SLOW)]))
def test_the_examples_of_a_docstring_hold(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parser = doctest.DocTestParser()
    examples = parser.get_examples(EXAMPLES[name])
    test = doctest.DocTest(examples, names_of(name, examples), name, None, None, EXAMPLES[name])
    runner = doctest.DocTestRunner(Checker(), verbose=False, optionflags=doctest.ELLIPSIS)
    told = io.StringIO()
    outcome = runner.run(test, out=told.write)
    assert not outcome.failed, told.getvalue()
    assert outcome.attempted == len(examples) > 0
