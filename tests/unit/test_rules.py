import numpy as np
import pytest
from keras import ops

from keras_acclip import rules
from tests.reference import METHODS, heavy_tailed, joint_norm


class NumPy:
    """The namespace that `rules` asks for, in NumPy."""

    stack, concatenate, reshape = map(staticmethod, (np.stack, np.concatenate, np.reshape))
    sum, ones_like = map(staticmethod, (np.sum, np.ones_like))
    abs, square, sqrt = np.abs, np.square, np.sqrt
    minimum, maximum, logical_and, where = np.minimum, np.maximum, np.logical_and, np.where

    @staticmethod
    def cond(condition, true_fn, false_fn):
        return true_fn() if condition else false_fn()


def quietly(function):
    with np.errstate(over="ignore", under="ignore"):
        return function()


@pytest.mark.parametrize("step_size", rules.STEP_SIZES)
@pytest.mark.parametrize("alpha", [1.0, 1.3, 1.5, 2.0])
def test_acclip_in_numpy_is_algorithm_1(alpha, step_size):
    rng = np.random.default_rng(int(10 * alpha))
    steps = heavy_tailed(rng, [(4, 3)], 60)
    x, slots = np.zeros((4, 3)), [np.zeros((4, 3)) for _ in range(2 + (step_size == "rms"))]
    for (g,) in steps:
        step, *slots = rules.acclip(
            np.float64(g),
            *slots,
            learning_rate=0.1,
            beta_1=0.9,
            beta_2=0.99,
            epsilon=1e-5,
            alpha=alpha,
            step_size=step_size,
            ops=NumPy,
        )
        x = x - step
    (expected,), (expected_slots,), _ = METHODS["ACClip"](
        [np.zeros((4, 3))], steps, lr=0.1, alpha=alpha, step_size=step_size
    )
    np.testing.assert_allclose(x, expected, rtol=1e-12)
    np.testing.assert_allclose(slots, expected_slots, rtol=1e-12)


@pytest.mark.parametrize("step_size", rules.STEP_SIZES)
@pytest.mark.parametrize("scale", [0.0, 1e-37, 1e-20, 1.0, 1e18, 1e20, 1e37])
def test_acclip_is_finite_and_bounded_for_gradients_of_any_size(scale, step_size):
    g = np.float32(scale) * np.float32([1, -1, 0.5, 0])
    zeros = np.zeros(4, np.float32)
    slots = [zeros, zeros, zeros][: 2 + (step_size == "rms")]
    with np.errstate(over="ignore", under="ignore"):
        step, *_ = rules.acclip(
            g,
            *slots,
            learning_rate=1.0,
            beta_1=0.9,
            beta_2=0.99,
            epsilon=0.0,
            alpha=1.0,
            step_size=step_size,
            ops=NumPy,
        )
    assert np.all(np.isfinite(step))
    assert step[3] == 0
    if step_size == "moment":
        assert np.max(np.abs(step)) <= 1


@pytest.mark.parametrize("namespace", [NumPy, ops], ids=["numpy", "keras"])
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
@pytest.mark.parametrize("slices", [1, 16])
def test_global_norm_neither_overflows_nor_vanishes(slices, scale, namespace):
    rng = np.random.default_rng(0)
    arrays = [
        np.float32(scale * rng.standard_normal(s)) for s in [(), (7,), (3, 5), (0, 4), (401, 397)]
    ]
    if namespace is ops:
        norm = rules.global_norm([ops.convert_to_tensor(a) for a in arrays], ops, slices)
    else:
        with np.errstate(over="ignore", under="ignore"):
            norm = rules.global_norm(arrays, NumPy, slices)
    expected = joint_norm([np.float64(a) for a in arrays])
    np.testing.assert_allclose(norm, expected, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_global_norm_shows_what_is_not_finite(value):
    for shape in ((4,), (2, 2), (1, 4, 1)):
        array = np.float32([1.0, 2.0, value, 3.0]).reshape(shape)
        for norm in (
            rules.global_norm([ops.convert_to_tensor(array)], ops),
            quietly(lambda: rules.global_norm([array], NumPy)),  # noqa: B023
        ):
            assert not np.isfinite(norm)


def test_global_norm_of_zeros_is_zero():
    assert rules.global_norm([ops.zeros((3,))], ops) == 0


def test_gclip_keeps_short_gradients_and_shortens_long_ones():
    for norm in (0.0, 0.5, 2.0, 4.0, 1e30):
        factor = rules.gclip_factor(np.float64(norm), 2.0, NumPy)
        assert factor * norm == pytest.approx(min(norm, 2.0))


def test_cclip_clips_infinities_and_passes_nan_on():
    g = np.float32([-np.inf, -3, -1, 0, 2, np.inf, np.nan])
    np.testing.assert_array_equal(
        rules.cclip(g, np.float32(1.5), NumPy), np.float32([-1.5, -1.5, -1, 0, 1.5, 1.5, np.nan])
    )


def test_linear_average_is_the_weighted_mean():
    rng = np.random.default_rng(0)
    xs = rng.standard_normal((40, 3))
    average = np.zeros(3)
    for k, x in enumerate(xs, start=1):
        average = rules.linear_average(average, x, k)
        expected = np.average(xs[:k], axis=0, weights=np.arange(1, k + 1))
        np.testing.assert_allclose(average, expected, rtol=1e-12, atol=1e-14)


def test_projection_leaves_the_ball_alone():
    assert rules.projection_factor(np.float64(0.5), 2.0, NumPy) == 1
    assert rules.projection_factor(np.float64(8.0), 2.0, NumPy) == 0.25
