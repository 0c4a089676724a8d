"""What paired trainings can tell, against SciPy and by hand."""

import numpy as np
import pytest
from scipy import stats
from training import pairs


def test_paired_differences_agree_with_scipy():
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 12))
    expected = stats.ttest_rel(one, other)
    interval = expected.confidence_interval(0.95)
    got = pairs.paired(one, other)
    assert got["value"] == pytest.approx(np.mean(one - other))
    assert (got["low"], got["high"]) == pytest.approx((interval.low, interval.high))
    assert got["p"] == pytest.approx(expected.pvalue)


def test_pairs_without_spread():
    assert pairs.paired([2.0, 3.0], [1.0, 2.0])["p"] == 0
    assert pairs.paired([1.0, 2.0], [1.0, 2.0])["p"] == 1
    assert np.isnan(pairs.paired([1.0], [2.0])["low"])


def test_holm():
    # Of R: p.adjust(c(.01, .04, .03, .005), "holm").
    got = pairs.holm([0.01, 0.04, 0.03, 0.005])
    assert got == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert pairs.holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (-0.009, 0.008, "equal within ±0.01"),
        (-0.009, -0.001, "equal within ±0.01"),
        (-0.2, -0.001, "lower"),
        (0.001, 0.02, "higher"),
        (-0.02, 0.001, "undecided"),
        (float("nan"), float("nan"), "undecided"),
    ],
)
def test_verdict(low, high, expected):
    assert pairs.verdict({"low": low, "high": high}) == expected


def test_steps_to_a_loss():
    curve = [[10, 3.0], [20, 2.0], [30, 1.0]]
    assert pairs.steps_to(2.5, 4.0, curve) == 15
    assert pairs.steps_to(4.0, 4.0, curve) == 0
    assert pairs.steps_to(1.0, 4.0, curve) == 30
    assert pairs.steps_to(0.5, 4.0, curve) is None
