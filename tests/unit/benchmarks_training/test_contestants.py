"""The contestants: those that Keras lacks against NumPy; all can be made."""

import keras
import numpy as np
import pytest
from training.contestants import CONTESTANTS
from training.schedule_free import ScheduleFreeAdamW
from training.schedules import WarmUp
from training.stable_adamw import StableAdamW

RANDOM = np.random.default_rng(0)
START = RANDOM.normal(size=(3, 4))
# Of sizes that differ from step to step, so that StableAdamW's bound takes hold.
GRADIENTS = [scale * RANDOM.normal(size=(3, 4)) for scale in (1, 1, 30, 1, 0.1)]


def stepped(optimizer):
    variable = keras.Variable(START.astype("float32"))
    for gradient in GRADIENTS:
        optimizer.apply([keras.ops.convert_to_tensor(gradient.astype("float32"))], [variable])
    return variable


def test_stable_adamw():
    rate, b1, b2, epsilon, decay = 0.01, 0.9, 0.95, 1e-6, 0.1
    x, m, v, bounds = START.copy(), 0, 0, []
    for k, g in enumerate(GRADIENTS, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        v_hat = v / (1 - b2**k)
        rms = np.sqrt(np.mean(g**2 / np.maximum(v_hat, epsilon**2)))
        bounds.append(rms > 1)
        x = x - rate * decay * x
        x = x - rate / max(1, rms) * (m / (1 - b1**k)) / (np.sqrt(v_hat) + epsilon)
    assert any(bounds) and not all(bounds)
    got = stepped(StableAdamW(rate, weight_decay=decay, beta_1=b1, beta_2=b2, epsilon=epsilon))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(got), x, rtol=1e-4)


def test_schedule_free_adamw():
    b1, b2, epsilon, decay = 0.9, 0.95, 1e-8, 0.1
    rates = [0.005, 0.01, 0.01, 0.01, 0.01]
    x, y, z, v, weight = START.copy(), START.copy(), START.copy(), 0, 0
    for k, (g, rate) in enumerate(zip(GRADIENTS, rates, strict=True), 1):
        v = b2 * v + (1 - b2) * g**2
        z = z - rate * (g / (np.sqrt(v / (1 - b2**k)) + epsilon) + decay * y)
        weight += rate**2
        x = (1 - rate**2 / weight) * x + rate**2 / weight * z
        y = (1 - b1) * z + b1 * x
    optimizer = ScheduleFreeAdamW(WarmUp(0.01, 0.4, 5, decay=False), b1, b2, epsilon, decay)
    variable = stepped(optimizer)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), y, rtol=1e-4)
    (average,) = optimizer.evaluated([variable])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(average), x, rtol=1e-4)


def test_warm_up():
    schedule = WarmUp(0.1, 0.2, 10)
    got = [float(schedule(step)) for step in range(11)]
    expected = [0.05, 0.1, 0.1, *(0.1 * left / 8 for left in range(7, 0, -1)), 0.0]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-9)
    assert float(WarmUp(0.1, 0.2, 10, decay=False)(9)) == pytest.approx(0.1)


@pytest.mark.parametrize("name", CONTESTANTS)
def test_every_contestant_can_be_made_with_every_value(name):
    contestant = CONTESTANTS[name]
    for of in (min, max):
        settings = {key: of(values) for key, values in contestant.grid.items()}
        schedule = WarmUp(settings.pop("rate"), settings.pop("warmup"), 16, contestant.decays)
        optimizer = contestant.make(schedule, **settings)
        assert isinstance(optimizer, keras.optimizers.Optimizer)
    assert set(contestant.grid) == set(contestant.default)
    assert all(contestant.default[key] in values for key, values in contestant.grid.items())
