"""The tutorials: notebooks with their output, whose pictures have captions, and that run."""

import ast
import copy
import importlib.util
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TUTORIALS = ROOT / "docs/tutorials"
NAMES = sorted(path.stem for path in TUTORIALS.glob("*.ipynb"))
# What the cell of parameters is followed by when a test runs the notebook.
SMALL = {
    "compare": "ROWS, EPOCHS, RATES, SEEDS = 256, 1, [0.003, 0.01], [1, 2]",
    "noise": "EXAMPLES, EPOCHS, BATCHES, SEEDS = 4096, 1, 100, [1]",
    "garden": "PASSAGES, HELD_OUT, PRETRAINING_STEPS, SQUAD_STEPS = 40, 6, 10, 10",
}
NEEDS = {"compare": "scipy", "noise": "scipy", "garden": "official"}

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")


def read(name):
    return nbformat.read(TUTORIALS / f"{name}.ipynb", as_version=4)


def cells(name, kind):
    return [cell for cell in read(name).cells if cell.cell_type == kind]


def parameters(name):
    return [c for c in cells(name, "code") if "parameters" in c.metadata.get("tags", [])]


def names_set(source):
    """The names that assignments of a source set."""
    targets = [t for node in ast.parse(source).body for t in node.targets]
    return {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}


def pictures(cell):
    return [o for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]


def test_each_tutorial_can_be_run_small():
    assert set(NAMES) == set(SMALL) == set(NEEDS)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_valid_and_starts_with_its_title(name):
    nbformat.validate(read(name))
    first = read(name).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")


@pytest.mark.parametrize("name", NAMES)
def test_one_cell_holds_all_that_a_test_makes_small(name):
    (cell,) = parameters(name)
    assert names_set(SMALL[name]) == names_set(cell.source)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_stands_as_it_was_run_from_top_to_bottom(name):
    code = cells(name, "code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = [output.output_type for cell in code for output in cell.outputs]
    assert "stream" in kinds
    assert "error" not in kinds


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_shows_nothing_of_the_machine_it_ran_on(name):
    text = nbformat.writes(read(name))
    assert not re.search(r"/(root|home|work|tmp|Users)/", text)
    assert '"stderr"' not in text


@pytest.mark.parametrize("name", NAMES)
def test_each_picture_has_a_caption_that_says_what_to_see(name):
    found = read(name).cells
    for cell, following in zip(found, [*found[1:], None], strict=True):
        if pictures(cell):
            assert following is not None
            assert following.source.startswith("*What to see: ")


@pytest.mark.parametrize("name", NAMES)
def test_the_links_of_a_notebook_lead_to_files(name):
    text = "\n".join(cell.source for cell in cells(name, "markdown"))
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert links
    assert [link for link in links if not (TUTORIALS / link).exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    """With all its cells, in a kernel of its own, with less data and fewer steps."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    if importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"needs {NEEDS[name]}")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    notebook = copy.deepcopy(read(name))
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source += f"\n{SMALL[name]}"
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # Raises where a cell does.
    shown = [[bool(pictures(cell)) for cell in n.cells] for n in (notebook, read(name))]
    assert shown[0] == shown[1]
