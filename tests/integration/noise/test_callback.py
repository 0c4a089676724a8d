"""The callback on the backend that Keras runs with; `test_jax.py` runs it on JAX."""

import csv
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_acclip.noise import NoiseSample, measure_noise
from keras_acclip.noise.callback import LOGS, GradientNoise
from tests.tiers import some
from tests.unit.noise.models import QUICK, assert_same, make_data, make_model, state_of


def make_noise(dataset, **kwargs):
    return GradientNoise(dataset, **{"verbose": 0} | kwargs)


@pytest.mark.parametrize("source", some(["arrays", "dataset"], ["dataset"]))
def test_training_is_bitwise_the_same(source):
    def train(measured):
        keras.utils.set_random_seed(1)
        model, data = make_model(), make_data(160)
        dataset = tf.data.Dataset.from_tensor_slices(data).shuffle(160, seed=2).batch(16)
        arrays = source == "arrays"
        noises = [
            make_noise(data if arrays else dataset, every=every, batch_size=16)
            for every in ("epoch", 4)
        ]
        fitted = model.fit(
            *(data if arrays else (dataset,)),
            batch_size=16 if arrays else None,
            epochs=2,
            callbacks=noises if measured else [],
            verbose=0,
            shuffle=arrays,
        )
        return state_of(model), fitted.history, noises

    plain, measured = train(False), train(True)
    assert_same(plain[0], measured[0])
    assert plain[1] == {k: v for k, v in measured[1].items() if k not in LOGS}
    every_epoch, every_4 = measured[2]
    assert [s.step for s in every_epoch.samples] == [0, 10, 20]
    assert [s.step for s in every_4.samples] == [0, 4, 8, 12, 16, 20]
    assert [len(s) for s in every_4.samples] == [10] * 6
    np.testing.assert_array_equal(every_epoch.samples[2].norms, every_4.samples[5].norms)
    figure = every_epoch.plot_evolution()
    texts = [t.get_text() for axes in figure.axes for t in [*axes.texts, *axes.get_yticklabels()]]
    assert {"step 0", "step 10", "step 20"} <= set(texts)
    with pytest.raises(ValueError):
        plain[2][0].plot_evolution()


def test_a_sample_is_that_of_the_model_at_its_step():
    model, data = make_model(dropout=0, **QUICK), make_data()
    options = {"batch_size": 8, "class_weight": {0: 3.0, 1: 0.1}, "seed": 5}
    noise = make_noise(data, **options)
    model.fit(*data, batch_size=8, epochs=2, callbacks=[noise], verbose=0)
    now = measure_noise(model, data, verbose=0, **options)
    assert (now.step, noise.samples[-1].step) == (24, 24)
    np.testing.assert_allclose(noise.samples[-1].gradient_norms, now.gradient_norms, rtol=1e-4)
    np.testing.assert_allclose(noise.samples[-1].norms, now.norms, rtol=1e-4)
    assert not np.allclose(noise.samples[0].norms, now.norms)
    plain = measure_noise(model, data, verbose=0, batch_size=8, seed=5)
    assert not np.allclose(plain.norms, now.norms)


def test_logs_reach_history_csv_and_tensorboard(tmp_path):
    model, (x, y) = make_model(), make_data(160)
    noise = make_noise(
        (x, y),
        every=50,
        at_start=False,
        log_dir=tmp_path,
        save_dir=tmp_path / "samples",
        batch_size=4,
    )
    history = model.fit(
        x,
        y,
        batch_size=4,
        epochs=2,
        verbose=0,
        callbacks=[noise, keras.callbacks.CSVLogger(tmp_path / "log.csv")],
    ).history
    assert [s.step for s in noise.samples] == [50]
    sample = noise.samples[0]
    assert set(LOGS) <= set(history)
    assert np.isnan(history["noise_std"][0])
    for name, value in (
        ("noise_norm", sample.norm),
        ("noise_std", sample.std),
        ("noise_tail_index", sample.classify().tail_index[0]),
        ("noise_tail_index_low", sample.classify().tail_index[1]),
        ("noise_scale", sample.noise_scale().value),
        ("noise_mean_gradient_norm", sample.mean_gradient_norm),
        ("noise_nonfinite", 0),
    ):
        np.testing.assert_equal(history[name][1], value)
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["noise_kurtosis"]) == history["noise_kurtosis"][1]
    (saved,) = (tmp_path / "samples").iterdir()
    assert saved.name == "noise-00000050.npz"
    np.testing.assert_array_equal(NoiseSample.load(saved).norms, sample.norms)
    (events,) = (tmp_path / "noise").iterdir()
    tags = {
        value.tag: value.metadata.plugin_data.plugin_name
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    }
    assert {t: tags.get(t) for t in ("noise_norms", "noise_std", "noise", "noise_evolution")} == {
        "noise_norms": "histograms",
        "noise_std": "scalars",
        "noise": "images",
        "noise_evolution": "images",
    }


def test_a_generator_s_batches_are_held():
    def generator():
        while True:
            yield tuple(a[:8] for a in make_data())

    model = make_model(**QUICK)
    noise = make_noise(generator(), num_batches=5, method="exact")
    model.fit(generator(), steps_per_epoch=2, epochs=2, callbacks=[noise], verbose=0)
    assert [len(s) for s in noise.samples] == [5, 5, 5]


def test_gradients_that_are_not_finite_do_not_stop_training():
    x, y = make_data()
    x[:16] = np.nan
    noise, model = make_noise((x, y), batch_size=16), make_model(**QUICK)
    with pytest.warns(UserWarning, match="not finite"):
        history = model.fit(
            x, y, batch_size=16, shuffle=False, callbacks=[noise], verbose=0
        ).history
    assert history["noise_nonfinite"] == [6.0]
    assert np.isnan(history["noise_norm"]).all()


@pytest.fixture
def heeded_interrupts():
    """A process started in the background may ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded_interrupts")
def test_interruption_is_kept_and_stops_training():
    class Endless(keras.utils.PyDataset):
        reads = 0

        @property
        def num_batches(self):
            return None

        def __getitem__(self, i):
            self.reads += 1
            if self.reads == 7:
                signal.raise_signal(signal.SIGINT)
            return tuple(a[:8] for a in make_data(seed=i))

    model, noise = make_model(**QUICK), make_noise(Endless())
    with pytest.raises(KeyboardInterrupt):
        model.fit(*make_data(), callbacks=[noise], verbose=0)
    assert (len(noise.samples), len(noise.samples[0]), noise.samples[0].interrupted) == (1, 6, True)


def test_progress_is_shown(capsys):
    model, data = make_model(**QUICK), make_data()
    noise = GradientNoise(data, at_start=False, batch_size=16)
    model.fit(*data, batch_size=16, callbacks=[noise], verbose=0)
    out = capsys.readouterr().out
    assert "6/6" in out
    assert "6 batches are too few for a verdict on the tail" in out
    assert "; undecided; too few for a noise scale, which takes 10; noise norm " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": None, "method": "exact"}, "`class_weight` and `method`"),
        ({"dataset": None, "class_weight": {0: 1.0}}, "`class_weight` and `method`"),
        ({"dataset": None, "batch_size": 0}, "batch_size"),
        ({"dataset": 5.0 + 1j}, "dataset"),
        ({"dataset": (np.zeros((4, 6)), np.zeros(5))}, "same number of examples"),
        ({"num_batches": 0}, "num_batches"),
        ({"every": 0}, "every"),
        ({"every": "step"}, "every"),
        ({"at_start": "yes"}, "at_start"),
        ({"method": "guess"}, "method"),
        ({"groups": ["("]}, "groups"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        GradientNoise(**{"dataset": make_data()} | arguments)


def test_measures_within_fit_alone():
    noise = make_noise(make_data(), every=1)
    noise.set_model(make_model(**QUICK))
    with pytest.raises(RuntimeError, match="within `fit`"):
        noise.on_train_batch_end(0)
