import keras
import numpy as np
import pytest
from lab import training
from lab.resuming import Work


@pytest.mark.parametrize(("warmup", "steps"), [(5, 20), (1, 4), (19, 20)])
def test_rate_rises_to_its_peak_and_falls_to_zero(warmup, steps):
    schedule = training.WarmupLinearDecay(0.5, warmup, steps)
    rates = [float(schedule(step)) for step in range(steps + 1)]
    corners = np.interp(range(1, steps + 2), [0, warmup, steps + 1], [0, 0.5, 0])
    np.testing.assert_allclose(rates, corners, atol=1e-7)
    assert min(rates[:-1]) > 0
    copy = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert float(copy(3)) == rates[3]


def batches(first, last):
    """Batches number `first` to `last`, each a function of its number."""
    for number in range(first, last):
        x = np.random.default_rng(number).normal(size=(8, 3)).astype("float32")
        yield x, x.sum(1, keepdims=True)


def model_of(seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.1), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def test_stages_go_on_where_they_were(tmp_path):
    stages, measured = [0, 1, 4, 9], []

    def follow(name, die_at=None):
        model = model_of()

        def measure(step):
            if step == die_at:
                raise KeyboardInterrupt
            measured.append(step)
            return {"weights": [float(v) for v in np.ravel(model.get_weights()[0])]}

        return training.fit_in_stages(model, stages, batches, measure, work, name)

    work = Work(tmp_path, {})
    unbroken = follow("unbroken")
    assert [row["step"] for row in unbroken] == stages
    assert ["loss" in row for row in unbroken] == [False, True, True, True]
    for die_at in (0, 4, 9):
        with pytest.raises(KeyboardInterrupt):
            follow(f"broken-{die_at}", die_at)
        assert follow(f"broken-{die_at}") == unbroken
    measured.clear()
    assert follow("unbroken") == unbroken
    assert not measured
    assert not list(tmp_path.rglob("*.h5"))


def test_fit_goes_on_with_its_optimizers_slots(tmp_path):
    def fit(work, epochs):
        model = model_of()
        progress = training.Progress(work, "run", steps_per_epoch=3, per_step=8)
        done = progress.restore(model)
        model.fit(
            batches(3 * done, 3 * epochs),
            validation_data=next(batches(99, 100)),
            initial_epoch=done,
            epochs=epochs,
            steps_per_epoch=3,
            callbacks=[progress],
            verbose=0,
        )
        return model

    whole, broken = Work(tmp_path / "whole", {}), Work(tmp_path / "broken", {})
    expected = fit(whole, 4)
    fit(broken, 2)
    found = fit(broken, 4)
    for a, b in zip(found.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    for row, other in zip(broken.rows("run"), whole.rows("run"), strict=True):
        assert [row[k] for k in ("step", "loss", "val_loss")] == [
            other[k] for k in ("step", "loss", "val_loss")
        ]
        assert row["tokens_per_second"] > 0
    assert [row["step"] for row in whole.rows("run")] == [3, 6, 9, 12]
