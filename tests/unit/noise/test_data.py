"""The kinds of data that can be measured on; `test_jax.py` runs it on JAX."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_acclip._utils import compat
from keras_acclip.noise import measure_noise
from keras_acclip.noise.data import open_batches, preserved_random_state
from keras_acclip.noise.measure import NoiseMeter
from tests import paths
from tests.unit.noise.models import QUICK, cut, make_data, make_model


def test_kinds_of_data_give_the_same_noise():
    data = make_data()
    meter = NoiseMeter(make_model(dropout=0, **QUICK))

    def norms_on(dataset, num_batches=256, **options):
        return meter.measure(open_batches(dataset, **options), num_batches, verbose=0).norms

    class Pairs(keras.utils.PyDataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            return cut(data)[i]

    dataset = tf.data.Dataset.from_tensor_slices(data).batch(16)
    iterator = iter(dataset)
    next(iterator)
    sources = [cut(data), dataset, Pairs(workers=1), (b for b in cut(data)), iter(dataset)]
    norms = [np.sort(norms_on(source)) for source in sources]
    for other in norms[1:]:
        np.testing.assert_allclose(other, norms[0], rtol=1e-5)
    norms_on(iterator, num_batches=3)
    np.testing.assert_array_equal(next(iterator)[1], cut(data)[1][1])
    x, y = data
    shuffled = np.random.default_rng(1).permutation(96)
    np.testing.assert_allclose(
        norms_on((x, y.tolist()), batch_size=16, seed=1),
        norms_on(cut((x[shuffled], y[shuffled]))),
        rtol=1e-5,
    )


def test_raw_data_is_preprocessed_as_fit_does():
    class Task(keras.Model):
        def preprocess_samples(self, x, y=None, sample_weight=None):
            return keras.utils.pack_x_y_sample_weight(x * 0.5, y, sample_weight)

    model, (x, y) = make_model(cls=Task, dropout=0, **QUICK), make_data()
    halved = make_model(dropout=0, **QUICK)
    halved.set_weights(model.get_weights())
    expected = measure_noise(halved, cut((x / 2, y)), verbose=0).norms
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    for source in (cut((x, y)), dataset):
        norms = measure_noise(model, source, verbose=0).norms
        np.testing.assert_allclose(norms, expected, rtol=1e-5)


def test_class_weights_multiply_sample_weights():
    x, y = np.zeros((4, 2)), np.array([0, 1, 2, 1])
    options = {"class_weight": {0: 3.0, 1: 0.5}, "batch_size": 4}
    for labels in (y, y[:, None], np.eye(3)[y]):
        (batch,) = open_batches((x, labels, np.full(4, 2.0)), **options).read()
        assert sorted(batch[2].ravel().tolist()) == [1.0, 1.0, 2.0, 6.0]
    for labels in (None, {"a": y, "b": y}):
        with pytest.raises(ValueError, match="single array of labels"):
            next(open_batches((x, labels), **options).read())


def test_distributed_datasets_are_refused():
    dataset = tf.data.Dataset.range(4).batch(2)
    distributed = paths.two_replicas().experimental_distribute_dataset(dataset)
    with pytest.raises(TypeError, match="dataset"):
        open_batches(distributed)


def test_what_cannot_be_copied_or_saved_is_read_with_a_warning(monkeypatch):
    dataset = tf.data.Dataset.from_tensor_slices(np.arange(6.0)).batch(2)
    stateful = dataset.map(lambda x: tf.numpy_function(lambda a: a + 1, [x], x.dtype))
    with pytest.warns(UserWarning, match="cannot be saved"):
        assert len(list(open_batches(iter(stateful)).read())) == 3

    def fail(dataset, seed):
        raise tf.errors.UnimplementedError(None, None, "no such operator")

    monkeypatch.setattr(compat, "copy_dataset", fail)
    with pytest.warns(UserWarning, match="cannot be copied.*no such operator"):
        assert len(list(open_batches(dataset).read())) == 3


def test_global_generators_are_put_back():
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    with preserved_random_state():
        np.random.random()
    assert np.random.random() == expected
