"""The pages of results: their tables are those of the results, their links lead somewhere."""

import importlib.util
import json
import math
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "docs" / "results"
PAGES = [ROOT / "README.md", ROOT / "examples/README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def load_make(folder=RESULTS):
    spec = importlib.util.spec_from_file_location("make", folder / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = load_make()


def test_every_page_has_the_tables_of_its_results(capsys):
    assert make.main(["--check"]) == 0, capsys.readouterr().err


# --- What the check finds ---


@pytest.fixture
def copy(tmp_path):
    """A copy of the pages and of README, and its `make`."""
    shutil.copytree(RESULTS, tmp_path / "docs/results")
    for name in ("README.md", "docs/choosing.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path / "docs/results", load_make(tmp_path / "docs/results")


def test_a_number_that_changed_is_found_and_written(copy, capsys):
    folder, module = copy
    path = folder / "bert/results.json"
    results = json.loads(path.read_text())
    results["tables"]["paper"]["rows"][0][2] = 1.5
    results["headlines"][0]["result"]["value"] = 0.5
    path.write_text(json.dumps(results))
    assert module.main(["--check"]) == 1
    named = capsys.readouterr().err
    assert "bert.md differs from its results" in named
    assert "README.md differs" in named
    assert module.main([]) == 0
    assert module.main(["--check"]) == 0
    assert "| 6 | Adam | 1.500 | 63.45 |" in (folder / "bert.md").read_text()
    assert "+0.500 (−0.112 to +0.190)" in (folder.parents[1] / "README.md").read_text()


def test_a_table_can_stand_on_another_page(copy):
    folder, module = copy
    path = folder / "training/results.json"
    results = json.loads(path.read_text())
    results["tables"]["starts"]["rows"][0][0] = "A model of another name"
    path.write_text(json.dumps(results))
    assert module.main(["--check"]) == 1 and module.main([]) == 0
    assert "| A model of another name |" in (folder.parent / "choosing.md").read_text()
    assert "A model of another name" not in (folder / "training.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["tables"].pop("paper"), "bert.md: has the tables"),
        (lambda r: r["tables"]["paper"]["rows"][0].pop(), "a row of 3 cells"),
        (lambda r: r["tables"]["paper"]["rows"][0].__setitem__(2, {"mean": 1}), "is no cell"),
        (lambda r: r.pop("measured"), "measured"),
    ],
)
def test_results_that_do_not_fit_their_page_are_named(copy, change, message, capsys):
    folder, module = copy
    path = folder / "bert/results.json"
    results = json.loads(path.read_text())
    change(results)
    path.write_text(json.dumps(results))
    assert module.main(["--check"]) == 2
    assert message in capsys.readouterr().err


# --- Cells ---


@pytest.mark.parametrize(
    ("cell", "options", "text"),
    [
        ("text", {}, "text"),
        (None, {}, "–"),
        (0.002, {}, "0.002"),
        (1e-5, {}, "1e−5"),
        (12345, {}, "12,345"),
        (5.1, {"digits": 3}, "5.100"),
        (-5.1, {"digits": 3}, "−5.100"),
        (0.5, {"digits": 2, "sign": True}, "+0.50"),
        (math.nan, {"digits": 2}, "diverged"),
        (math.inf, {}, "∞"),
        ([1.0, None], {"digits": 1}, "1.0, diverged"),
        ({"mean": 5.1, "sd": 0.02}, {"digits": 2}, "5.10 ± 0.02"),
        ({"mean": 5.1, "sd": None}, {"digits": 2}, "5.10"),
        (
            {"value": 1.0, "low": -0.5, "high": 2.5},
            {"digits": 1, "sign": True},
            "+1.0 (−0.5 to +2.5)",
        ),
    ],
)
def test_a_cell_is_shown_as_its_kind(cell, options, text):
    assert make.cell_text(cell, **options) == text


def test_a_table_can_take_its_rows_from_a_script(tmp_path):
    rows = [{"optimizer": "adam", "val_loss": {"mean": 5.0, "sd": 0.1}, "index": [2, 1, 3]}]
    difference = {"mean": -0.5, "low": -1.0, "high": None}
    (tmp_path / "run.json").write_text(
        json.dumps({"summary": rows, "deep": {"list": [[difference]]}})
    )
    columns = [
        {"name": "optimizer", "key": "optimizer"},
        {"name": "loss", "key": "val_loss", "digits": 2},
        {"name": "index", "interval": "index"},
    ]
    for source in ({"file": "run.json", "list": "summary"}, {"summary_of": "run.json"}):
        text = make.table_text({"columns": columns} | source, tmp_path)
        assert text.splitlines()[2] == "| adam | 5.00 ± 0.10 | 2 (1 to 3) |"
    column = {"name": "difference", "interval": ["mean", "low", "high"], "digits": 1}
    deep = {"columns": [column], "file": "run.json", "list": "deep.list.0"}
    assert make.table_text(deep, tmp_path).splitlines()[2] == "| – |"


# --- Links ---


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(page):
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_scripts_name_pages_and_commands_that_there_are():
    texts = {path: path.read_text("utf-8") for path in [*PAGES, *(ROOT / "examples").rglob("*.py")]}
    for path, text in texts.items():
        for page in re.findall(r"docs/results/\w+\.md", text):
            assert (ROOT / page).exists(), f"{path}: {page}"
        if RESULTS not in path.parents:
            for script in re.findall(r"python (examples/[\w/]+\.py)", text):
                assert (ROOT / script).exists(), f"{path}: {script}"
