import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_acclip.optimizers import notices
from keras_acclip import ACClip, CClip, GClip
from keras_acclip.thresholds import PowerThreshold
from tests import paths, reference


def numbers(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, size=4)
    shapes = [(), (int(sizes[0]),), tuple(map(int, sizes[1:3])), (2, 3, int(sizes[3]))]
    values = [np.float32(rng.standard_normal(s)) for s in shapes]
    return values, reference.heavy_tailed(rng, shapes, 55, scale)


class Tau:
    """The same threshold schedule for the optimizer and for the reference."""

    keras = PowerThreshold(0.3, 1.5)

    @staticmethod
    def numpy(k):
        return 0.3 * k ** (1 / 1.5)


CASES = [
    (GClip, {"threshold": 0.5}, {}),
    (GClip, {"threshold": 0.5, "momentum": 0.9, "weight_decay": 0.1}, {}),
    (GClip, {"threshold": 0.5, "momentum": 0.9, "nesterov": True}, {}),
    (GClip, {"threshold": Tau.keras}, {"threshold": Tau.numpy}),
    (GClip, {"threshold": 0.5, "averaging": "linear", "projection_radius": 2.0}, {}),
    (CClip, {"threshold": 0.1}, {}),
    (CClip, {"threshold": 0.1, "momentum": 0.9, "weight_decay": 0.1}, {}),
    (CClip, {"threshold": {"v[01]": 0.1, ".*": 0.1}, "momentum": 0.5}, {"threshold": 0.1}),
    (CClip, {"threshold": Tau.keras, "averaging": "linear"}, {"threshold": Tau.numpy}),
    *[
        (ACClip, {"alpha": alpha, "step_size": step_size}, {})
        for alpha in (1.0, 1.3, 1.5, 2.0)
        for step_size in ("moment", "rms", "constant")
    ],
    (ACClip, {"weight_decay": 0.1, "averaging": "linear", "beta_1": 0.5, "beta_2": 0.9}, {}),
]


def kinds(slots):
    """Slots sorted by kind instead of by variable."""
    slots = [list(s.values()) if hasattr(s, "values") else s for s in slots]
    return list(zip(*slots, strict=True))


def case_name(case):
    cls, kwargs = case[:2]
    # An object's address would give a test another name in each of pytest's processes.
    values = [type(v).__name__ if isinstance(v, PowerThreshold) else v for v in kwargs.values()]
    return "-".join([cls.__name__, *(f"{k}={v}" for k, v in zip(kwargs, values, strict=True))])


@pytest.mark.parametrize("path", paths.PATHS)
@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_equals_the_papers_method(case, path):
    cls, kwargs, other = case
    values, steps = numbers(seed=len(case_name(case)))
    optimizer, variables = paths.apply(
        path, lambda **k: cls(learning_rate=0.05, **kwargs, **k), values, steps
    )
    names = {"weight_decay": "wd", "projection_radius": "radius"}
    options = {names.get(k, k): v for k, v in (kwargs | other).items() if k != "averaging"}
    xs, slots, averages = reference.METHODS[cls.__name__](values, steps, lr=0.05, **options)
    assert reference.relative_error(variables, xs) <= 1e-5
    for held, expected in zip(kinds(optimizer._slots), kinds(slots), strict=False):
        assert reference.relative_error(held, expected) <= 1e-5
    if "averaging" in kwargs:
        optimizer.finalize_variable_values(variables)
        assert reference.relative_error(variables, averages) <= 1e-5


@pytest.mark.parametrize("path", paths.PATHS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("cls", [GClip, CClip, ACClip])
def test_dtypes(cls, dtype, path):
    """Slots of half-precision variables are float32; the variable rounds once a step."""
    values, steps = numbers(seed=3)
    kind = tf.as_dtype(dtype).as_numpy_dtype
    steps = [[g.astype(kind) for g in gradients] for gradients in steps]
    values = [v.astype(kind) for v in values]
    kwargs = {} if cls is ACClip else {"threshold": 0.5, "momentum": 0.9}
    optimizer, variables = paths.apply(
        path, lambda **k: cls(learning_rate=0.05, **kwargs, **k), values, steps, dtype
    )
    xs, slots, _ = reference.METHODS[cls.__name__](values, steps, lr=0.05, **kwargs)
    wide = "float64" if dtype == "float64" else "float32"
    for held in optimizer._slots:
        assert {slot.dtype for slot in held.values()} == {wide}
    for held, expected in zip(kinds(optimizer._slots), kinds(slots), strict=True):
        assert reference.relative_error(held, expected) <= 1e-5
    ulp = {"float16": 2**-11, "bfloat16": 2**-8, "float64": 1e-9}[dtype]
    for variable, x in zip(variables, xs, strict=True):
        assert variable.dtype == dtype
        error = np.abs(np.asarray(variable.numpy(), np.float64) - x)
        assert np.max(error) <= len(steps) * ulp * max(np.max(np.abs(x)), 1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_norm_of_half_precision_gradients_does_not_overflow(dtype):
    largest = {"float16": 6e4, "bfloat16": 1e37}[dtype]
    for path in paths.PATHS[:5]:
        g = tf.cast(np.full((40,), largest, np.float32), dtype)
        _, (v,) = paths.apply(path, lambda **k: GClip(1.0, 2.0, **k), [np.zeros(40)], [[g]], dtype)
        v = keras.ops.convert_to_numpy(keras.ops.cast(v, "float32"))
        np.testing.assert_allclose(v, -2 / np.sqrt(40), rtol=1e-2)


@pytest.mark.parametrize("path", paths.PATHS)
def test_an_infinite_coordinate_is_clipped_by_cclip(path):
    g = np.float32([np.inf, -np.inf, 0.2])
    _, (v,) = paths.apply(path, lambda **k: CClip(1.0, 0.5, **k), [np.zeros(3)], [[g]])
    np.testing.assert_allclose(v, [-0.5, 0.5, -0.2])


@pytest.mark.parametrize("path", paths.PATHS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("cls", [GClip, CClip, ACClip])
def test_skip_nonfinite_equals_never_having_seen_the_step(cls, bad, path):
    values, steps = numbers(seed=5)
    poisoned = [g.copy() for g in steps[7]]
    poisoned[1][0] = bad
    kwargs = {} if cls is ACClip else {"threshold": 0.5, "momentum": 0.9}
    kwargs |= {"averaging": "linear", "weight_decay": 0.1, "projection_radius": 3.0}

    def make(**k):
        return cls(learning_rate=0.05, skip_nonfinite=True, **kwargs, **k)

    optimizer, variables = paths.apply(
        path, make, values, [*steps[:3], poisoned, *steps[3:6], poisoned]
    )
    clean, clean_variables = paths.apply(path, make, values, steps[:6])
    assert int(optimizer.skipped_steps) == 2
    assert int(clean.skipped_steps) == 0
    for value, expected in zip(variables, clean_variables, strict=True):
        np.testing.assert_array_equal(value, expected)
    for held, expected in zip(paths.slot_values(optimizer), paths.slot_values(clean), strict=True):
        np.testing.assert_equal(held, expected)
    for average, expected in zip(optimizer._averages, clean._averages, strict=True):
        np.testing.assert_array_equal(average, expected)


def test_skip_nonfinite_leaves_the_exponential_average_too():
    (v,) = paths.make_variables([np.ones(2, np.float32)])
    optimizer = ACClip(0.1, skip_nonfinite=True, use_ema=True, ema_momentum=0.5)
    optimizer.apply([tf.constant([1.0, 2.0])], [v])
    optimizer.apply([tf.constant([1.0, 2.0])], [v])
    before = np.array(optimizer._model_variables_moving_average[0])
    optimizer.apply([tf.constant([np.nan, 2.0])], [v])
    np.testing.assert_array_equal(optimizer._model_variables_moving_average[0], before)


def test_slots_a_variable():
    v = paths.make_variables([np.zeros(3)])
    for optimizer, slots in [
        (ACClip(), 2),
        (ACClip(step_size="constant"), 2),
        (ACClip(step_size="rms"), 3),
        (GClip(), 0),
        (GClip(momentum=0.5), 1),
        (GClip(averaging="linear"), 1),
        (CClip(momentum=0.5, averaging="linear"), 2),
    ]:
        fixed = len(optimizer.variables)
        optimizer.build(v)
        assert len(optimizer.variables) - fixed == slots


def test_acclips_moment_step_moves_no_coordinate_by_more_than_the_rate():
    values, steps = numbers(seed=8, scale=100.0)
    optimizer = ACClip(0.25)
    variables = paths.make_variables(values)
    for gradients in steps:
        before = [np.array(v) for v in variables]
        optimizer.apply([tf.constant(g) for g in gradients], variables)
        for v, b in zip(variables, before, strict=True):
            assert np.max(np.abs(np.array(v) - b)) <= 0.25 * (1 + 1e-5)


@pytest.mark.parametrize("cls", [GClip, CClip])
@pytest.mark.parametrize("nesterov", [False, True])
def test_with_a_huge_threshold_equals_keras_sgd(cls, nesterov):
    values, steps = numbers(seed=9)
    ours = cls(0.05, threshold=1e30, momentum=0.9, nesterov=nesterov, weight_decay=0.1)
    theirs = keras.optimizers.SGD(0.05, momentum=0.9, nesterov=nesterov, weight_decay=0.1)
    results = []
    for optimizer in (ours, theirs):
        variables = paths.make_variables(values)
        for gradients in steps:
            optimizer.apply([tf.constant(g) for g in gradients], variables)
        results.append(variables)
    assert reference.relative_error(*results) <= 1e-5


def traces(optimizer):
    return [f.experimental_get_tracing_count() for f in optimizer.compiled_steps.values()]


@pytest.mark.parametrize("outer", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_changed_rates_and_thresholds_take_effect_without_retracing(outer):
    (v,) = paths.make_variables([np.zeros(2, np.float32)])
    optimizer = GClip(learning_rate=1.0, threshold=1.0)
    optimizer.build([v])
    step = outer(lambda g: optimizer.apply([g], [v]))
    g = tf.constant([30.0, 40.0])
    step(g)
    np.testing.assert_allclose(v, [-0.6, -0.8], rtol=1e-6)
    optimizer.learning_rate = 0.5
    optimizer.threshold = 4.0
    step(g)
    np.testing.assert_allclose(v, [-1.8, -2.4], rtol=1e-6)
    assert traces(optimizer) == [1]


def test_schedules_do_not_retrace():
    (v,) = paths.make_variables([np.zeros(2, np.float32)])
    rate = keras.optimizers.schedules.InverseTimeDecay(1.0, 1, 1.0)
    optimizer = GClip(rate, PowerThreshold(1.0, 2.0))
    x = 0.0
    for k in range(1, 6):
        optimizer.apply([tf.constant([30.0, 40.0])], [v])
        x -= 1 / k * np.sqrt(k)
    np.testing.assert_allclose(v, [0.6 * x, 0.8 * x], rtol=1e-5)
    assert traces(optimizer) == [1]


def test_a_callable_rate_takes_effect_without_retracing():
    (v,) = paths.make_variables([np.zeros(1, np.float32)])
    rates = iter([1.0, 1.0, 0.5, 0.25, 0.25, 0.125])
    optimizer = CClip(lambda: next(rates), threshold=1.0)
    for _ in range(3):
        optimizer.apply([tf.constant([9.0])], [v])
    assert float(v[0]) in (-1.75, -2.5, -2.25)
    assert traces(optimizer) == [1]


def test_cclip_gives_each_variable_the_first_threshold_that_matches():
    variables = [keras.Variable(np.zeros(2), name=n) for n in ("kernel", "bias", "gamma")]
    optimizer = CClip(1.0, {"ker": 0.5, "a": PowerThreshold(2.0, 1.5), ".*": 1.0})
    optimizer.apply([tf.constant([9.0, -9.0])] * 3, variables)
    assert [float(v[1]) for v in variables] == [0.5, 2.0, 2.0]
    optimizer.threshold = {"ker": 0.25}
    optimizer.apply([tf.constant([9.0, -9.0])] * 3, variables)
    assert float(variables[0][1]) == 0.75
    with pytest.raises(TypeError, match="schedule"):
        optimizer.threshold = {"a": 1.0}
    with pytest.raises(ValueError, match="keys among"):
        optimizer.threshold = {"b": 1.0}


def test_cclip_names_the_variable_without_a_threshold():
    (v,) = paths.make_variables([np.zeros(2)])
    with pytest.raises(ValueError, match=r"`threshold` names no threshold.*'v0'"):
        CClip(1.0, {"kernel": 0.5}).build([v])


def test_the_threshold_of_a_schedule_is_not_settable():
    optimizer = GClip(threshold=PowerThreshold(1.0, 2.0))
    assert float(optimizer.threshold) == 1.0
    with pytest.raises(TypeError, match="not settable"):
        optimizer.threshold = 2.0


BAD = [
    (ACClip, "alpha", [0.9, 2.1, float("nan")]),
    (ACClip, "beta_1", [-0.1, 1.0, float("nan")]),
    (ACClip, "beta_2", [-0.1, 1.0]),
    (ACClip, "epsilon", [-1e-9, float("inf")]),
    (ACClip, "step_size", ["momentum", None]),
    (GClip, "threshold", [0.0, -1.0, float("inf"), float("nan")]),
    (CClip, "threshold", [0.0, -1.0, float("inf"), {}, {"a": 0.0}, {"(": 1.0}]),
    (GClip, "momentum", [-0.1, 1.0]),
    (GClip, "averaging", ["polyak", True]),
    (GClip, "projection_radius", [0.0, -1.0, float("nan")]),
    (CClip, "learning_rate", [-1.0, float("nan")]),
    (ACClip, "weight_decay", [-0.1, float("inf")]),
    (ACClip, "jit_compile", ["always", None, 2]),
]
WRONG_TYPE = [
    (ACClip, "alpha", ["1", None, True]),
    (GClip, "threshold", ["1", None, [1.0]]),
    (GClip, "nesterov", [1, "yes"]),
    (ACClip, "skip_nonfinite", [1, None]),
    (ACClip, "learning_rate", ["fast", None]),
]


@pytest.mark.parametrize(
    ("cls", "name", "value", "error"),
    [(c, n, v, ValueError) for c, n, vs in BAD for v in vs]
    + [(c, n, v, TypeError) for c, n, vs in WRONG_TYPE for v in vs],
)
def test_bad_arguments_are_named(cls, name, value, error):
    with pytest.raises(error, match=f"`{name}`.*Received"):
        cls(**{name: value})


def test_arguments_that_exclude_each_other():
    with pytest.raises(ValueError, match="`averaging` and `use_ema`"):
        GClip(averaging="linear", use_ema=True)
    with pytest.raises(ValueError, match="`nesterov` needs momentum"):
        GClip(nesterov=True)
    with pytest.raises(ValueError, match="not recognized"):
        GClip(tau=1.0)


def test_jit_compile_true_raises_where_xla_cannot_go():
    strategy = paths.two_replicas()
    with strategy.scope():
        optimizer = GClip(jit_compile=True)
        variables = paths.make_variables([np.zeros(2)])
        optimizer.build(variables)
    with pytest.raises(ValueError, match=r"tf\.distribute.*Received: jit_compile=True"):
        strategy.run(lambda: optimizer.apply([tf.ones(2)], variables))


def test_auto_says_once_why_it_does_not_compile(caplog):
    notices.forget()
    for _ in range(2):
        paths.apply("two replicas", ACClip, [np.zeros(2)], [[np.ones(2, np.float32)]] * 2)
    (message,) = [r.getMessage() for r in caplog.records if r.name == "keras_acclip"]
    assert message.startswith("ACClip runs its step without an XLA computation of its own: tf.dist")


def test_jit_compile_false_is_silent(caplog):
    notices.forget()
    paths.apply("uncompiled eager", ACClip, [np.zeros(2)], [[np.ones(2, np.float32)]])
    assert not caplog.records


def test_the_step_is_one_xla_computation():
    """One function compiled by XLA updates every variable and slot; no other op assigns."""
    values, steps = numbers(seed=1)
    optimizer = ACClip(weight_decay=0.1, averaging="linear", projection_radius=1.0)
    variables = paths.make_variables(values)
    optimizer.build(variables)

    @tf.function
    def step(gradients):
        optimizer.apply(gradients, variables)

    graph = step.get_concrete_function([tf.constant(g) for g in steps[0]]).graph
    calls = [op for op in graph.get_operations() if op.type == "StatefulPartitionedCall"]
    assert [op.get_attr("_XlaMustCompile") for op in calls] == [True]
    assigns = [op for op in graph.get_operations() if "Assign" in op.type]
    assert len(assigns) == 1  # the iteration counter


@pytest.mark.parametrize("cls", [GClip, CClip, ACClip])
def test_variables_on_several_devices_are_updated_without_xla(cls, caplog):
    notices.forget()
    values, steps = numbers(seed=2)
    variables = []
    for i, value in enumerate(values):
        with tf.device(f"CPU:{i % 2}"):
            variables += [keras.Variable(value, name=f"v{i}")]
    kwargs = {} if cls is ACClip else {"threshold": 0.5}
    optimizer = cls(0.05, **kwargs)
    for gradients in steps[:3]:
        optimizer.apply([tf.constant(g) for g in gradients], variables)
    xs, _, _ = reference.METHODS[cls.__name__](values, steps[:3], lr=0.05, **kwargs)
    assert reference.relative_error(variables, xs) <= 1e-5
    assert "several devices" in caplog.text


def test_a_dtype_that_xla_does_not_take_is_updated_without_it(caplog, monkeypatch):
    notices.forget()
    monkeypatch.setattr("keras_acclip.optimizers.execution.XLA_DTYPES", (tf.float32,))
    v = keras.Variable(np.zeros(2), dtype="float64")
    GClip(1.0, 0.5).apply([tf.constant([3.0, 4.0], tf.float64)], [v])
    np.testing.assert_allclose(v, [-0.3, -0.4])
    assert "variables have dtype float64" in caplog.text
