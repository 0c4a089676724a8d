"""Every public name stands on a page of the API, and no page names what isn't there."""

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
API = ROOT / "docs/api"
SHOWN = {
    name
    for page in API.glob("*.md")
    for name in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.MULTILINE)
}
MODULES = (
    "keras_acclip",
    "keras_acclip.tf_keras",
    "keras_acclip.noise",
    "keras_acclip.noise.tails",
    "keras_acclip.noise.plots",
    "keras_acclip.garden",
    "keras_acclip.garden.configs",
    "keras_acclip.garden.data",
)


def find(name):
    """What a dotted name stands for."""
    parent, _, last = name.rpartition(".")
    try:
        return getattr(importlib.import_module(parent), last)
    except AttributeError:
        return importlib.import_module(name)


def stands_on_a_page(name):
    if inspect.ismodule(find(name)):
        return any(shown == name or shown.startswith(f"{name}.") for shown in SHOWN)
    return name in SHOWN


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_its_place(module):
    names = [f"{module}.{name}" for name in importlib.import_module(module).__all__]
    assert names
    assert [name for name in names if not stands_on_a_page(name)] == []


# Modules without a list of their names stand whole on a page, which shows what has no underscore.
@pytest.mark.parametrize("name", ["keras_acclip.thresholds", "keras_acclip.rules"])
def test_a_module_without_a_list_is_shown_whole(name):
    assert name in SHOWN
    own = [
        value
        for key, value in vars(importlib.import_module(name)).items()
        if not key.startswith("_") and getattr(value, "__module__", None) == name
    ]
    assert len(own) > 5
    assert all(value.__doc__ for value in own)


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_what_a_page_shows_is_there(name):
    assert find(name) is not None


# --- Pictures ---

# What a name that draws is followed by on its page: its picture, and what to see in it.
FOLLOWED = re.compile(
    r"^::: (\S+)\n\n!\[[^\]]+\]\(pictures/(\w+)\.png\)\n\n\*What to see: [^*]+\*$", re.MULTILINE
)
SHOWN_WITH = {
    (page.name, *found)
    for page in API.glob("*.md")
    for found in FOLLOWED.findall(page.read_text("utf-8"))
}
DRAWS = re.compile(
    r"^(Draws the (?!norms)|The picture|Draws (a row|all)|.*a picture of)|draws it\."
)


def draws(value):
    """Whether a docstring says, in a line of its first paragraphs, that its owner draws."""
    text = (inspect.getdoc(value) or "").partition("Args:")[0]
    return any(DRAWS.search(line) for line in text.splitlines())


def drawing(name):
    """Whether what a page shows by this name draws, or one of its methods or functions does."""
    value = find(name)
    own = vars(value).items() if inspect.isclass(value) or inspect.ismodule(value) else ()
    members = [v for k, v in own if inspect.isfunction(v) and not k.startswith("_")]
    return any(map(draws, (value, *members)))


def test_what_draws_is_known_by_its_docstring():
    found = {name.rpartition(".")[2] for name in SHOWN if drawing(name)}
    drawn = {path.stem for path in (API / "pictures").glob("*.png")} - {"comparison"}
    assert drawn | {"GradientNoise", "NoiseSample", "compare"} == found


def test_each_name_that_draws_has_its_picture():
    named = {name for _, name, _ in SHOWN_WITH}
    assert {name for name in SHOWN if drawing(name)} <= named
    pictures = {f"{picture}.png" for _, _, picture in SHOWN_WITH}
    assert pictures == {path.name for path in (API / "pictures").iterdir()}


@pytest.mark.slow
def test_the_pictures_are_drawn_by_their_script(tmp_path):
    names = sorted({picture for _, _, picture in SHOWN_WITH} - {"comparison"})
    subprocess.run(
        [sys.executable, API / "make.py", "--output", tmp_path, *names],
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        check=True,
    )
    assert sorted(path.stem for path in tmp_path.iterdir()) == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())


def test_every_page_is_in_the_navigation():
    def pages(part):
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            for value in part.values():
                yield from pages(value)
        else:
            for item in part:
                yield from pages(item)

    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    docs = ROOT / "docs"
    written = {
        path.relative_to(docs).as_posix()
        for kind in ("md", "ipynb")
        for path in docs.rglob(f"*.{kind}")
        if ".ipynb_checkpoints" not in path.parts
    }
    made = {"changelog.md", "contributing.md", "examples.md"}
    assert set(pages(nav)) == written | made
