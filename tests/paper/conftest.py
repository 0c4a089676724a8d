import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))


@pytest.fixture
def interrupt_next(monkeypatch):
    """A function: the next run is interrupted once its second epoch is saved but not yet noted."""
    import experiment

    write_json = experiment.write_json

    def arrange():
        deaths = iter([1])

        def die_once(path, value):
            if path.name == "history.json" and len(value) == 2 and next(deaths, None):
                raise KeyboardInterrupt
            write_json(path, value)

        monkeypatch.setattr(experiment, "write_json", die_once)

    return arrange


@pytest.fixture
def command(request, english, tmp_path_factory):
    """A function: the test module's `job` runs at the smoke scale, on a little English."""
    cache = tmp_path_factory.getbasetemp() / "cache"

    def run(output, *arguments):
        fixed = ["--scale", "smoke", "--text", english, "--cache", cache, "--output", output]
        return request.module.job.main([str(argument) for argument in (*fixed, *arguments)])

    return run
