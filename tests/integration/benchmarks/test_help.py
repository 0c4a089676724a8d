import resource
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.mark.parametrize("script", ["step_time", "noise_cost", "garden_step"])
def test_help_is_there_at_once(script):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = [sys.executable, str(BENCHMARKS / f"{script}.py"), "--help"]
    told = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert f"python benchmarks/{script}.py" in told
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5
