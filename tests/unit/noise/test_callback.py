"""The callback on the backend that Keras runs with; `test_jax.py` runs it on JAX."""

import csv
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_acclip.noise.callback import LOGS, GradientNoise
from keras_acclip.noise.sampling import NoiseSample, measure_noise
from tests.unit.noise.models import assert_same, make_data, make_model, state_of


def make_noise(**kwargs):
    return GradientNoise(**{"verbose": 0} | kwargs)


@pytest.mark.parametrize("source", ["arrays", "dataset"])
@pytest.mark.parametrize("every", ["epoch", 4])
def test_training_is_bitwise_the_same(every, source):
    def train(callbacks):
        keras.utils.set_random_seed(1)
        model, data = make_model(), make_data(160)
        if source == "dataset":
            data = (tf.data.Dataset.from_tensor_slices(data).shuffle(160, seed=2).batch(16),)
        fitted = model.fit(
            *data, batch_size=16, epochs=2, callbacks=callbacks, verbose=0, shuffle=len(data) == 2
        )
        return state_of(model), fitted.history

    noise = make_noise(every=every)
    plain, measured = train([]), train([noise])
    assert_same(plain[0], measured[0])
    assert plain[1] == {k: v for k, v in measured[1].items() if k not in LOGS}
    assert [s.step for s in noise.samples] == (
        [0, 10, 20] if every == "epoch" else [0, 4, 8, 12, 16, 20]
    )
    assert [len(s) for s in noise.samples] == [10] * len(noise.samples)


def test_a_sample_is_that_of_the_model_at_its_step():
    model, data = make_model(), make_data()
    noise = make_noise(dataset=data, seed=5)
    model.fit(*data, batch_size=16, epochs=2, callbacks=[noise], verbose=0)
    now = measure_noise(model, data, batch_size=16, seed=5, verbose=0)
    assert (now.step, noise.samples[-1].step) == (12, 12)
    np.testing.assert_allclose(noise.samples[-1].gradient_norms, now.gradient_norms, rtol=1e-4)
    np.testing.assert_allclose(noise.samples[-1].norms, now.norms, rtol=1e-4)
    assert not np.allclose(noise.samples[0].norms, now.norms)


def test_logs_reach_history_csv_and_tensorboard(tmp_path):
    model, (x, y) = make_model(), make_data(400)
    noise = make_noise(
        dataset=(x, y), every=120, at_start=False, log_dir=tmp_path, save_dir=tmp_path / "samples"
    )
    history = model.fit(
        x,
        y,
        batch_size=4,
        epochs=2,
        verbose=0,
        callbacks=[noise, keras.callbacks.CSVLogger(tmp_path / "log.csv")],
    ).history
    assert [s.step for s in noise.samples] == [120]
    sample = noise.samples[0]
    assert set(LOGS) <= set(history)
    assert np.isnan(history["noise_std"][0])
    for name, value in (
        ("noise_norm", sample.norm),
        ("noise_std", sample.std),
        ("noise_tail_index", sample.tail_index().alpha),
        ("noise_mean_gradient_norm", sample.mean_gradient_norm),
        ("noise_nonfinite", 0),
    ):
        assert history[name][1] == value
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["noise_kurtosis"]) == history["noise_kurtosis"][1]
    (saved,) = (tmp_path / "samples").iterdir()
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


def test_evolution_is_drawn():
    model, data = make_model(), make_data(400)
    noise = make_noise()
    model.fit(*data, batch_size=4, callbacks=[noise], verbose=0)
    figure = noise.plot_evolution()
    texts = " ".join(
        t.get_text() for axes in figure.axes for t in [*axes.texts, *axes.get_yticklabels()]
    )
    assert "step 0" in texts
    assert "step 100" in texts
    with pytest.raises(ValueError):
        make_noise().plot_evolution()


def test_class_weights_and_batch_size_of_fit_count():
    model, data = make_model(dropout=0), make_data()
    noise = make_noise()
    weights = {0: 3.0, 1: 0.1}
    model.fit(*data, batch_size=8, class_weight=weights, callbacks=[noise], verbose=0)
    now = measure_noise(model, data, batch_size=8, class_weight=weights, verbose=0)
    np.testing.assert_allclose(noise.samples[-1].norms, now.norms, rtol=1e-4)


def test_data_that_cannot_be_read_again():
    def generator():
        while True:
            yield tuple(a[:8] for a in make_data())

    model = make_model()
    with pytest.raises(ValueError, match=r"type generator.*dataset="):
        model.fit(generator(), steps_per_epoch=2, callbacks=[make_noise()], verbose=0)
    noise = make_noise(dataset=generator(), num_batches=5, method="exact")
    model.fit(generator(), steps_per_epoch=2, epochs=2, callbacks=[noise], verbose=0)
    assert [len(s) for s in noise.samples] == [5, 5, 5]
    noise = make_noise()
    noise.set_model(model)
    with pytest.raises(ValueError, match="nothing was found"):
        noise.on_train_begin()


def test_gradients_that_are_not_finite_do_not_stop_training():
    x, y = make_data()
    x[:16] = np.nan
    noise, model = make_noise(), make_model()
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

    model, noise = make_model(), make_noise(dataset=Endless())
    with pytest.raises(KeyboardInterrupt):
        model.fit(*make_data(), callbacks=[noise], verbose=0)
    assert (len(noise.samples), len(noise.samples[0]), noise.samples[0].interrupted) == (1, 6, True)


def test_progress_is_shown(capsys):
    model, data = make_model(), make_data()
    model.fit(*data, batch_size=16, callbacks=[GradientNoise(at_start=False)], verbose=0)
    out = capsys.readouterr().out
    assert "6/6" in out
    assert "noise_std" in out


@pytest.mark.parametrize(
    "arguments",
    [{"num_batches": 0}, {"every": 0}, {"every": "step"}, {"method": "guess"}, {"groups": ["("]}],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        GradientNoise(**arguments)
