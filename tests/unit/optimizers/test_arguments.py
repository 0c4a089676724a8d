import inspect

import keras
import numpy as np
import pytest
import tf_keras

import keras_acclip
from tests import versions

NAN, INF = float("nan"), float("inf")
BAD = [
    ("ACClip", "alpha", [0.9, 2.1, NAN]),
    ("ACClip", "beta_1", [-0.1, 1.0, NAN]),
    ("ACClip", "beta_2", [-0.1, 1.0]),
    ("ACClip", "epsilon", [-1e-9, INF]),
    ("ACClip", "step_size", ["momentum", None]),
    ("GClip", "threshold", [0.0, -1.0, INF, NAN, 2e47, 1e-49]),
    ("CClip", "threshold", [0.0, -1.0, INF, {}, {"a": 0.0}, {"(": 1.0}, {"a": 1e-49}]),
    ("GClip", "momentum", [-0.1, 1.1, NAN]),
    ("GClip", "averaging", ["polyak", True]),
    ("GClip", "projection_radius", [0.0, -1.0, NAN]),
    ("CClip", "learning_rate", [-1.0, NAN, 2e47, 1e-49]),
    ("ACClip", "weight_decay", [-0.1, INF]),
]
WRONG_TYPE = [
    ("ACClip", "alpha", ["1", None, True]),
    ("GClip", "threshold", ["1", None, [1.0]]),
    ("GClip", "nesterov", [1, "yes"]),
    ("ACClip", "skip_nonfinite", [1, None]),
    ("ACClip", "learning_rate", ["fast", None]),
]
TABLE = [
    *[(m, n, v, ValueError) for m, n, values in BAD for v in values],
    *[(m, n, v, TypeError) for m, n, values in WRONG_TYPE for v in values],
]


def test_bad_arguments_are_named(version):
    for method, name, value, error in TABLE:
        with pytest.raises(error, match=f"`{name}`.*Received"):
            getattr(version, method)(**{name: value})


@pytest.mark.parametrize(
    ("version", "value", "error"),
    [
        pytest.param(version, value, error, id=f"{version.name}-{value}")
        for version, values, error in (
            (versions.KERAS_3, ("always", None, 2), ValueError),
            (versions.KERAS_2, ("auto", None, 1), TypeError),
        )
        for value in values
    ],
)
def test_jit_compile_is_checked(version, value, error):
    with pytest.raises(error, match=r"`jit_compile`.*Received"):
        version.ACClip(jit_compile=value)


def test_values_that_are_set_are_checked_too(version):
    optimizer = version.GClip(0.1, 0.5, momentum=0.5)
    for name, value in [
        ("threshold", 0.0),
        ("threshold", 2e47),
        ("learning_rate", -1.0),
        ("learning_rate", 1e-49),
        ("momentum", 2.0),
        ("projection_radius", -1.0),
        ("weight_decay", -0.1),
        ("averaging", "polyak"),
    ]:
        with pytest.raises(ValueError, match=f"`{name}`.*Received"):
            setattr(optimizer, name, value)
    assert float(optimizer.learning_rate) == pytest.approx(0.1)
    assert float(optimizer.threshold) == 0.5
    for name, error in [("jit_compile", (ValueError, TypeError)), ("skip_nonfinite", TypeError)]:
        with pytest.raises(error, match=f"`{name}`.*Received"):
            setattr(optimizer, name, "always")
        with pytest.raises(error, match=f"`{name}`.*Received"):
            setattr(version.Clip(optimizer), name, "always")
    with pytest.raises(AttributeError):
        version.Clip(optimizer).by = "coordinate"


def test_averaging_is_set_before_the_first_step_or_not_at_all(version):
    optimizer = version.GClip(0.5)
    optimizer.averaging = "linear"
    variables = version.make_variables([np.float32([1.0])])
    for _ in range(2):
        versions.update(optimizer, [[1.0]], variables)
    # x0 = 1 and x1 = 0.5 have the weights 1 and 2.
    optimizer.finalize_variable_values(variables)
    assert float(np.asarray(variables[0])[0]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match=r"`averaging`.*after the first step"):
        optimizer.averaging = None
    optimizer = version.GClip(use_ema=True)
    with pytest.raises(ValueError, match="`averaging` and `use_ema`"):
        optimizer.averaging = "linear"


def test_arguments_that_exclude_each_other(version):
    with pytest.raises(ValueError, match="`averaging` and `use_ema`"):
        version.GClip(averaging="linear", use_ema=True)
    with pytest.raises(TypeError, match="tau"):
        version.GClip(tau=1.0)


def test_signatures_are_whole():
    """Each argument that Keras's own optimizer names stands in ours, and none is hidden."""
    for ours, theirs in [
        (keras_acclip.ACClip, keras.optimizers.Adam),
        (keras_acclip.GClip, keras.optimizers.SGD),
        (keras_acclip.CClip, keras.optimizers.SGD),
        (versions.KERAS_2.ACClip, tf_keras.optimizers.Adam),
        (versions.KERAS_2.GClip, tf_keras.optimizers.SGD),
        (versions.KERAS_2.CClip, tf_keras.optimizers.SGD),
    ]:
        mine = inspect.signature(ours).parameters
        # These are variants of Adam's own second moment.
        own = {"amsgrad", "adaptive_epsilon"}
        named = set(inspect.signature(theirs).parameters) - {"kwargs"} - own
        assert named <= set(mine)
        assert not any(p.kind is p.VAR_KEYWORD for p in mine.values())
        assert all(f"    {name}: " in inspect.getdoc(ours) for name in mine)
        for part in ("Args:", "Raises:", "Example:", "References:"):
            assert part in ours.__doc__


def test_docstrings_name_their_own_module(version, method):
    module = "keras_acclip" if version is versions.KERAS_3 else "keras_acclip.tf_keras"
    doc = getattr(version, method).__doc__
    assert f" {module}.{method}(" in doc
    assert ("callable" in doc) == (version is versions.KERAS_3)


def test_the_other_keras_names_the_right_import(method):
    model = keras.Sequential([keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=rf"Keras 3 take keras_acclip\.{method}>"):
        model.compile(getattr(versions.KERAS_2, method)(), "mse")
    model = tf_keras.Sequential([tf_keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=rf"take keras_acclip\.tf_keras\.{method}>"):
        model.compile(getattr(keras_acclip, method)(), "mse")


def test_thresholds_are_the_same_in_both(version):
    schedule = version.PowerThreshold(0.7, 1.3)
    assert float(schedule(8)) == pytest.approx(0.7 * 9 ** (1 / 1.3), rel=1e-6)
    again = version.schedules.deserialize(version.schedules.serialize(schedule))
    assert isinstance(again, version.PowerThreshold)
    assert again.get_config() == {"scale": 0.7, "alpha": 1.3}
    constants = (
        keras_acclip.thresholds.strongly_convex_constants
        if version is versions.KERAS_3
        else keras_acclip.tf_keras.strongly_convex_constants
    )
    rate, bounds = constants({"kernel": 1.0, ".*": 2.0}, 0.5, 1.6)
    assert float(rate(8)) == pytest.approx(0.8)
    assert float(bounds[".*"](np.int64(8))) == pytest.approx(2 * 9 ** (1 / 1.6), rel=1e-6)
    version.CClip(rate, bounds, averaging="linear")
    with pytest.raises(ValueError, match="`scale`"):
        version.PowerThreshold(0.0, 1.5)
