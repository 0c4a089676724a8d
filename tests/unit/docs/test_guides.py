"""The guides: their code runs, their messages are the package's, their links hold on the site."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
GUIDES = {
    path.relative_to(ROOT).as_posix(): "\n".join(BLOCK.findall(path.read_text("utf-8")))
    for path in PAGES
    if BLOCK.search(path.read_text("utf-8"))
}
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


# --- Messages ---


def messages():
    """All texts of the package's source, the values in them left out."""
    texts = []
    for path in (ROOT / "keras_acclip").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def test_the_messages_are_the_package_s():
    page = (DOCS / "troubleshooting.md").read_text("utf-8")
    rows = re.findall(r"^\| `(.*?)` \| .+ \|$", page, re.MULTILINE)
    assert len(rows) > 25
    said = messages()
    assert [message for message in rows if message not in said] == []


# --- The site ---


@pytest.mark.parametrize(
    ("text", "source", "uri", "expected"),
    [
        ("[a](docs/results/bert.md)", "CHANGELOG.md", "changelog.md", "[a](results/bert.md)"),
        ("[a](../docs/noise.md#x)", "examples/README.md", "examples.md", "[a](noise.md#x)"),
        (
            "[e](../../examples/README.md)",
            "docs/results/index.md",
            "results/index.md",
            "[e](../examples.md)",
        ),
        (
            "[quickstart.py](quickstart.py)",
            "examples/README.md",
            "examples.md",
            "`examples/quickstart.py`",
        ),
        ("[p](https://arxiv.org)", "CHANGELOG.md", "changelog.md", "[p](https://arxiv.org)"),
        ("![p](a.png)", "docs/index.md", "index.md", "![p](a.png)"),
    ],
)
def test_links_are_led_to_the_site(text, source, uri, expected):
    assert hooks().rewritten(text, source, uri) == expected


def hooks():
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    return load("hooks")


def load(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


URLS = {"index.md": "", "noise.md": "noise/", "tutorials/a.ipynb": "tutorials/a/"}


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("../noise.md", "../../noise/"),
        ("../noise.md#the-verdict", "../../noise/#the-verdict"),
        ("a.ipynb", "../a/"),
        ("../index.md", "../../"),
        ("https://example.org/a.md", "https://example.org/a.md"),
        ("#here", "#here"),
    ],
)
def test_links_of_a_notebook_are_led_to_pages(link, expected):
    html = hooks().resolved(f'<a href="{link}">x</a>', "tutorials/b.ipynb", "tutorials/b/", URLS)
    assert html == f'<a href="{expected}">x</a>'


def test_a_link_of_a_notebook_to_no_page_is_a_warning(caplog):
    html = '<a href="../missing.md">x</a>'
    assert hooks().resolved(html, "tutorials/b.ipynb", "tutorials/b/", URLS) == html
    assert "tutorials/b.ipynb links to ../missing.md" in caplog.text


@pytest.mark.parametrize(
    "docstring",
    [
        "Clips.\n\nExample:\n    >>> clip(2)\n    1",
        "Clips.\n\nExample:\n\n>>> clip(2)\n1\n\nReferences:\n    A paper.",
    ],
)
def test_the_examples_of_docstrings_are_code(docstring):
    griffe = pytest.importorskip("griffe", reason="the extra docs is not installed")
    text = load("examples_of_docstrings").renamed(docstring)
    sections = griffe.parse_google(griffe.Docstring(text))
    ((kind, code),) = next(s.value for s in sections if s.kind.value == "examples")
    assert (kind.value, code) == ("examples", ">>> clip(2)\n1")


def test_a_note_of_another_kind_stays():
    pytest.importorskip("griffe", reason="the extra docs is not installed")
    text = "Clips.\n\nExample:\n    A text without a prompt."
    assert load("examples_of_docstrings").renamed(text) == text
