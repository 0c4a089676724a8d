"""Every script answers `--help` and a mistyped option before anything heavy is loaded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPTS = sorted((ROOT / "examples").glob("*.py")) + sorted((ROOT / "examples/paper").glob("*.py"))
HEAVY = ("jax", "keras", "keras_hub", "matplotlib", "official", "scipy", "sklearn", "tensorflow")
HEAVY += ("tf_keras", "torch")

# One process for all, as each would take a while to start.
ASK_ALL = """
import contextlib, io, json, runpy, sys
heavy, scripts = json.loads(sys.argv[1])
path, found = sys.path[:], {}
for script in scripts:
    sys.path[:] = [script.rpartition("/")[0], *path]
    answers = []
    for option in ("--help", "--no-such-option"):
        sys.argv, out, err, status = [script, option], io.StringIO(), io.StringIO(), None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runpy.run_path(script, run_name="__main__")
            except SystemExit as ended:
                status = ended.code
        answers.append([status, out.getvalue(), err.getvalue()])
    found[script] = answers, [name for name in heavy if name in sys.modules]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def answers():
    arguments = json.dumps([HEAVY, [str(path) for path in SCRIPTS]])
    line = [sys.executable, "-c", ASK_ALL, arguments]
    run = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(run.stdout)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help_and_a_mistyped_option_are_answered_at_once(script, answers):
    ((helped, mistyped), heavy) = answers[str(script)]
    assert heavy == []
    status, out, err = helped
    assert (status, err) == (0, "")
    assert "--help" in out
    first_line = script.read_text("utf-8").splitlines()[0].removeprefix('"""')
    assert " ".join(first_line.split()[:4]) in out
    status, out, err = mistyped
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].endswith("unrecognized arguments: --no-such-option")


def test_scripts_import_no_scripts():
    names = {path.stem for path in SCRIPTS}
    for path in SCRIPTS:
        for line in path.read_text("utf-8").splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                assert words[1].partition(".")[0] not in names, f"{path}: {line}"
