"""Thresholds that move, and the record of what was clipped, in our own optimizers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_acclip
from keras_acclip.thresholds import MovingMoment, MovingQuantile, ZScore
from tests import reference, versions

MOVING = (MovingMoment(1.2, warmup=2), MovingQuantile(0.6, 6, 2), ZScore(0.5, 0.9, 3))


def numbers(seed, steps=12):
    rng = np.random.default_rng(seed)
    shapes = [(4, 3), (3,), ()]
    values = [np.float32(rng.standard_normal(s)) for s in shapes]
    return values, reference.heavy_tailed(rng, shapes, steps)


def thresholds(moving, norms):
    """τ of each step for one norm, from the threshold's own functions in NumPy's float64."""
    state, taus = np.zeros((1, moving.width)), []
    for norm in norms:
        taus.append(float(moving.thresholds(state, keras.ops)[0]))
        state = np.asarray(moving.updated(state, np.array([norm]), keras.ops))
    return taus


@pytest.mark.parametrize(("version", "path"), versions.FEW_PAIRS)
def test_a_moving_threshold_clips_as_its_values_do(version, path):
    """Each path steps as the reference does with the threshold of that step, for any scale."""
    values, steps = numbers(3)
    joint = [reference.joint_norm(gs) for gs in steps]
    for moving in MOVING if path in ("eager", "XLA") else MOVING[:1]:
        taus = thresholds(moving, joint)
        expected, *_ = reference.gclip(
            values, steps, lr=0.1, threshold=lambda k, taus=taus: taus[k - 1]
        )
        # The last one's threshold is looked at below.
        for scale in (1.0, 1e3):

            def make(scale=scale, moving=moving, **flags):
                return version.GClip(0.1 / scale, moving, **flags)

            scaled = [[np.float32(scale) * g for g in gs] for gs in steps]
            optimizer, got = versions.apply(version, path, make, values, scaled)
            assert reference.relative_error(got, expected) <= 1e-4
        assert float(optimizer.threshold) == pytest.approx(
            1e3 * thresholds(moving, [*joint, 1.0])[-1], rel=1e-3
        )
        assert all(count == 1 for count in versions.traces(optimizer))


@pytest.mark.parametrize(("version", "path"), versions.FEW_PAIRS)
def test_a_moving_threshold_of_coordinates_follows_each_variable(version, path):
    values, steps = numbers(4)
    moving = MovingMoment(1.2, warmup=2)
    roots = [[np.sqrt(np.mean(np.square(g))) for g in gs] for gs in steps]
    taus = [thresholds(moving, column) for column in zip(*roots, strict=True)]
    expected = [np.float64(v) for v in values]
    for k, gs in enumerate(steps):
        clipped = [np.clip(g, -tau[k], tau[k]) for g, tau in zip(gs, taus, strict=True)]
        expected = [x - 0.1 * g for x, g in zip(expected, clipped, strict=True)]

    def make(**flags):
        return version.CClip(0.1, moving, **flags)

    optimizer, got = versions.apply(version, path, make, values, steps)
    assert reference.relative_error(got, expected) <= 1e-4
    assert np.shape(optimizer.threshold) == (3,)


@pytest.mark.parametrize(("version", "path"), versions.FEW_PAIRS)
def test_the_record_is_what_numpy_counts(version, path):
    values, steps = numbers(5)
    norms = np.array([reference.joint_norm(gs) for gs in steps])
    poisoned = [np.float32(np.nan) * g for g in steps[0]]
    tau = float(np.median(norms))

    def gclip(**flags):
        return version.GClip(0.1, tau, skip_nonfinite=True, **flags)

    optimizer, _ = versions.apply(version, path, gclip, values, [*steps, poisoned])
    record = optimizer.clipping
    assert [int(record.steps), int(record.skipped_steps), int(record.observed_steps)] == [13, 1, 12]
    assert int(record.clipped_steps) == np.sum(norms > tau)
    np.testing.assert_allclose(record.share, np.mean(norms > tau), rtol=1e-5)
    np.testing.assert_allclose(record.mean_norm, norms.mean(), rtol=1e-5)
    np.testing.assert_allclose(record.largest_norm, norms.max(), rtol=1e-5)
    np.testing.assert_allclose(record.threshold, tau, rtol=1e-6)
    squares = np.sum([[np.sum(np.square(g)) for g in gs] for gs in steps], axis=0)
    np.testing.assert_allclose(optimizer.clipping_variables.squares, squares, rtol=1e-5)

    def cclip(**flags):
        optimizer = version.CClip(0.1, 0.5, **flags)
        optimizer.record_every = 5
        return optimizer

    record = versions.apply(version, path, cclip, values, steps)[0].clipping
    looked = np.arange(0, 12, 5)
    coordinates = np.concatenate([np.ravel(g) for k in looked for g in steps[k]])
    assert [int(record.steps), int(record.observed_steps)] == [12, 3]
    np.testing.assert_allclose(record.share, np.mean(np.abs(coordinates) > 0.5), rtol=1e-5)
    np.testing.assert_allclose(record.mean_norm, norms[looked].mean(), rtol=1e-5)

    def acclip(**flags):
        optimizer = version.ACClip(0.01, **flags)
        optimizer.record_every = 8
        return optimizer

    optimizer, _ = versions.apply(version, path, acclip, values, steps[:9])
    m, tau, share = [np.zeros(np.shape(v)) for v in values], [0.0] * 3, []
    for gs in steps[:9]:
        m = [0.9 * a + 0.1 * g for a, g in zip(m, gs, strict=True)]
        tau = [0.99 * t + 0.01 * np.abs(g) for t, g in zip(tau, gs, strict=True)]
        over = [np.ravel(np.abs(a) + 1e-5 > t) for a, t in zip(m, tau, strict=True)]
        share.append(np.mean(np.concatenate(over)))
    assert int(optimizer.clipping.observed_steps) == 2
    np.testing.assert_allclose(optimizer.clipping.share, np.mean([share[0], share[8]]), rtol=1e-5)
    mean = np.mean(np.concatenate([np.ravel(t) for t in tau]))
    np.testing.assert_allclose(optimizer.clipping.threshold, mean, rtol=1e-5)


def test_what_a_step_that_is_not_finite_leaves(version):
    """Neither the threshold nor the record of norms moves; nor does an outlier move it far."""
    values, steps = numbers(6)
    variables = version.make_variables(values)
    optimizer = version.GClip(0.1, MovingMoment(warmup=2))
    optimizer.build(variables)
    for gs in steps:
        versions.update(optimizer, gs, variables)
    before, record = float(optimizer.threshold), optimizer.clipping
    for poison in (np.nan, np.inf):
        versions.update(optimizer, [np.float32(poison) * np.ones_like(g) for g in gs], variables)
    assert float(optimizer.threshold) == before
    assert float(optimizer.clipping.mean_norm) == float(record.mean_norm)
    assert int(optimizer.clipping.steps) == 14
    versions.update(optimizer, [1e6 * np.ones_like(g) for g in gs], variables)
    assert before < float(optimizer.threshold) <= 1.03 * before


def test_before_the_first_step(version):
    optimizer = version.GClip(0.1, MovingQuantile())
    assert float(optimizer.threshold) == np.inf
    assert [float(n) for n in optimizer.clipping] == [0.0] * 8
    lines = str(optimizer.clipping).splitlines()
    assert lines == [f"{name}: 0" for name in optimizer.clipping._fields]
    in_a_graph = []
    tf.function(lambda: in_a_graph.append(str(optimizer.clipping)))()
    assert "Tensor" in in_a_graph[0]
    optimizer.build(version.make_variables([np.zeros(3, "float32")]))
    assert float(optimizer.threshold) == np.inf
    with pytest.raises(TypeError, match=r"that moves.*Received: threshold="):
        optimizer.threshold = 1.0
    again = type(optimizer).from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()


def test_training_goes_on_bit_for_bit_with_a_moving_threshold(tmp_path):
    x = np.float32(np.random.default_rng(0).standard_normal((48, 6)))

    def batches(model, some):
        for i in some:
            model.train_on_batch(x[8 * i : 8 * i + 8], x[8 * i : 8 * i + 8, :2] ** 2)

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    model.compile(keras_acclip.CClip(0.01, ZScore(warmup=2)), "mse")
    batches(model, range(3))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, again):
        batches(each, range(3, 6))
    for a, b in zip(model.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
