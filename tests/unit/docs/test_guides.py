"""The guides: their code runs."""

import os
import subprocess
import sys

import pytest

from tests.unit.docs.pages import ROOT, code

GUIDES = code("python")
# What a reader of README has already: its blocks show the lines that change.
BEFORE = {
    "README.md": """
import keras
import numpy as np

rng = np.random.default_rng(0)
x = rng.normal(size=(4096, 4)).astype("float32")
y = (x.sum(axis=1) > 0).astype("int32")
model = keras.Sequential([keras.layers.Dense(2, "softmax")])
"""
}


def test_the_guides_have_code():
    pages = {f"docs/{name}.md" for name in ("index", "choosing", "clipping", "noise", "devices")}
    assert pages | {"README.md"} <= set(GUIDES)


def test_the_code_of_the_shortest_guide_runs():
    exec(compile(GUIDES["docs/choosing.md"], "choosing.md", "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(GUIDES))
def test_the_code_of_a_guide_runs(name, tmp_path):
    """A page's blocks run one after the other, in a fresh process, as a reader pastes them."""
    done = subprocess.run(
        [sys.executable, "-c", BEFORE.get(name, "") + GUIDES[name]],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
