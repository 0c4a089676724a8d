import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_acclip import rules
from keras_acclip.optimizers import tensorflow_ops
from tests.reference import METHODS, heavy_tailed, joint_norm


class NumPy:
    """The namespace that `rules` asks for, in NumPy."""

    stack, concatenate, reshape = map(staticmethod, (np.stack, np.concatenate, np.reshape))
    sum, ones_like = map(staticmethod, (np.sum, np.ones_like))
    zeros_like = staticmethod(np.zeros_like)
    abs, square, sqrt, isnan = np.abs, np.square, np.sqrt, np.isnan
    minimum, maximum, logical_and, where = np.minimum, np.maximum, np.logical_and, np.where

    @staticmethod
    def cond(condition, true_fn, false_fn):
        return true_fn() if condition else false_fn()


def quietly(function):
    with np.errstate(all="ignore"):
        return function()


LOOKING_AHEAD = {"threshold": 0.5, "momentum": 0.9, "nesterov": True}
RULES = [
    *[
        (rules.ACClip(alpha=alpha, step_size=step_size), {"alpha": alpha, "step_size": step_size})
        for alpha in (1.0, 1.3, 1.5, 2.0)
        for step_size in rules.STEP_SIZES
    ],
    (ACCLIP := rules.ACClip(beta_1=0.5, beta_2=0.8, epsilon=1e-2), dataclasses.asdict(ACCLIP)),
    (rules.CClip(), {"threshold": 0.5}),
    (rules.CClip(momentum=0.9), {"threshold": 0.5, "momentum": 0.9}),
    (rules.CClip(momentum=0.9, nesterov=True), LOOKING_AHEAD),
    (rules.CClip(momentum=1.0), {"threshold": 0.5, "momentum": 1.0}),
    (rules.GClip(), {"threshold": 0.5}),
    (rules.GClip(momentum=0.9, nesterov=True), LOOKING_AHEAD),
    (rules.GClip(nesterov=True), {"threshold": 0.5}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rule", "options"), RULES, ids=lambda value: str(value))
def test_the_rule_is_the_papers(rule, options, dtype):
    """In NumPy, whatever α, step size, momentum and dtype."""
    shape, steps = (4, 3), heavy_tailed(np.random.default_rng(7), [(4, 3)], 60)
    x, slots = np.zeros(shape, dtype), tuple(np.zeros(shape, dtype) for _ in rule.slots)
    threshold = np.asarray(0.5, dtype)[()]
    for (g,) in steps:
        g = g.astype(dtype)
        if rule.clips_jointly:
            g = g * rule.factor(rules.global_norm([g], NumPy), threshold, NumPy)
        step, slots = rule.step(
            g, slots, learning_rate=np.asarray(0.1, dtype)[()], threshold=threshold, ops=NumPy
        )
        assert step.dtype == dtype
        x = x - step
    method = METHODS[type(rule).__name__]
    (expected,), (expected_slots,), _ = method([np.zeros(shape)], steps, lr=0.1, **options)
    tolerance = 1e-12 if dtype == "float64" else 2e-5
    np.testing.assert_allclose(x, expected, rtol=tolerance, atol=tolerance)
    for slot, expected in zip(slots, expected_slots, strict=False):
        np.testing.assert_allclose(slot, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("step_size", rules.STEP_SIZES)
@pytest.mark.parametrize("scale", [0.0, 1e-37, 1e-20, 1.0, 1e18, 1e20, 1e37])
def test_acclip_is_finite_and_bounded_for_gradients_of_any_size(scale, step_size):
    g = np.float32(scale) * np.float32([1, -1, 0.5, 0])
    rule = rules.ACClip(epsilon=0.0, step_size=step_size)
    slots = [np.zeros(4, np.float32) for _ in rule.slots]
    step, _ = quietly(
        lambda: rule.step(g, slots, learning_rate=np.float32(1), threshold=None, ops=NumPy)
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
        norm = quietly(lambda: rules.global_norm(arrays, NumPy, slices))
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


def test_global_norm_of_zeros_and_of_nothing_is_zero():
    assert rules.global_norm([ops.zeros((3,))], ops) == 0
    assert rules.global_norm([ops.zeros((0, 2)), ops.zeros((0,))], ops) == 0


def compiled(function):
    """The function in one XLA computation, from and to NumPy."""
    xla = tf.function(function, jit_compile=True, autograph=False)
    return lambda *arrays: xla(*map(tf.constant, arrays)).numpy()


RUNS = {
    "numpy": (NumPy, lambda function: function),
    "eager": (tensorflow_ops, lambda function: lambda *a: function(*map(tf.constant, a)).numpy()),
    "XLA": (tensorflow_ops, compiled),
}


@pytest.mark.parametrize("run", RUNS)
def test_gclips_factor(run):
    """τ/‖g‖ above τ, else 1; a NaN is passed on, a τ of 0 or less counts as 0, and 0/0 can't be."""
    namespace, wrap = RUNS[run]
    factor = wrap(lambda norm, threshold: rules.GClip().factor(norm, threshold, namespace))
    for norm, threshold, expected in [
        (0.0, 2.0, 1.0),
        (0.5, 2.0, 1.0),
        (2.0, 2.0, 1.0),
        (4.0, 2.0, 0.5),
        (1e30, 2.0, 2e-30),
        (np.inf, 2.0, 0.0),
        (np.nan, 2.0, np.nan),
        (4.0, 0.0, 0.0),
        (0.0, 0.0, 1.0),
        (4.0, -1.0, 0.0),
        (0.0, -1.0, 1.0),
    ]:
        got = quietly(lambda: factor(np.float32(norm), np.float32(threshold)))  # noqa: B023
        np.testing.assert_allclose(got, np.float32(expected), rtol=1e-6)


@pytest.mark.parametrize("run", RUNS)
def test_cclip_clips_infinities_and_passes_nan_on(run):
    namespace, wrap = RUNS[run]
    clip = wrap(lambda g, threshold: rules.clipped_coordinates(g, threshold, namespace))
    g = np.float32([-np.inf, -3, -1, 0, 2, np.inf, np.nan])
    for threshold, expected in [
        (1.5, [-1.5, -1.5, -1, 0, 1.5, 1.5, np.nan]),
        (0.0, [0, 0, 0, 0, 0, 0, np.nan]),
        (-1.0, [0, 0, 0, 0, 0, 0, np.nan]),
    ]:
        np.testing.assert_array_equal(clip(g, np.float32(threshold)), np.float32(expected))


@pytest.mark.parametrize("run", RUNS)
def test_projection_leaves_the_ball_alone(run):
    namespace, wrap = RUNS[run]
    factor = wrap(lambda norm: rules.projection_factor(norm, 2.0, namespace))
    for norm, expected in [(0.0, 1.0), (0.5, 1.0), (8.0, 0.25), (np.nan, np.nan)]:
        np.testing.assert_array_equal(factor(np.float32(norm)), np.float32(expected))
        np.testing.assert_array_equal(factor(np.float64(norm)), expected)


def test_linear_average_is_the_weighted_mean():
    rng = np.random.default_rng(0)
    xs = rng.standard_normal((40, 3))
    average = np.zeros(3)
    for k, x in enumerate(xs, start=1):
        average = rules.linear_average(average, x, k)
        expected = np.average(xs[:k], axis=0, weights=np.arange(1, k + 1))
        np.testing.assert_allclose(average, expected, rtol=1e-12, atol=1e-14)


def test_rules_are_values():
    """Equal ones are one key, and none can be changed."""
    assert {rules.GClip(momentum=0.5): 1}[rules.GClip(momentum=0.5)] == 1
    assert rules.ACClip(alpha=2) != rules.ACClip(alpha=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        rules.CClip().momentum = 0.5
    with pytest.raises(ValueError, match="`beta_1`"):
        dataclasses.replace(rules.ACClip(), beta_1=1.0)
