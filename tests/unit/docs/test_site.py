"""The site: links hold in it, and the examples of docstrings are code.

What needs the extra `docs` is skipped without it; `.ci/run` and the workflow `docs` have it.
"""

import importlib.util

import pytest

from tests.unit.docs.pages import ROOT

DOCS = ROOT / "docs"


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
