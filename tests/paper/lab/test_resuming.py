import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from lab import resuming
from lab.resuming import Work

SETTINGS = {"seeds": 2, "rate": 0.5}
LENGTH = 4


def work_in(folder, **changes):
    return Work(folder, SETTINGS | changes, state="state-{}.txt")


def go_on(work, name="run"):
    """Work whose every step needs the state of the one before: each row holds all before it."""
    while (done := len(work.rows(name))) < LENGTH:
        before = work.state(name).read_text() if done else "0"
        after = f"{before},{done + 1}"
        work.add(name, {"sum": after}, lambda path, after=after: path.write_text(after))
    return work.finish(name)


@pytest.fixture
def unbroken(tmp_path):
    return go_on(work_in(tmp_path / "unbroken"))


def test_rows_are_kept_and_the_state_goes_when_all_is_done(unbroken, tmp_path):
    assert [row["sum"] for row in unbroken] == ["0,1", "0,1,2", "0,1,2,3", "0,1,2,3,4"]
    assert work_in(tmp_path / "unbroken").rows("run") == unbroken
    files = {path.name for path in (tmp_path / "unbroken").rglob("*") if path.is_file()}
    assert files == {"settings.json", "rows.json"}


def test_it_goes_on_wherever_it_was_stopped(unbroken, tmp_path, monkeypatch):
    """It dies before and after each thing that it does to a file, one place a time."""
    deaths = iter([])

    def dying(function):
        def call(*args, **kwargs):
            if next(deaths, False):
                raise KeyboardInterrupt
            result = function(*args, **kwargs)
            if next(deaths, False):
                raise KeyboardInterrupt
            return result

        return call

    for name in ("write_text", "unlink", "mkdir"):
        monkeypatch.setattr(Path, name, dying(getattr(Path, name)))
    monkeypatch.setattr(resuming, "write_atomically", dying(resuming.write_atomically))
    place = 0
    while True:
        deaths = iter([*[False] * place, True])
        try:
            go_on(work_in(tmp_path / str(place)))
        except KeyboardInterrupt:
            deaths = iter([])
        else:
            break
        assert go_on(work_in(tmp_path / str(place))) == unbroken, place
        assert not list((tmp_path / str(place)).rglob("state-*")), place
        place += 1
    assert place > 8 * LENGTH


def test_a_killed_process_goes_on(unbroken, tmp_path):
    """Killed for good (SIGKILL), in a process of its own, while a state is written."""
    code = f"""
        import sys
        sys.path[:0] = {sys.path!r}
        from tests.paper.lab.test_resuming import go_on, work_in
        from pathlib import Path
        import os, signal
        write = Path.write_text
        def die(self, text):
            if self.name == "state-3.txt":
                write(self, text[:3])
                os.kill(os.getpid(), signal.SIGKILL)
            return write(self, text)
        Path.write_text = die
        go_on(work_in({str(tmp_path / "killed")!r}))
    """
    found = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=os.environ)
    assert found.returncode == -signal.SIGKILL
    work = work_in(tmp_path / "killed")
    assert work.rows("run") == unbroken[:2]
    assert go_on(work) == unbroken


def test_pieces_of_work_do_not_touch_each_other(tmp_path):
    work = work_in(tmp_path)
    work.add("a/1", {"x": 1}, lambda path: path.write_text("a"))
    work.add("a/2", {"x": 2}, lambda path: path.write_text("b"))
    work.finish("a/1")
    assert work.rows("a/1") == [{"x": 1}]
    assert work.state("a/2").read_text() == "b"
    assert work.rows("a") == work.rows("none") == []


def test_a_part_is_computed_once_and_outlives_an_interruption(tmp_path):
    calls = []

    def compute(x, fail=False):
        calls.append(x)
        if fail:
            raise KeyboardInterrupt
        return {"x": x, "spread": math.nan}

    work = work_in(tmp_path)
    assert work.part("a", compute, 1)["x"] == 1
    with pytest.raises(KeyboardInterrupt):
        work.part("b", compute, 2, fail=True)
    again = work_in(tmp_path)
    found = [again.part(name, compute, x) for name, x in (("a", 1), ("b", 2))]
    assert [part["x"] for part in found] == [1, 2]
    assert calls == [1, 2, 2]
    assert math.isnan(found[0]["spread"])

    again.write_results({"parts": found}, ("numpy",))
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["settings"] == SETTINGS
    assert set(results["versions"]) == {"numpy"}
    assert results["parts"] == [{"x": 1, "spread": None}, {"x": 2, "spread": None}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 3}, r"holds runs with other settings \(seeds: 2 → 3\)"),
        ({"seeds": 3, "rate": 1.0}, r"\(seeds: 2 → 3; rate: 0.5 → 1.0\)"),
        ({"text": "a"}, r"\(text: None → a\)"),
    ],
)
def test_other_settings_are_refused(tmp_path, changes, message):
    work_in(tmp_path).add("a", {"x": 1})
    with pytest.raises(ValueError, match=message):
        work_in(tmp_path, **changes)
    assert work_in(tmp_path).rows("a") == [{"x": 1}]


def test_what_is_not_finite_is_no_strict_json():
    found = resuming.plain({"a": [1.0, math.inf, (math.nan, "x")], "b": None})
    assert found == {"a": [1.0, None, [None, "x"]], "b": None}
    json.dumps(found, allow_nan=False)
