"""`Clip` around every optimizer of Keras and ours."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_acclip
from keras_acclip import Clip
from keras_acclip.thresholds import MovingMoment, MovingQuantile, ZScore
from tests import paths, reference
from tests.tiers import some

EXPORTED = {
    name: cls
    for name, cls in vars(keras.optimizers).items()
    if isinstance(cls, type) and issubclass(cls, keras.optimizers.Optimizer)
}
OUTSIDE = {"Optimizer", "LossScaleOptimizer", "MultiOptimizer"}


class UsersOwn(keras.optimizers.Optimizer):
    """Sign descent with a slot, as a user writes it."""

    def build(self, variables):
        super().build(variables)
        self.counts = self.add_optimizer_variables(variables, "count")

    def update_step(self, gradient, variable, learning_rate):
        count = self.counts[self._get_variable_index(variable)]
        self.assign_add(count, keras.ops.abs(gradient))
        self.assign_sub(variable, learning_rate * keras.ops.sign(gradient) * keras.ops.sqrt(count))


MAKERS = {name: cls for name, cls in EXPORTED.items() if name not in OUTSIDE} | {
    "UsersOwn": lambda: UsersOwn(0.01),
    "ACClip": keras_acclip.ACClip,
    "GClip": lambda: keras_acclip.GClip(0.1, 0.5, momentum=0.9),
    "AdamW, everything": lambda: keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(0.1, 20),
        weight_decay=0.1,
        clipnorm=0.7,
        use_ema=True,
        ema_momentum=0.8,
        ema_overwrite_frequency=3,
        gradient_accumulation_steps=2,
        loss_scale_factor=4.0,
    ),
}
UNCOMPILED = {"jit_compile": False}


def numbers(seed, steps=6):
    rng = np.random.default_rng(seed)
    shapes = [(4, 3), (3,), ()]
    values = [np.float32(rng.standard_normal(s)) for s in shapes]
    return values, reference.heavy_tailed(rng, shapes, steps)


def train(optimizer, values, steps, wrap=lambda f: f):
    variables = paths.make_variables(values)
    optimizer.build(variables)
    step = wrap(lambda gradients: optimizer.apply(gradients, variables))
    for gradients in steps:
        step([tf.constant(g) for g in gradients])
    return variables


def clipped(steps, threshold, by="global"):
    """The steps' gradients, clipped in NumPy."""

    def scale(g, norm):
        return np.float32(g * min(1, threshold / norm))

    if by == "global":
        return [[scale(g, reference.joint_norm(gs)) for g in gs] for gs in steps]
    if by == "variable":
        return [[scale(g, np.linalg.norm(np.ravel(g))) for g in gs] for gs in steps]
    return [[np.clip(g, -threshold, threshold) for g in gs] for gs in steps]


def ours(optimizer):
    return isinstance(optimizer, keras_acclip.ACClip | keras_acclip.GClip)


@pytest.mark.parametrize("name", some(MAKERS, list(MAKERS)[::2]))
def test_a_threshold_that_never_binds_changes_nothing(name):
    """Bit for bit, where both run op by op."""
    values, steps = numbers(1)
    plain = train(MAKERS[name](), values, steps)
    same = train(Clip(MAKERS[name](), 1e30, **UNCOMPILED), values, steps)
    for a, b in zip(plain, same, strict=True):
        np.testing.assert_array_equal(a, b)


QUICK = ("Adam", "Muon", "UsersOwn", "AdamW, everything")


@pytest.mark.parametrize("name", some(MAKERS, QUICK))
def test_in_one_xla_computation_it_is_the_same_to_rounding(name):
    values, steps = numbers(1)
    plain = train(MAKERS[name](), values, steps)
    compiled = train(Clip(MAKERS[name](), 1e30), values, steps)
    assert reference.relative_error(compiled, plain) <= 1e-5


@pytest.mark.parametrize("by", ["global", "variable", "coordinate"])
@pytest.mark.parametrize("name", some(["Adam", "ACClip"], ["Adam"]))
def test_it_is_the_optimizer_on_clipped_gradients(name, by):
    values, steps = numbers(2)
    expected = train(MAKERS[name](), values, clipped(steps, 0.5, by))
    for wrap in (lambda f: f, tf.function):
        got = train(Clip(MAKERS[name](), 0.5, by=by), values, steps, wrap)
        assert reference.relative_error(got, expected) <= 1e-5


# Keras itself can't accumulate gradients on several replicas.
@pytest.mark.parametrize(
    "name", some([n for n in MAKERS if n != "AdamW, everything"], ("Nadam", "ACClip"))
)
def test_two_replicas_equal_one_device(name):
    values, steps = numbers(3)

    def make(jit_compile="auto"):
        return Clip(MAKERS[name](), 0.5)

    _, expected = paths.apply("eager", make, values, steps)
    _, got = paths.apply("two replicas", make, values, steps)
    # Muon's five matrix products of a gradient amplify its rounding.
    assert reference.relative_error(got, expected) <= (1e-3 if name == "Muon" else 1e-5)


def test_what_was_accumulated_is_clipped():
    values, steps = numbers(4)
    means = [[(a + b) / 2 for a, b in zip(*steps[i : i + 2], strict=True)] for i in (0, 2, 4)]
    expected = train(keras.optimizers.Adam(0.1), values, clipped(means, 0.5))
    for wrap in (lambda f: f, tf.function):
        inner = keras.optimizers.Adam(0.1, gradient_accumulation_steps=2)
        got = train(Clip(inner, 0.5), values, steps, wrap)
        assert reference.relative_error(got, expected) <= 1e-5


def test_skip_nonfinite_equals_never_having_seen_the_step():
    values, steps = numbers(5)
    poisoned = [g.copy() for g in steps[2]]
    poisoned[0][0, 0] = np.nan
    for wrap in (lambda f: f, tf.function):
        optimizer = Clip(keras.optimizers.AdamW(0.1), 0.5, skip_nonfinite=True)
        got = train(optimizer, values, [poisoned, *steps[:3], poisoned, *steps[3:]], wrap)
        clean = train(Clip(keras.optimizers.AdamW(0.1), 0.5, skip_nonfinite=True), values, steps)
        for a, b in zip(got, clean, strict=True):
            np.testing.assert_array_equal(a, b)
        assert int(optimizer.skipped_steps) == 2
        assert int(optimizer.inner_optimizer.iterations) == 6


def test_setters_reach_the_optimizer_and_hold_from_the_next_step_on():
    values, steps = numbers(6)
    clip = Clip(keras.optimizers.AdamW(0.1), 0.5)
    plain = keras.optimizers.AdamW(0.1)
    mine, theirs = paths.make_variables(values), paths.make_variables(values)
    for k, gradients in enumerate(steps):
        if k == 3:
            for optimizer in (clip, plain):
                optimizer.learning_rate = 0.02
                optimizer.weight_decay = 0.5
            clip.inner_optimizer.beta_1 = plain.beta_1 = 0.3
            clip.threshold = 0.25
        tau = 0.5 if k < 3 else 0.25
        clip.apply([tf.constant(g) for g in gradients], mine)
        plain.apply([tf.constant(g) for g in clipped([gradients], tau)[0]], theirs)
    assert reference.relative_error(mine, theirs) <= 1e-5
    assert float(clip.learning_rate) == pytest.approx(0.02)


MOVING = [
    MovingMoment(multiple=1.5, decay=0.9, warmup=3),
    MovingMoment(multiple=1.5, alpha=2.0, decay=0.9, warmup=1),
    MovingQuantile(q=0.75, window=6, warmup=2),
    ZScore(z=1.5, decay=0.9, warmup=4),
]


def moving_thresholds(moving, norms):
    """The thresholds before each norm, in float64 from their description alone."""
    seen, taus, root, mean, deviation = [], [], None, None, None
    for n in norms:
        warm = len(seen) < moving.warmup
        if isinstance(moving, MovingQuantile):
            taus.append(np.inf if warm else np.quantile(seen[-moving.window :], moving.q))
        elif isinstance(moving, MovingMoment):
            taus.append(np.inf if warm else moving.multiple * root)
        else:
            taus.append(np.inf if warm else mean + moving.z * deviation)
        if not (np.isfinite(n) and n > 0):
            continue
        kept = n if isinstance(moving, MovingQuantile) else min(n, taus[-1])
        seen.append(kept)
        if warm:
            root = mean = np.median(seen)
            deviation = 1.4826 * np.median(np.abs(np.array(seen) - mean))
        elif isinstance(moving, MovingMoment):
            power = moving.decay * root**moving.alpha + (1 - moving.decay) * kept**moving.alpha
            root = power ** (1 / moving.alpha)
        elif isinstance(moving, ZScore):
            d = moving.decay
            deviation = np.sqrt(d * (deviation**2 + (1 - d) * (kept - mean) ** 2))
            mean = mean + (1 - d) * (kept - mean)
    return taus


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("moving", MOVING, ids=str)
def test_moving_thresholds(moving, scale):
    """Against float64, with norms that are 0, infinite, NaN or a thousand times too long."""
    rng = np.random.default_rng(0)
    norms = scale * np.exp(rng.standard_normal(40))
    norms[[1, 12]], norms[[2, 20]], norms[[3, 25]], norms[30] = 0, np.inf, np.nan, 1e3 * scale
    expected = moving_thresholds(moving, norms)
    state, got = tf.zeros((1, moving.width)), []
    step = tf.function(
        lambda s, n: (
            moving.thresholds(s, keras.ops),
            moving.updated(s, n, keras.ops),
        ),
        jit_compile=True,
    )
    for n in norms:
        tau, state = step(state, tf.constant([n], tf.float32))
        got.append(float(tau[0]))
    np.testing.assert_allclose(got, np.float32(expected), rtol=2e-4)


@pytest.mark.parametrize("by", some(["global", "variable", "coordinate"], ["variable"]))
@pytest.mark.parametrize("moving", MOVING, ids=str)
def test_clipping_with_a_moving_threshold(moving, by):
    """Every path clips alike, traces once, and does not mind the scale of the loss."""
    values, steps = numbers(7, steps=15)
    norms = [[np.linalg.norm(np.ravel(np.float64(g))) for g in gs] for gs in steps]
    sizes = [np.size(v) for v in values]
    if by == "global":
        taus = np.array([moving_thresholds(moving, [np.linalg.norm(n) for n in norms])] * 3).T
    else:
        roots = np.sqrt(sizes) if by == "coordinate" else np.ones(3)
        columns = (np.array(norms) / roots).T
        taus = np.array([moving_thresholds(moving, column) for column in columns]).T

    def shortened(gs, k):
        if by == "coordinate":
            return [np.clip(g, -t, t) for g, t in zip(gs, taus[k], strict=True)]
        lengths = [np.linalg.norm(norms[k])] * 3 if by == "global" else norms[k]
        factors = [min(1, t / n) for t, n in zip(taus[k], lengths, strict=True)]
        return [np.float32(f * g) for f, g in zip(factors, gs, strict=True)]

    clean = [shortened(gs, k) for k, gs in enumerate(steps)]
    expected = train(keras.optimizers.SGD(0.1), values, clean)
    for scale in (1e-3, 1e3):
        optimizer = Clip(keras.optimizers.SGD(0.1 / scale), moving, by=by)
        scaled = [[np.float32(scale) * g for g in gs] for gs in steps]
        got = train(optimizer, values, scaled)
        assert reference.relative_error(got, expected) <= 1e-4
        (compiled,) = optimizer.compiled_steps.values()
        assert compiled.experimental_get_tracing_count() == 1
    if by == "global":

        def make(jit_compile="auto"):
            return Clip(keras.optimizers.SGD(0.1), moving)

        _, got = paths.apply("two replicas", make, values, steps)
        assert reference.relative_error(got, expected) <= 1e-4


def test_the_record():
    values, steps = numbers(8)
    norms = [reference.joint_norm(gs) for gs in steps]
    tau = float(np.median(norms))
    poisoned = [np.float32(np.nan) * g for g in steps[0]]
    optimizer = Clip(keras.optimizers.SGD(0.1), tau, skip_nonfinite=True)
    train(optimizer, values, [*steps, poisoned])
    record = optimizer.clipping
    assert (int(record.steps), int(record.skipped_steps)) == (7, 1)
    assert int(record.clipped_steps) == sum(n > tau for n in norms)
    np.testing.assert_allclose(record.mean_norm, np.mean(norms), rtol=1e-5)
    np.testing.assert_allclose(record.largest_norm, np.max(norms), rtol=1e-5)
    np.testing.assert_allclose(record.threshold, tau, rtol=1e-6)
    coordinates = np.concatenate([np.ravel(g) for gs in steps for g in gs])
    optimizer = Clip(keras.optimizers.SGD(0.1), 0.5, by="coordinate")
    train(optimizer, values, steps)
    share = np.mean(np.abs(coordinates) > 0.5)
    np.testing.assert_allclose(optimizer.clipping.share, share, rtol=1e-5)


def test_the_step_is_one_xla_computation():
    values, steps = numbers(9)
    optimizer = Clip(keras.optimizers.AdamW(0.1), MovingQuantile(), skip_nonfinite=True)
    variables = paths.make_variables(values)
    optimizer.build(variables)
    step = tf.function(lambda *gradients: optimizer.apply(gradients, variables))
    graph = step.get_concrete_function(*[tf.constant(g) for g in steps[0]]).graph
    calls = [op for op in graph.get_operations() if op.type == "StatefulPartitionedCall"]
    assert [op.get_attr("_XlaMustCompile") for op in calls] == [True]
    assigns = [op for op in graph.get_operations() if "Assign" in op.type]
    assert len(assigns) == 1  # its own iteration counter


def test_what_can_not_go_inside():
    adam = keras.optimizers.Adam()
    made = r"`optimizer` must be a Keras 3 optimizer, made, such as .*, not "
    for given, instead in (
        ("adam", "its name"),
        (keras.optimizers.Adam, "its class"),
        (object(), "one of Keras 2"),
    ):
        with pytest.raises(TypeError, match=made + instead):
            Clip(given)
    with pytest.raises(ValueError, match="Put it around"):
        Clip(keras.optimizers.LossScaleOptimizer(adam))
    with pytest.raises(ValueError, match="MultiOptimizer: its `apply`"):
        Clip(keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(adam)))
    with pytest.raises(ValueError, match="`by` must be one of"):
        Clip(adam, by="layer")
    with pytest.raises(ValueError, match="one norm has one threshold"):
        Clip(adam, {".*": 1.0})
    for threshold in (0.0, -1.0, float("nan"), 1e-49):
        with pytest.raises(ValueError, match="`threshold`"):
            Clip(adam, threshold)
    for bad in ({"multiple": 0.0}, {"alpha": 3.0}, {"decay": 1.0}, {"warmup": 0}):
        with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
            MovingMoment(**bad)
    for bad in ({"q": 1.0}, {"window": 1}, {"warmup": 200}):
        with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
            MovingQuantile(**bad)
    for bad in ({"z": 0.0}, {"decay": -0.1}, {"warmup": 1}):
        with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
            ZScore(**bad)
