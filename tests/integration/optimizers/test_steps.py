"""Steps of given gradients: the paper's methods, in Keras 3 and Keras 2, on every path."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_acclip.optimizers import execution, notices
from tests import paths, reference, versions
from tests.tiers import some


def numbers(seed, steps=25, scale=1.0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, size=4)
    shapes = [(), (int(sizes[0]),), tuple(map(int, sizes[1:3])), (2, 3, int(sizes[3]))]
    values = [np.float32(rng.standard_normal(s)) for s in shapes]
    return values, reference.heavy_tailed(rng, shapes, steps, scale)


def tau(k):
    return 0.3 * k ** (1 / 1.5)


# Method, arguments, and what the reference takes in the place of some; "tau" is the schedule τ.
CASES = [
    ("GClip", {"threshold": 0.5}, {}),
    (
        "GClip",
        {"threshold": "tau", "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}
        | {"averaging": "linear", "projection_radius": 2.0},
        {"threshold": tau},
    ),
    ("CClip", {"threshold": {"v[01]": 0.1, ".*": 0.1}, "weight_decay": 0.1}, {"threshold": 0.1}),
    ("CClip", {"threshold": "tau", "momentum": 0.5, "averaging": "linear"}, {"threshold": tau}),
    ("ACClip", {}, {}),
    (
        "ACClip",
        {"alpha": 1.5, "step_size": "rms", "beta_1": 0.5, "beta_2": 0.9, "weight_decay": 0.1}
        | {"averaging": "linear"},
        {},
    ),
]


# Where the methods share what is tested, one goes by default.
any_method = pytest.mark.parametrize("method", some(versions.METHODS, ["ACClip"]))


def eager(function):
    return function


def every_case():
    """A case of each method goes the quick paths by default, ACClip's every path."""
    fuller, fullest = (CASES[1], CASES[2]), CASES[5]
    for case in CASES:
        for pair, path in zip(versions.PAIRS, versions.PAIR_NAMES, strict=True):
            quick = pair[1] == "eager" or case == fullest
            quick |= case in fuller and pair in versions.QUICK_PAIRS
            name = f"{case[0]}-{len(case[1])}-{path}"
            yield pytest.param(case, *pair, id=name, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("case", "version", "path"), every_case())
def test_equals_the_papers_method(case, version, path):
    method, kwargs, other = case
    if kwargs.get("threshold") == "tau":
        kwargs = kwargs | {"threshold": version.PowerThreshold(0.3, 1.5)}
    values, steps = numbers(seed=CASES.index(case))
    optimizer, variables = versions.apply(
        version, path, lambda **k: getattr(version, method)(0.05, **kwargs, **k), values, steps
    )
    xs, slots, averages = reference.METHODS[method](
        values, steps, lr=0.05, **versions.options(kwargs, other)
    )
    assert reference.relative_error(variables, xs) <= 1e-5
    for held, expected in zip(
        versions.kinds(optimizer._slots), versions.kinds(slots), strict=False
    ):
        assert reference.relative_error(held, expected) <= 1e-5
    if "averaging" in kwargs:
        optimizer.finalize_variable_values(variables)
        assert reference.relative_error(variables, averages) <= 1e-5


@any_method
@pytest.mark.parametrize("path", some(["eager", "two replicas"], ["eager"]))
@pytest.mark.parametrize("dtype", some(["float16", "bfloat16", "float64"], ["float16", "float64"]))
def test_dtypes(version, method, dtype, path):
    """Slots of half-precision variables are float32; the variable rounds once a step."""
    kind = tf.as_dtype(dtype).as_numpy_dtype
    values, steps = numbers(seed=3, steps=20)
    steps = [[g.astype(kind) for g in gradients] for gradients in steps]
    values = [v.astype(kind) for v in values]
    kwargs = {} if method == "ACClip" else {"threshold": 0.5, "momentum": 0.9}
    kwargs |= {"projection_radius": 50.0}
    make = getattr(version, method)
    optimizer, variables = versions.apply(
        version, path, lambda **k: make(0.05, **kwargs, **k), values, steps, dtype
    )
    kwargs.pop("projection_radius")
    xs, slots, _ = reference.METHODS[method](values, steps, lr=0.05, **kwargs)
    wide = "float64" if dtype == "float64" else "float32"
    held = [slot for own in optimizer._slots for slot in own.values()]
    assert {tf.as_dtype(slot.dtype).name for slot in held} == {wide}
    for held, expected in zip(versions.kinds(optimizer._slots), versions.kinds(slots), strict=True):
        assert reference.relative_error(held, expected) <= 1e-5
    ulp = {"float16": 2**-11, "bfloat16": 2**-8, "float64": 1e-9}[dtype]
    for variable, x in zip(variables, xs, strict=True):
        assert tf.as_dtype(variable.dtype).name == dtype
        error = np.abs(np.asarray(variable.numpy(), np.float64) - x)
        assert np.max(error) <= len(steps) * ulp * max(np.max(np.abs(x)), 1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_norm_of_half_precision_gradients_does_not_overflow(dtype):
    largest = {"float16": 6e4, "bfloat16": 1e37}[dtype]
    for path in paths.PATHS[:5]:
        g = tf.cast(np.full((40,), largest, np.float32), dtype)
        _, (v,) = versions.apply(
            versions.KERAS_3,
            path,
            lambda **k: versions.KERAS_3.GClip(1.0, 2.0, **k),
            [np.zeros(40)],
            [[g]],
            dtype,
        )
        v = keras.ops.convert_to_numpy(keras.ops.cast(v, "float32"))
        np.testing.assert_allclose(v, -2 / np.sqrt(40), rtol=1e-2)


# What comes of a gradient (bad, 0.2, 0.3) at rate 1 and threshold 0.5, from 0.
NOT_FINITE = [
    ("GClip", np.nan, [np.nan, np.nan, np.nan]),
    ("GClip", np.inf, [np.nan, 0, 0]),
    ("CClip", np.nan, [np.nan, -0.2, -0.3]),
    ("CClip", np.inf, [-0.5, -0.2, -0.3]),
    ("CClip", -np.inf, [0.5, -0.2, -0.3]),
    ("ACClip", np.nan, [np.nan, -0.99453, -0.99635]),
]


@pytest.mark.parametrize("path", some(paths.PATHS, ["eager", "XLA"]))
@pytest.mark.parametrize(("method", "bad", "expected"), NOT_FINITE)
def test_what_is_not_finite_is_the_same_on_every_path(method, bad, expected, path):
    """GClip has no direction left, CClip clips an infinity; nothing steps unclipped."""
    kwargs = {} if method == "ACClip" else {"threshold": 0.5}
    make = getattr(versions.KERAS_3, method)
    _, (v,) = versions.apply(
        versions.KERAS_3,
        path,
        lambda **k: make(1.0, **kwargs, **k),
        [np.zeros(3)],
        [[np.float32([bad, 0.2, 0.3])]],
    )
    np.testing.assert_allclose(v, expected, rtol=1e-4)


# GClip looks at all gradients together, so it goes every path; the others, one of each kind.
SKIPPING = [("GClip", v, p) for v, p in versions.PAIRS] + [
    (method, version, path)
    for method in ("CClip", "ACClip")
    for version in versions.VERSIONS
    for path in ("eager", "two replicas")
]


def skips():
    for method, version, path in SKIPPING:
        # The other methods' replicas make the same decision as GClip's.
        slow = method != "GClip" and path == "two replicas"
        slow |= method == "CClip" or (version, path) not in versions.QUICK_PAIRS
        slow |= version is versions.KERAS_2 and path == "two replicas"
        marks = pytest.mark.slow if slow else ()
        yield pytest.param(method, version, path, id=f"{method}-{version.name}-{path}", marks=marks)


@pytest.mark.parametrize(("method", "version", "path"), skips())
def test_skip_nonfinite_equals_never_having_seen_the_step(method, version, path):
    values, steps = numbers(seed=5, steps=6)
    poisoned = [[g.copy() for g in steps[3]] for _ in range(2)]
    poisoned[0][1][0], poisoned[1][2][0, 0] = np.nan, np.inf
    kwargs = {} if method == "ACClip" else {"threshold": 0.5, "momentum": 0.9}
    average = {"use_ema": True} if method == "CClip" else {"averaging": "linear"}
    kwargs |= average | {"weight_decay": 0.1, "projection_radius": 3.0}

    def make(**k):
        return getattr(version, method)(0.05, skip_nonfinite=True, **kwargs, **k)

    # Also the very first step.
    seen = [poisoned[0], *steps[:3], poisoned[1], *steps[3:], poisoned[0]]
    optimizer, variables = versions.apply(version, path, make, values, seen)
    clean, clean_variables = versions.apply(version, path, make, values, steps)
    assert (int(optimizer.skipped_steps), int(clean.skipped_steps)) == (3, 0)
    for value, expected in zip(variables, clean_variables, strict=True):
        np.testing.assert_array_equal(value, expected)
    counts = ("iteration", "skipped_steps", "last_step_skipped", "clipping_")
    for one, other in zip(optimizer.variables, clean.variables, strict=True):
        if not any(count in one.name for count in counts):
            np.testing.assert_array_equal(one, other)


def test_slots_a_variable(version):
    v = version.make_variables([np.zeros(3)])
    for optimizer, slots in [
        (version.ACClip(), 2),
        (version.ACClip(step_size="constant"), 2),
        (version.ACClip(step_size="rms"), 3),
        (version.GClip(), 0),
        (version.GClip(momentum=0.5), 1),
        (version.GClip(averaging="linear"), 1),
        (version.CClip(momentum=0.5, averaging="linear"), 2),
    ]:
        fixed = len(optimizer.variables)
        optimizer.build(v)
        record = 3
        assert len(optimizer.variables) - fixed == slots + record


def test_acclips_moment_step_moves_no_coordinate_by_more_than_the_rate(version):
    values, steps = numbers(seed=8, scale=100.0)
    optimizer = version.ACClip(0.25)
    variables = version.make_variables(values)
    for gradients in steps:
        before = [np.array(v) for v in variables]
        versions.update(optimizer, gradients, variables)
        for v, b in zip(variables, before, strict=True):
            assert np.max(np.abs(np.array(v) - b)) <= 0.25 * (1 + 1e-5)


MOMENTA = [(0.9, False), (0.9, True), (0.0, True), (1, 0)]


@pytest.mark.parametrize("method", ["GClip", "CClip"])
@pytest.mark.parametrize("kind", some(MOMENTA, MOMENTA[1:2]), ids=str)
def test_with_a_huge_threshold_equals_keras_sgd(method, kind):
    momentum, nesterov = kind
    """Whatever SGD takes: no momentum with Nesterov's look-ahead, and a momentum of 1."""
    values, steps = numbers(seed=9)
    arguments = {"momentum": float(momentum), "nesterov": bool(nesterov), "weight_decay": 0.1}
    ours = getattr(versions.KERAS_3, method)(0.05, threshold=1e30, **arguments)
    theirs = keras.optimizers.SGD(0.05, **arguments)
    results = []
    for optimizer in (ours, theirs):
        variables = paths.make_variables(values)
        for gradients in steps:
            versions.update(optimizer, gradients, variables)
        results.append(variables)
    assert reference.relative_error(*results) <= 1e-5


# --- What changes between steps --------------------------------------------------------------


@pytest.mark.parametrize("outer", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_changed_rates_and_thresholds_take_effect_without_retracing(outer, version):
    (v,) = version.make_variables([np.zeros(2, np.float32)])
    optimizer = version.GClip(learning_rate=1.0, threshold=1.0)
    optimizer.build([v])
    step = outer(lambda g: versions.update(optimizer, [g], [v]))
    g = tf.constant([30.0, 40.0])
    step(g)
    np.testing.assert_allclose(v, [-0.6, -0.8], rtol=1e-6)
    optimizer.learning_rate = 0.5
    optimizer.threshold = 4.0
    step(g)
    np.testing.assert_allclose(v, [-1.8, -2.4], rtol=1e-6)
    assert versions.traces(optimizer) == [1]
    config = optimizer.get_config()
    assert (config["learning_rate"], config["threshold"]) == (0.5, 4.0)


def test_schedules_do_not_retrace(version):
    (v,) = version.make_variables([np.zeros(2, np.float32)])
    rate = version.schedules.InverseTimeDecay(1.0, 1, 1.0)
    optimizer = version.GClip(rate, version.PowerThreshold(1.0, 2.0))
    x = 0.0
    for k in range(1, 6):
        versions.update(optimizer, [[30.0, 40.0]], [v])
        x -= 1 / k * np.sqrt(k)
    np.testing.assert_allclose(v, [0.6 * x, 0.8 * x], rtol=1e-5)
    assert versions.traces(optimizer) == [1]
    with pytest.raises(TypeError, match="not settable"):
        optimizer.threshold = 2.0


@pytest.mark.parametrize("method", ["GClip", "CClip"])
def test_a_threshold_schedule_may_reach_zero(method, version):
    """A zero gradient makes a zero step, and τ ≤ 0 counts as 0."""
    (v,) = version.make_variables([np.zeros(2, np.float32)])
    schedule = version.schedules.PolynomialDecay(1.0, 2, end_learning_rate=-1.0)
    optimizer = getattr(version, method)(1.0, schedule)
    for gradient, moved in [([3.0, 4.0], 1), ([0.0, 0.0], 0), ([3.0, 4.0], 0), ([0.0, 0.0], 0)]:
        before = np.array(v)
        versions.update(optimizer, [gradient], [v])
        assert np.any(np.array(v) != before) == moved
        assert np.all(np.isfinite(v))


def test_a_callable_rate_takes_effect_without_retracing():
    (v,) = paths.make_variables([np.zeros(1, np.float32)])
    rates = iter([1.0, 1.0, 0.5, 0.25, 0.25, 0.125])
    optimizer = versions.KERAS_3.CClip(lambda: next(rates), threshold=1.0)
    for _ in range(3):
        optimizer.apply([tf.constant([9.0])], [v])
    assert float(v[0]) in (-1.75, -2.5, -2.25)
    assert versions.traces(optimizer) == [1]


# Attribute, its value at first, another one, and the arguments that both have.
CHANGES = [
    ("ACClip", "beta_1", 0.9, 0.1, {}),
    ("ACClip", "beta_2", 0.99, 0.5, {}),
    ("ACClip", "epsilon", 1e-5, 1.0, {}),
    ("ACClip", "alpha", 1.0, 1.5, {}),
    ("ACClip", "step_size", "moment", "constant", {}),
    ("ACClip", "step_size", "rms", "moment", {}),
    ("ACClip", "weight_decay", None, 0.5, {}),
    ("GClip", "weight_decay", 0.5, 0.1, {}),
    ("GClip", "momentum", 0.9, 0.3, {}),
    ("GClip", "momentum", 0.9, 0.0, {}),
    ("CClip", "nesterov", False, True, {"momentum": 0.9}),
    ("CClip", "projection_radius", None, 0.5, {}),
]


@pytest.mark.parametrize(
    "change", some(CHANGES, CHANGES[::4]), ids=lambda c: f"{c[0]}-{c[1]}-{c[3]}"
)
def test_a_changed_attribute_holds_from_the_next_step_on(change, version):
    method, name, first, second, others = change
    values, steps = numbers(seed=11, steps=4)

    def train(changes):
        variables = version.make_variables(values)
        # Every other change without XLA.
        flags = version.uncompiled if CHANGES.index(change) % 2 else {}
        optimizer = getattr(version, method)(0.1, **{name: first}, **others, **flags)
        for k, gradients in enumerate(steps):
            if changes and k == 2:
                setattr(optimizer, name, second)
                assert getattr(optimizer, name) == second
                assert optimizer.get_config()[name] == second
            versions.update(optimizer, gradients, variables)
        return optimizer, [np.array(v) for v in variables]

    def reference_after(k):
        """The state after k steps with the first value and the rest with the second."""
        variables = version.make_variables(values)
        old = getattr(version, method)(0.1, **{name: first}, **others, **version.uncompiled)
        for gradients in steps[:k]:
            versions.update(old, gradients, variables)
        new = getattr(version, method)(0.1, **{name: second}, **others, **version.uncompiled)
        new.build(variables)
        for mine, theirs in zip(new._slots, old._slots, strict=True):
            for slot in mine:
                mine[slot].assign(theirs[slot])
        for gradients in steps[k:]:
            versions.update(new, gradients, variables)
        return [np.array(v) for v in variables]

    _, changed = train(changes=True)
    _, unchanged = train(changes=False)
    assert reference.relative_error(changed, reference_after(2)) <= 1e-6
    assert reference.relative_error(changed, unchanged) > 1e-4


def test_skip_nonfinite_can_be_switched(version):
    (v,) = version.make_variables([np.zeros(2, np.float32)])
    optimizer = version.CClip(1.0, 0.5)
    versions.update(optimizer, [[1.0, 1.0]], [v])
    optimizer.skip_nonfinite = True
    versions.update(optimizer, [[np.nan, 1.0]], [v])
    np.testing.assert_array_equal(v, [-0.5, -0.5])
    assert int(optimizer.skipped_steps) == 1


@pytest.mark.parametrize(
    ("method", "name", "value", "slot"),
    [("ACClip", "step_size", "rms", "second_moment"), ("GClip", "momentum", 0.9, "momentum")],
)
def test_an_attribute_that_needs_another_slot_is_refused(method, name, value, slot, version):
    v = version.make_variables([np.zeros(2)])
    optimizer = getattr(version, method)()
    setattr(optimizer, name, value)
    optimizer = getattr(version, method)()
    optimizer.build(v)
    with pytest.raises(ValueError, match=f"keeps no {slot} of its variables.*before the first"):
        setattr(optimizer, name, value)


def test_cclip_gives_each_variable_the_first_threshold_that_matches(version):
    variables = [version.Variable(np.zeros(2, "f4"), name=n) for n in ("kernel", "bias", "gamma")]
    optimizer = version.CClip(1.0, {"ker": 0.5, "a": version.PowerThreshold(2.0, 1.5), ".*": 1.0})
    versions.update(optimizer, [[9.0, -9.0]] * 3, variables)
    assert [float(v[1]) for v in variables] == [0.5, 2.0, 2.0]
    assert float(optimizer.threshold["ker"]) == 0.5
    optimizer.threshold = {"ker": 0.25}
    versions.update(optimizer, [[9.0, -9.0]] * 3, variables)
    assert float(variables[0][1]) == 0.75
    with pytest.raises(TypeError, match="schedule"):
        optimizer.threshold = {"a": 1.0}
    with pytest.raises(ValueError, match="keys among"):
        optimizer.threshold = {"b": 1.0}
    with pytest.raises(ValueError, match=r"`threshold` names no threshold.*'v0"):
        version.CClip(1.0, {"kernel": 0.5}).build(version.make_variables([np.zeros(2)]))


# --- Gradients of every kind -----------------------------------------------------------------


@any_method
def test_gradients_may_be_lists_and_arrays(method, version):
    expected, *others = [version.make_variables([np.ones(2, "f4")])[0] for _ in range(3)]
    forms = [tf.constant([1.0, -2.0]), [1.0, -2.0], np.array([1.0, -2.0])]
    for v, g in zip([expected, *others], forms, strict=True):
        getattr(version, method)(0.1).apply_gradients([(g, v)])
    for v in others:
        np.testing.assert_array_equal(v, expected)


@any_method
@pytest.mark.parametrize("wrap", some([eager, tf.function], [tf.function]), ids=["eager", "graph"])
def test_a_gradient_without_static_rank(method, version, wrap):
    v, w = (version.make_variables([np.ones((2, 3), "f4")])[0] for _ in range(2))
    g = np.float32([[1, 2, 3], [-1, 0, 4]])
    optimizer = getattr(version, method)(0.1)
    optimizer.build([v])

    @wrap
    def step():
        # Its result has no static shape.
        optimizer.apply_gradients([(tf.numpy_function(lambda: g, [], tf.float32), v)])

    step()
    versions.update(getattr(version, method)(0.1), [g], [w])
    np.testing.assert_allclose(v, w, rtol=1e-6)


@any_method
def test_variables_without_a_coordinate(method, version):
    variables = version.make_variables([np.zeros((0, 2)), np.zeros(0), np.float32(3.0)])
    optimizer = getattr(version, method)(0.1)
    optimizer.build(variables)
    versions.update(optimizer, [np.zeros((0, 2)), np.zeros(0), 2.0], variables)
    assert float(variables[2]) < 3.0
    versions.update(optimizer, [np.zeros((0, 2)), np.zeros(0), None], variables)


@pytest.mark.parametrize("radius", [None, 1.0])
def test_the_average_is_over_every_step_also_of_variables_without_a_gradient(version, radius):
    """Gradients 1, None, 1 at rate 0.1: 1, .9 and .9 with weights 1, 2 and 3."""
    variables = version.make_variables([np.float32([1.0]), np.float32([0.0])])
    optimizer = version.CClip(0.1, averaging="linear", projection_radius=radius)
    optimizer.build(variables)
    seen = []
    for g in ([1.0], None, [1.0]):
        seen.append([np.array(v) for v in variables])
        versions.update(optimizer, [g, [0.5]], variables)
    optimizer.finalize_variable_values(variables)
    expected = [np.average([row[i] for row in seen], 0, [1, 2, 3]) for i in range(2)]
    assert reference.relative_error(variables, expected) <= 1e-6
    if radius is None:
        np.testing.assert_allclose(variables[0], [(1 + 2 * 0.9 + 3 * 0.9) / 6], rtol=1e-6)


def test_the_average_of_variables_that_are_not_its_own_or_never_stepped(version):
    used, unused, other = version.make_variables([np.float32([1.0, 2.0])] * 3)
    optimizer = version.GClip(0.1, averaging="linear", skip_nonfinite=True)
    optimizer.build([used, unused])
    optimizer.finalize_variable_values([used])
    np.testing.assert_array_equal(used, [1.0, 2.0])
    versions.update(optimizer, [[np.nan, 1.0], None], [used, unused])
    optimizer.finalize_variable_values([used])
    np.testing.assert_array_equal(used, [1.0, 2.0])
    versions.update(optimizer, [[1.0, 1.0], None], [used, unused])
    optimizer.finalize_variable_values([used, unused, other])
    np.testing.assert_array_equal(unused, [1.0, 2.0])
    np.testing.assert_array_equal(other, [1.0, 2.0])


# --- How it runs -----------------------------------------------------------------------------


def test_the_step_is_one_xla_computation(version):
    """One function compiled by XLA updates every variable and slot; no other op assigns."""
    values, steps = numbers(seed=1)
    optimizer = version.ACClip(weight_decay=0.1, averaging="linear", projection_radius=1.0)
    variables = version.make_variables(values)
    optimizer.build(variables)
    step = tf.function(lambda *gradients: versions.update(optimizer, gradients, variables))
    graph = step.get_concrete_function(*[tf.constant(g) for g in steps[0]]).graph
    calls = [op for op in graph.get_operations() if op.type == "StatefulPartitionedCall"]
    assert [op.get_attr("_XlaMustCompile") for op in calls] == [True]
    assigns = [op for op in graph.get_operations() if "Assign" in op.type]
    assert len(assigns) == 1  # the iteration counter


def test_jit_compile_true_raises_where_xla_cannot_go():
    strategy = paths.two_replicas()
    with strategy.scope():
        optimizer = versions.KERAS_3.GClip(jit_compile=True)
        variables = paths.make_variables([np.zeros(2)])
        optimizer.build(variables)
    with pytest.raises(ValueError, match=r"tf\.distribute.*Received: jit_compile=True"):
        strategy.run(lambda: optimizer.apply([tf.ones(2)], variables))


def test_it_says_once_why_it_does_not_compile(caplog, version):
    notices.forget()
    steps = [[np.ones(2, np.float32)]] * 2
    for _ in range(2):
        versions.apply(version, "two replicas", version.ACClip, [np.zeros(2)], steps)
    (message,) = [r.getMessage() for r in caplog.records if r.name == "keras_acclip"]
    assert message.startswith("ACClip runs its step without an XLA computation of its own: tf.dist")


def test_jit_compile_false_is_silent(caplog, version):
    notices.forget()
    (v,) = version.make_variables([np.zeros(2, np.float32)])
    versions.update(version.ACClip(jit_compile=False), [np.ones(2)], [v])
    assert not caplog.records


def test_variables_on_several_devices_are_updated_without_xla(caplog, method, version):
    notices.forget()
    values, steps = numbers(seed=2)
    variables = []
    for i, value in enumerate(values):
        with tf.device(f"CPU:{i % 2}"):
            variables += [version.Variable(value, name=f"v{i}")]
    kwargs = {} if method == "ACClip" else {"threshold": 0.5}
    optimizer = getattr(version, method)(0.05, **kwargs)
    for gradients in steps[:3]:
        versions.update(optimizer, gradients, variables)
    xs, _, _ = reference.METHODS[method](values, steps[:3], lr=0.05, **kwargs)
    assert reference.relative_error(variables, xs) <= 1e-5
    assert "several devices" in caplog.text


def test_a_dtype_that_xla_does_not_take_is_updated_without_it(caplog, monkeypatch, version):
    notices.forget()
    monkeypatch.setattr("keras_acclip.optimizers.execution.XLA_DTYPES", (tf.float32,))
    v = version.Variable(np.zeros(2), dtype="float64")
    versions.update(version.GClip(1.0, 0.5), [tf.constant([3.0, 4.0], tf.float64)], [v])
    np.testing.assert_allclose(v, [-0.3, -0.4])
    assert "variables have dtype float64" in caplog.text


def test_gclip_clips_the_sum_of_the_replicas_gradients(version):
    """Gradients of ±1000 that cancel to 0.3 must move the variable by 0.3, unclipped."""
    strategy = paths.two_replicas()
    with strategy.scope():
        (v,) = version.make_variables([np.zeros(1, np.float32)])
        optimizer = version.GClip(1.0, 0.5)
        optimizer.build([v])

    def replica():
        first = tf.distribute.get_replica_context().replica_id_in_sync_group == 0
        optimizer.apply_gradients([(tf.where(first, [1000.25], [-999.95]), v)])

    tf.function(lambda: strategy.run(replica))()
    np.testing.assert_allclose(v.numpy(), [-0.3], atol=1e-4)
    strategy.run(lambda: optimizer.apply_gradients([(tf.constant([3.0]), v)]))
    np.testing.assert_allclose(v.numpy(), [-0.8], atol=1e-4)


@any_method
def test_replicas_that_update_themselves(monkeypatch, method, version):
    """As TensorFlow lets them inside an XLA computation over several GPUs, which has no merging."""
    values, steps = numbers(seed=6, steps=10)
    kwargs = {} if method == "ACClip" else {"threshold": 0.5, "momentum": 0.9}
    kwargs |= {"skip_nonfinite": True, "projection_radius": 3.0, "weight_decay": 0.1}

    def make(**k):
        return getattr(version, method)(0.05, **kwargs, **k)

    _, expected = versions.apply(version, "eager", make, values, steps)
    monkeypatch.setattr(paths.two_replicas().extended, "_use_merge_call", lambda: False)
    _, variables = versions.apply(version, "two replicas", make, values, steps)
    assert reference.relative_error(variables, expected) <= 1e-5
    for v in variables:
        first, second = (part.numpy() for part in execution.native(v).values)
        np.testing.assert_array_equal(first, second)
