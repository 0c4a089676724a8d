"""The files for contributors, GitHub and citations agree with the package."""

import configparser
import datetime
import re
import tomllib
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


# The schema of the Citation File Format 1.2.0, as far as a file like this one goes by it.
ENTRY = {"type", "title", "authors", "abstract", "doi", "keywords", "license", "url", "version"}
CITATION = ENTRY | {
    *("cff-version", "message", "date-released", "commit", "contact", "identifiers"),
    *("license-url", "preferred-citation", "references", "repository", "repository-code"),
}
REFERENCE = ENTRY | {
    *("collection-title", "conference", "journal", "volume", "issue", "start", "end", "pages"),
    *("year", "month", "publisher", "editors", "isbn", "issn", "notes", "status"),
}
PERSON = {"family-names", "given-names", "name-particle", "name-suffix", "affiliation", "orcid"}
PERSON |= {"email", "alias", "website"}
ENTITY = {"name", "address", "city", "country", "email", "orcid", "website", "alias"}
KINDS = {"article", "book", "conference-paper", "data", "generic", "proceedings", "report"}
KINDS |= {"software", "software-code", "thesis", "unpublished"}


def check_entry(entry, keys, kinds):
    assert set(entry) <= keys
    assert entry["type"] in kinds
    assert isinstance(entry["title"], str) and entry["title"]
    assert entry["authors"]
    for author in entry["authors"]:
        assert set(author) <= ENTITY if "name" in author else set(author) <= PERSON
        assert all(isinstance(value, str) and value for value in author.values())
        assert "name" in author or {"family-names", "given-names", "alias"} & set(author)
    keywords = entry.get("keywords", [])
    assert len(set(keywords)) == len(keywords)
    assert re.match(r"https?://\S+$", entry.get("url", "https://x"))
    assert isinstance(entry.get("year", 2020), int)


def check_citation(citation):
    assert citation["cff-version"] == "1.2.0"
    assert isinstance(citation["message"], str) and citation["message"]
    assert isinstance(citation["version"], str)
    assert isinstance(citation["date-released"], datetime.date)
    check_entry(citation, CITATION, {"software", "dataset"})
    for reference in (*citation["references"], citation["preferred-citation"]):
        check_entry(reference, REFERENCE, KINDS)


def test_the_citation_is_valid():
    check_citation(load("CITATION.cff"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("authors", []),
        ("authors", [{"nam": "x"}]),
        ("type", "sofware"),
        ("titel", "x"),
        ("references", [{"type": "conference-paper", "title": "x", "authors": []}]),
    ],
)
def test_a_mistake_in_a_citation_is_seen(key, value):
    with pytest.raises(AssertionError):
        check_citation(load("CITATION.cff") | {key: value})


def test_pre_commit_formats_as_the_tests_do():
    revision = load(".pre-commit-config.yaml")["repos"][0]["rev"]
    least, below = re.search(r"ruff>=([\d.]+),<([\d.]+)", (ROOT / "setup.cfg").read_text()).groups()

    def numbers(version):
        return tuple(map(int, version.split(".")))

    assert numbers(least) <= numbers(revision.removeprefix("v")) < numbers(below)


def hooks():
    return [
        (repo, hook) for repo in load(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]
    ]


def test_pre_commit_s_hooks_are_whole():
    assert [hook["id"] for _, hook in hooks()] == ["ruff-check", "ruff-format", "pyright"]
    for repo, hook in hooks():
        if repo["repo"] == "local":
            assert {"name", "entry", "language"} <= set(hook)
            paths = [p.relative_to(ROOT).as_posix() for p in (ROOT / "keras_acclip").rglob("*.py")]
            assert any(re.search(hook["files"], path) for path in paths)
        else:
            assert repo["repo"].startswith("https://github.com/")
            assert isinstance(repo["rev"], str)


# --- Workflows ---

SETUP = (ROOT / "setup.cfg").read_text("utf-8")
PYTHONS = re.findall(r"Python :: (3\.\d+)", SETUP)
TRIGGERS = {"push", "pull_request", "schedule", "workflow_dispatch", "workflow_call"}
JOB = {"runs-on", "steps", "timeout-minutes", "strategy", "needs", "if", "permissions"}
JOB |= {"environment", "env"}
STEP = {"uses", "run", "with", "name", "if", "env", "id"}
# What an action may do only with a permission.
NEEDED = {
    "pypa/gh-action-pypi-publish": {"id-token": "write"},
    "actions/deploy-pages": {"id-token": "write", "pages": "write"},
}


def check_job(name, job, jobs):
    """That a job of a workflow holds together: what it refers to is in it."""
    if "uses" in job:
        assert set(job) <= {"uses", "needs", "if"}
        assert "workflow_call" in load(job["uses"])[True]
        return
    assert set(job) <= JOB
    assert {"runs-on", "steps"} <= set(job)
    needs = job.get("needs", [])
    needed = {needs} if isinstance(needs, str) else set(needs)
    assert needed <= set(jobs) - {name}
    text = yaml.safe_dump(job, width=10_000)
    matrix = job.get("strategy", {}).get("matrix", {})
    ids = [step["id"] for step in job["steps"] if "id" in step]
    assert set(re.findall(r"\bmatrix\.(\w+)", text)) == set(matrix)
    assert set(re.findall(r"\bsteps\.(\w+)\.", text)) <= set(ids)
    contexts = re.findall(r"\${{ (\w+)\.[\w.]+ }}", text)
    assert len(contexts) == text.count("${{")
    assert set(contexts) <= {"matrix", "github", "steps"}
    for step in job["steps"]:
        assert set(step) <= STEP
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            # A branch would bring what nobody has looked at.
            action, _, version = step["uses"].partition("@")
            assert re.fullmatch(r"(release/)?v\d+(\.\d+)*|[0-9a-f]{40}", version), step["uses"]
            given = job.get("permissions") or {}
            assert NEEDED.get(action, {}).items() <= given.items()
            if action == "actions/setup-python":
                assert step["with"]["python-version"] in (*PYTHONS, "${{ matrix.python }}")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_holds_together(path):
    workflow = load(path)
    # YAML takes `on` for true.
    assert set(workflow) <= {"name", True, "permissions", "jobs", "concurrency"}
    assert set(workflow[True]) <= TRIGGERS
    assert workflow["permissions"] == {"contents": "read"}
    for changed in (workflow[True].get("pull_request") or {}).get("paths", []):
        assert (ROOT / changed).exists()
    for name, job in workflow["jobs"].items():
        check_job(name, job, workflow["jobs"])


@pytest.mark.parametrize(
    ("path", "job", "right", "wrong"),
    [
        ("tests.yml", "backends", "matrix.backend", "matrix.bakend"),
        ("tests.yml", "python", "actions/checkout@v4", "actions/checkout@main"),
        ("tests.yml", "style", '"3.11"', '"3.10"'),
        ("docs.yml", "publish", "needs: build", "needs: biuld"),
        ("docs.yml", "publish", "steps.deployment", "steps.deploymnt"),
        ("docs.yml", "publish", "pages: write", "pages: read"),
        ("release.yml", "publish", "id-token: write", ""),
        ("release.yml", "build", "runs-on:", "run-on:"),
    ],
)
def test_a_mistake_in_a_workflow_is_seen(path, job, right, wrong):
    text = (ROOT / ".github/workflows" / path).read_text("utf-8")
    check_job(job, yaml.safe_load(text)["jobs"][job], yaml.safe_load(text)["jobs"])
    assert right in text
    jobs = yaml.safe_load(text.replace(right, wrong))["jobs"]
    with pytest.raises(AssertionError):
        check_job(job, jobs[job], jobs)


def extras():
    setup = configparser.ConfigParser()
    setup.read_string(SETUP)
    return set(setup["options.extras_require"])


@pytest.mark.parametrize("path", [*WORKFLOWS, ROOT / ".ci/run"], ids=lambda path: path.name)
def test_a_workflow_names_paths_and_extras_that_exist(path):
    text = path.read_text("utf-8")
    for named in re.findall(r"\btests/[\w/.]+", text):
        assert (ROOT / named).exists(), named
    for group in re.findall(r"'\.\[([\w,]+)\]'", text):
        assert set(group.split(",")) <= extras(), group


def test_what_the_local_check_runs_fails_where_a_command_does():
    lines = (ROOT / ".ci/run").read_text("utf-8").splitlines()
    assert "set -euo pipefail" in lines
    assert not [line for line in lines if re.search("&&|[|];", line) and line[0] != "#"]


@pytest.mark.parametrize("path", [".github/workflows/docs.yml", ".ci/run"])
def test_what_needs_the_extra_docs_is_tested_with_it(path):
    text = (ROOT / path).read_text("utf-8")
    with_extra = text.partition("pip install")[2].rpartition("'.[test,docs]'")[2]
    assert "pytest tests/unit/docs/test_site.py\n" in with_extra
    skipping = [p for p in (ROOT / "tests").rglob("*.py") if "the extra docs is" in p.read_text()]
    assert {p.name for p in skipping} <= {"test_site.py", "test_habits.py"}


def test_the_tested_versions_are_those_of_the_metadata():
    jobs = load(".github/workflows/tests.yml")["jobs"]
    matrices = {name: job["strategy"]["matrix"] for name, job in jobs.items() if "strategy" in job}
    assert matrices["python"]["python"] == PYTHONS
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    assert f"python_requires = >={PYTHONS[0]}\n" in SETUP
    assert project["pyright"]["pythonVersion"] == PYTHONS[0]
    assert project["ruff"]["target-version"] == f"py{PYTHONS[0].replace('.', '')}"
    tensorflow = re.search(r"^    tensorflow>=(\S+)$", SETUP, re.MULTILINE)[1]
    assert matrices["tensorflow"]["tensorflow"][0] == f"{tensorflow}.*"
    least = re.search(r"^    keras>=(\S+)$", SETUP, re.MULTILINE)[1]
    assert matrices["keras"]["keras"][0] == f"{least}.*"
    tested = (ROOT / "tests/integration/test_backends.py").read_text("utf-8")
    assert all(f'"{backend}"' in tested for backend in matrices["backends"]["backend"])


# --- Issue forms ---

FORMS = sorted(p for p in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if p.stem != "config")
# GitHub's kinds of fields, and what each may have.
FIELDS = {
    "markdown": {"value"},
    "textarea": {"label", "description", "placeholder", "value", "render"},
    "input": {"label", "description", "placeholder", "value"},
    "dropdown": {"label", "description", "multiple", "options", "default"},
    "checkboxes": {"label", "description", "options"},
}


def check_form(form):
    assert {"name", "description", "body"} <= set(form)
    assert set(form) <= {"name", "description", "body", "title", "labels", "assignees"}
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert fields
    for values in (
        [field["id"] for field in fields],
        [field["attributes"].get("label") for field in fields],
    ):
        assert len(set(values)) == len(values)
    for field in form["body"]:
        assert set(field) <= {"type", "id", "attributes", "validations"}
        assert field["type"] in FIELDS
        assert set(field["attributes"]) <= FIELDS[field["type"]]
        assert "label" in field["attributes"] or field["type"] == "markdown"
        assert re.fullmatch(r"[\w-]+", field.get("id", "x"))
        assert field.get("validations", {}) in ({}, {"required": True}, {"required": False})


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_is_one_that_github_shows(path):
    check_form(load(path))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("type: textarea", "type: textara"),
        ("label: Versions", "lable: Versions"),
        ("required: true", "required: maybe"),
        ("id: code", "id: report"),
        ("description: An error", "descripton: An error"),
    ],
)
def test_a_mistake_in_a_form_is_seen(right, wrong):
    text = (ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text("utf-8")
    assert right in text
    with pytest.raises(AssertionError):
        check_form(yaml.safe_load(text.replace(right, wrong, 1)))


def test_the_choice_of_forms_is_one_that_github_shows():
    choice = load(".github/ISSUE_TEMPLATE/config.yml")
    assert set(choice) <= {"blank_issues_enabled", "contact_links"}
    assert choice["blank_issues_enabled"] is False


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
