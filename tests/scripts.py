"""Fixtures for tests of scripts: a command at the smoke scale, interrupted or not."""

import pytest


@pytest.fixture
def interrupt_next(monkeypatch):
    """A function: the next script is interrupted once the state after a second row is saved.

    The row itself is not noted yet.

    Args:
        resuming: The module of `Work`.
    """

    def arrange(resuming):
        write_json, deaths = resuming.write_json, iter([1])

        def die_once(path, value):
            if path.name == "rows.json" and len(value) == 2 and next(deaths, None):
                raise KeyboardInterrupt
            write_json(path, value)

        monkeypatch.setattr(resuming, "write_json", die_once)

    return arrange


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A folder for what the scripts keep between runs."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def command(request, english, cache):
    """A function: the test module's `job` runs at the smoke scale, on a little English."""

    def run(output, *arguments):
        fixed = ["--scale", "smoke", "--text", english, "--cache", cache, "--output", output]
        return request.module.job.main([str(argument) for argument in (*fixed, *arguments)])

    return run
