import json
import math

import moving_thresholds
import pytest
from lab.clipping.contest import contest
from lab.clipping.regression import Regression
from lab.clipping.tuning import climb


def test_climbing_ends_where_no_neighbour_is_better():
    def bowl(point):
        return (math.log2(point["rate"]) - 3.2) ** 2 + (math.log2(point["tau"]) + 2.1) ** 2

    point, tried = climb(bowl, {"rate": 1.0, "tau": 1.0})
    assert point == {"rate": 8.0, "tau": 0.25}
    assert 9 <= tried <= 36
    point, _ = climb(lambda p: math.nan if p["rate"] > 1 else p["rate"], {"rate": 4.0})
    # All around the start diverges: there it stays.
    assert point == {"rate": 4.0}


def test_the_regression_is_sgd_on_clipped_gradients():
    """Against NumPy, at a fixed threshold, and alike at every scale with one that moves."""
    import numpy as np

    problem = Regression(1.5, 40, "fixed")
    error = problem.error(3, rate=0.05, threshold=2.0)
    rng = np.random.default_rng([3, 15])
    truth = rng.standard_normal(20).astype("float32")
    x = rng.standard_normal((40, 8, 20)).astype("float32")
    y = (x @ truth + rng.standard_t(1.5, (40, 8))).astype("float32")
    w = np.zeros(20)
    for k in range(40):
        g = x[k].T @ (x[k] @ w - y[k]) / 8
        w -= 0.05 * (1 - k / 40) * g * min(1, 2.0 / np.linalg.norm(g))
    assert error == pytest.approx(
        math.log(np.linalg.norm(w - truth) / np.linalg.norm(truth)), abs=1e-4
    )
    moving = Regression(1.5, 40, "moment")
    plain = moving.error(3, rate=0.05)
    assert moving.error(3, rate=0.05, scale=1e3) == pytest.approx(plain, abs=1e-4)


def test_a_contest_tunes_measures_and_compares():
    class Bowl:
        def __init__(self, contestant, **settings):
            self.best = {"fixed": 0.0}.get(contestant, 0.5)

        def error(self, seed, rate, threshold=1.0, scale=1.0):
            return self.best + seed + abs(math.log2(rate)) + abs(math.log2(threshold))

    result = contest(Bowl, 4.0, [0], [1, 2])
    assert [run["settings"]["rate"] for run in result["runs"]] == [1.0] * 7
    assert {row["contestant"]: row["mean"] for row in result["differences"]} == {
        run["contestant"]: 0.5 for run in result["runs"] if run["contestant"] != "fixed"
    }
    assert result["runs"][2]["scaled"] == {"0.001": [1.5, 2.5], "1000": [1.5, 2.5]}


@pytest.mark.slow
def test_smoke_scale_reports(tmp_path, capsys):
    assert moving_thresholds.main(["--scale", "smoke", "--output", str(tmp_path)]) == 0
    assert "Transformer" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["problems"]) == 3
    assert (tmp_path / "errors.png").exists()
