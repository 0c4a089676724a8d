"""The files for contributors, GitHub and citations agree with the package."""

import re
from pathlib import Path

import pytest
import yaml

import keras_acclip

ROOT = Path(__file__).parents[3]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def load(path):
    return yaml.safe_load((ROOT / path).read_text("utf-8"))


def test_the_citation_is_of_this_version():
    citation = load("CITATION.cff")
    assert citation["version"] == keras_acclip.__version__
    assert citation["license"] == "Apache-2.0"
    assert "1912.03194" in citation["preferred-citation"]["url"]


def test_pre_commit_formats_as_the_tests_do():
    revision = load(".pre-commit-config.yaml")["repos"][0]["rev"]
    least, below = re.search(r"ruff>=([\d.]+),<([\d.]+)", (ROOT / "setup.cfg").read_text()).groups()

    def numbers(version):
        return tuple(map(int, version.split(".")))

    assert numbers(least) <= numbers(revision.removeprefix("v")) < numbers(below)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_names_paths_and_extras_that_exist(path):
    extras = set(re.findall(r"^(\w+) =$", (ROOT / "setup.cfg").read_text(), re.MULTILINE))
    jobs = load(path)["jobs"]
    commands = [s["run"] for job in jobs.values() for s in job["steps"] if "run" in s]
    for command in commands:
        for path in re.findall(r"\btests/[\w/.]+", command):
            assert (ROOT / path).exists(), path
        for group in re.findall(r"'\.\[([\w,]+)\]'", command):
            assert set(group.split(",")) <= extras, group


def test_the_tested_pythons_are_those_of_the_metadata():
    matrix = load(".github/workflows/tests.yml")["jobs"]["python"]["strategy"]["matrix"]["python"]
    listed = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.cfg").read_text())
    assert matrix == listed


@pytest.mark.parametrize("name", ["bug.yml", "result.yml"])
def test_a_report_of_a_problem_asks_for_versions(name):
    first = load(f".github/ISSUE_TEMPLATE/{name}")["body"][0]
    assert "python -m keras_acclip.report" in first["attributes"]["description"]
    assert first["validations"]["required"] is True


def test_contributing_names_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = re.findall(r"`((?:keras_acclip|tests|examples|docs|\.ci)/[\w/.-]+)`", text)
    assert len(named) > 10
    for path in named:
        if path != "docs/results/NAME/results.json":
            assert (ROOT / path).exists(), path


def test_the_changelog_s_newest_section_is_this_version():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    sections = re.findall(r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", text, re.MULTILINE)
    assert len(sections) == len(re.findall(r"^## ", text, re.MULTILINE)) >= 2
    newest = (keras_acclip.__version__, str(load("CITATION.cff")["date-released"]))
    assert sections[0] == newest
    numbers = [tuple(map(int, version.split("."))) for version, _ in sections]
    assert numbers == sorted(numbers, reverse=True)


def test_the_readme_is_a_page():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 120
