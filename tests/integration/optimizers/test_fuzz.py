"""Random shapes, dtypes, arguments and gradients, on every path, against NumPy in float64."""

import numpy as np
import pytest
import tensorflow as tf

from tests import reference, versions

DEFAULT, ALL = 8, 400
SHAPES = [(), (0,), (1,), (7,), (0, 3), (5, 4), (3, 1, 2), (2, 1, 3, 1, 2), (2**17 + 3,)]
WAYS = [(version, path) for version, path in versions.PAIRS if path != "uncompiled eager"]


def draw(seed):
    """A case: Keras and path, method and arguments, dtype, values, gradients of some steps."""
    rng = np.random.default_rng(seed)
    version, path = WAYS[seed % len(WAYS)]
    method = versions.METHODS[rng.integers(3)]
    dtype = rng.choice(["float32", "float32", "float64", "float16", "bfloat16"])
    count = rng.integers(1, 5)
    shapes = [SHAPES[i] for i in rng.integers(len(SHAPES) - (seed % 4 > 0), size=count)]
    shapes.append((3,))
    arguments = {"learning_rate": float(10 ** rng.uniform(-3, -1))}
    options = {}
    if method == "ACClip":
        arguments |= {
            "beta_1": float(rng.choice([0.0, 0.9])),
            "beta_2": float(rng.choice([0.5, 0.99])),
            "epsilon": float(rng.choice([1e-5, 1e-2])),
            "alpha": float(rng.choice([1.0, 1.4, 2.0])),
            "step_size": str(rng.choice(["moment", "rms", "constant"])),
        }
    else:
        arguments |= {
            "threshold": float(10 ** rng.uniform(-1, 1)),
            "momentum": float(rng.choice([0.0, 0.9])),
            "nesterov": bool(rng.integers(2)),
        }
    if rng.integers(2):
        arguments["weight_decay"] = 0.1
    if rng.integers(3) == 0:
        arguments["projection_radius"] = float(10 ** rng.uniform(-1, 1))
    if rng.integers(3) == 0:
        arguments["averaging"] = "linear"
    if rng.integers(3) == 0:
        arguments["skip_nonfinite"] = True
    kind = tf.as_dtype(dtype).as_numpy_dtype
    values = [rng.standard_normal(s).astype(kind) for s in shapes]
    steps = [[gradient(rng, s, kind) for s in shapes] for _ in range(5)]
    if path != "two replicas":
        # A variable without a gradient in some steps; the last always has one.
        for gradients in steps[1:4]:
            for i in range(count):
                if rng.integers(4) == 0:
                    gradients[i] = None
    bad = [k for k in range(5) if rng.integers(6) == 0]
    for k in bad:
        steps[k][-1][rng.integers(3)] = rng.choice([np.nan, np.inf, -np.inf])
    return version, path, method, dtype, arguments | options, values, steps


def gradient(rng, shape, kind):
    g = np.asarray(rng.standard_t(1.5, shape) * 10 ** rng.uniform(-2, 1))
    g = np.where(rng.random(shape) < 0.2, 0.0, g)
    g = np.where(rng.random(shape) < 0.1, 1e-42, g)
    return np.clip(g, -1e4, 1e4).astype(kind)


def expected(method, arguments, values, steps):
    """The variables and their averages in float64, from the paper and the docstrings alone."""
    a = arguments
    lr, radius, decay = (a.get(n) for n in ("learning_rate", "projection_radius", "weight_decay"))
    x = reference.double(values)
    slots = [[np.zeros_like(v) for _ in range(3)] for v in x]
    averages, taken = [np.zeros_like(v) for v in x], 0
    for gradients in steps:
        known = {i: np.float64(g) for i, g in enumerate(gradients) if g is not None}
        finite = all(np.all(np.isfinite(g)) for g in known.values())
        if a.get("skip_nonfinite") and not finite:
            continue
        taken += 1
        averages = [v + 2 / (taken + 1) * (w - v) for v, w in zip(averages, x, strict=True)]
        norm = reference.joint_norm(list(known.values()))
        for i, g in known.items():
            step, slots[i] = one_step(method, a, g, norm, slots[i])
            x[i] = x[i] - lr * (decay or 0.0) * x[i] - step
        if radius is not None:
            length = reference.joint_norm(x)
            x = [v * (radius / length if not length <= radius else 1) for v in x]
    return x, (averages if taken else reference.double(values))


def one_step(method, a, g, norm, slots):
    lr = a["learning_rate"]
    if method == "ACClip":
        m, power, v = slots
        alpha, eps = a["alpha"], a["epsilon"]
        m = a["beta_1"] * m + (1 - a["beta_1"]) * g
        power = a["beta_2"] * power + (1 - a["beta_2"]) * np.abs(g) ** alpha
        v = a["beta_2"] * v + (1 - a["beta_2"]) * g * g
        tau = power ** (1 / alpha)
        eta = {
            "moment": lambda: lr / (tau + eps),
            "rms": lambda: lr / (np.sqrt(a["beta_2"] * v) + eps),
            "constant": lambda: lr,
        }[a["step_size"]]()
        return eta * np.minimum(tau / (np.abs(m) + eps), 1) * m, [m, power, v]
    tau = a["threshold"]
    g = np.clip(g, -tau, tau) if method == "CClip" else g * (1 if norm <= tau else tau / norm)
    velocity = a["momentum"] * slots[0] + lr * g
    if not a["momentum"]:
        return lr * g, slots
    step = a["momentum"] * velocity + lr * g if a["nesterov"] else velocity
    return step, [velocity, *slots[1:]]


def check(seed):
    version, path, method, dtype, arguments, values, steps = draw(seed)
    optimizer, variables = apply(version, path, method, arguments, values, steps, dtype)
    with np.errstate(all="ignore"):
        xs, averages = expected(method, arguments, values, steps)
    ulp = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 1e-6, "float64": 1e-10}[dtype]
    compare(variables, xs, ulp * len(steps), arguments)
    if "averaging" in arguments:
        optimizer.finalize_variable_values(variables)
        compare(variables, averages, 2 * ulp * len(steps), arguments)


def compare(variables, expected, tolerance, arguments):
    for v, x in zip(variables, expected, strict=True):
        got = np.asarray(tf.cast(tf.convert_to_tensor(v), "float64"))
        # Where a step overflowed or met a NaN, so does ours; an infinity may have become a NaN.
        np.testing.assert_array_equal(np.isfinite(got), np.isfinite(x), err_msg=str(arguments))
        here = np.isfinite(x)
        size = max(1.0, float(np.max(np.abs(x[here]), initial=0.0)))
        np.testing.assert_allclose(got[here], x[here], atol=tolerance * size, rtol=1e-4)


def apply(version, path, method, arguments, values, steps, dtype):
    make = getattr(version, method)
    if path == "two replicas":
        return versions.apply(
            version, path, lambda **k: make(**arguments, **k), values, steps, dtype
        )
    jit_compile = {"eager": True, "graph": True, "XLA": True}.get(path, False)
    variables = version.make_variables(values, dtype)
    optimizer = make(**arguments, jit_compile=jit_compile)
    optimizer.build(variables)

    def step(*given):
        given = iter(given)
        gradients = [None if missing else next(given) for missing in absent]
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    for gradients in steps:
        absent = [g is None for g in gradients]
        wrapped = step
        if "graph" in path or path == "XLA":
            wrapped = tf.function(step, jit_compile=True if path == "XLA" else None)
        wrapped(*[tf.constant(g, dtype) for g in gradients if g is not None])
    return optimizer, variables


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("seed", range(DEFAULT))
def test_random_cases(seed):
    check(seed)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("seed", range(DEFAULT, ALL))
def test_many_random_cases(seed):
    check(seed)
