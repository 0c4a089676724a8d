"""What `test_backends` runs, on whatever backend KERAS_BACKEND names."""

import functools
import sys

import keras
import numpy as np

from keras_acclip import ACClip, CClip, Clip, GClip, GradientMonitor
from keras_acclip.thresholds import MovingMoment, PowerThreshold
from tests import reference

MAKERS = {
    "GClip": lambda: GClip(0.05, 0.5, momentum=0.9, nesterov=True, weight_decay=0.1),
    "GClip averaging": lambda: GClip(
        0.05, PowerThreshold(0.3, 1.5), averaging="linear", projection_radius=2.0
    ),
    "CClip": lambda: CClip(0.05, {"v[01]": 0.1, ".*": 0.1}, momentum=0.5, skip_nonfinite=True),
    "ACClip": lambda: ACClip(0.05, weight_decay=0.1),
    "ACClip rms": lambda: ACClip(0.05, alpha=1.5, step_size="rms", skip_nonfinite=True),
    "ACClip constant": lambda: ACClip(0.05, alpha=2.0, step_size="constant"),
    "GClip moving": lambda: GClip(0.05, MovingMoment(1.2, warmup=2), momentum=0.9),
    "Clip": lambda: Clip(keras.optimizers.SGD(0.05, momentum=0.9), 0.5, skip_nonfinite=True),
}

REFERENCE = {
    "GClip": ("GClip", {"threshold": 0.5, "momentum": 0.9, "nesterov": True, "wd": 0.1}),
    "GClip averaging": ("GClip", {"threshold": lambda k: 0.3 * k ** (1 / 1.5), "radius": 2.0}),
    "CClip": ("CClip", {"threshold": 0.1, "momentum": 0.5}),
    "ACClip": ("ACClip", {"wd": 0.1}),
    "ACClip rms": ("ACClip", {"alpha": 1.5, "step_size": "rms"}),
    "ACClip constant": ("ACClip", {"alpha": 2.0, "step_size": "constant"}),
    "GClip moving": ("GClip", {"threshold": lambda k: moving_threshold(k), "momentum": 0.9}),
    "Clip": ("GClip", {"threshold": 0.5, "momentum": 0.9}),
}


def gradients():
    rng = np.random.default_rng(4)
    shapes = [(), (5,), (4, 3), (2, 3, 4)]
    values = [np.float32(rng.standard_normal(s)) for s in shapes]
    return values, reference.heavy_tailed(rng, shapes, 55)


@functools.cache
def moving_thresholds():
    """Those of "GClip moving", by the threshold's own functions in float64."""
    moving, state, taus = MovingMoment(1.2, warmup=2), np.zeros((1, 4)), []
    for step in gradients()[1]:
        taus.append(float(moving.thresholds(state, keras.ops)[0]))
        norm = np.array([reference.joint_norm([np.float64(g) for g in step])])
        state = np.asarray(moving.updated(state, norm, keras.ops))
    return taus


def moving_threshold(k):
    return moving_thresholds()[k - 1]


def apply(name):
    """The variables after given gradients; where the optimizer skips, with a NaN among them."""
    values, steps = gradients()
    optimizer = MAKERS[name]()
    variables = [keras.Variable(v, name=f"v{i}") for i, v in enumerate(values)]
    optimizer.build(variables)
    if optimizer.skip_nonfinite:
        steps = [*steps[:9], [g * np.float32("nan") for g in steps[9]], *steps[9:]]
    for step in steps:
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in step], variables)
    if optimizer.skip_nonfinite:
        assert int(optimizer.skipped_steps) == 1
    optimizer.finalize_variable_values(variables)
    return [keras.ops.convert_to_numpy(v) for v in variables]


def fit(name):
    """The weights of a small model after two epochs of `fit`, and the norms in its logs."""
    rng = np.random.default_rng(0)
    x = np.float32(rng.standard_normal((64, 6)))
    y = np.float32(rng.standard_t(1.5, (64, 2)))
    v0, v1 = (keras.layers.Dense(n, activation="tanh", name=f"v{i}") for i, n in enumerate((8, 2)))
    model = keras.Sequential([keras.Input((6,)), v0, v1])
    model.set_weights([np.float32(rng.standard_normal(w.shape)) / 2 for w in model.weights])
    optimizer = MAKERS[name]()
    if hasattr(optimizer, "record_every"):
        optimizer.record_every = 2
    model.compile(optimizer, "mse")
    logs = model.fit(
        x, y, batch_size=16, epochs=2, shuffle=False, verbose=0, callbacks=[GradientMonitor()]
    ).history
    norms = [*logs["gradient_norm"], *logs["gradient_norm_max"], *logs["clip_rate"]]
    return [*(keras.ops.convert_to_numpy(w) for w in model.weights), np.array(norms)]


def sparse_gradients():
    """JAX's BCOO gradients, which Keras's own optimizers take too: beside their dense form."""
    from jax.experimental import sparse

    rng = np.random.default_rng(3)
    dense = np.float32(rng.standard_normal((6, 2)) * (rng.random((6, 1)) < 0.5))
    for cls, kwargs in ((GClip, {"momentum": 0.5}), (CClip, {}), (ACClip, {"alpha": 1.5})):
        results = []
        for wrap in (lambda o: o, keras.optimizers.LossScaleOptimizer):
            for g in (keras.ops.convert_to_tensor(dense), sparse.BCOO.fromdense(dense)):
                v = keras.Variable(np.ones((6, 2), np.float32))
                optimizer = wrap(cls(0.1, **kwargs))
                optimizer.build([v])
                values = [own.value for own in optimizer.variables]
                (x,), _ = optimizer.stateless_apply(values, [g], [v.value])
                results.append(np.asarray(x))
        np.testing.assert_array_equal(results[0], results[1])
        np.testing.assert_array_equal(results[2], results[3])


def compilations_of_a_second_run(names):
    """What JAX compiles while every optimizer takes its eager steps for the second time."""
    import jax

    events = []
    jax.monitoring.register_event_duration_secs_listener(lambda e, *_, **__: events.append(e))
    for name in names:
        apply(name)
    return sum("backend_compile" in event for event in events)


def refuses_to_compile():
    try:
        ACClip(jit_compile=True)
    except ValueError as error:
        return keras.backend.backend() in str(error)
    return False


if __name__ == "__main__":
    _, path, *names = sys.argv
    results = {"refused": refuses_to_compile(), "names": names}
    if keras.backend.backend() == "jax":
        sparse_gradients()
    for name in names:
        results |= {f"apply-{name}-{i}": v for i, v in enumerate(apply(name))}
        results |= {f"fit-{name}-{i}": v for i, v in enumerate(fit(name))}
    if keras.backend.backend() == "jax":
        results["compiled again"] = compilations_of_a_second_run(names)
    np.savez(path, **results)
