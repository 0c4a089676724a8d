"""Models whose inputs are texts: XLA, which knows no strings, must not be tried on them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_acclip._utils import compat
from keras_acclip.noise import measure_noise

TEXTS = np.array(["a b c", "b c", "c c a", "a", "b b", "c a b", "a a", "b a c"])
TARGETS = np.arange(8, dtype="float32")[:, None]


def text_model(library):
    layers = library.layers
    vectors = layers.TextVectorization(output_mode="multi_hot", pad_to_max_tokens=False)
    vectors.adapt(TEXTS)
    model = library.Sequential([vectors, layers.Dense(1, kernel_initializer="ones")])
    model.compile("sgd", "mse")
    model(tf.constant(TEXTS))
    return model


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["Keras 3", "Keras 2"])
@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_a_model_that_reads_texts_is_measured(library, kind):
    model = text_model(library)
    data = tf.data.Dataset.from_tensor_slices((TEXTS, TARGETS)).batch(2)
    options = {"batch_size": 2} if kind == "arrays" else {}
    sample = measure_noise(
        model, (TEXTS, TARGETS) if kind == "arrays" else data, 4, verbose=0, **options
    )
    counts = model.layers[0](tf.constant(TEXTS)).numpy()
    residuals = (counts.sum(1) - TARGETS[:, 0])[:, None]
    each = np.concatenate([2 * residuals * counts, 2 * residuals], 1)
    mean = np.linalg.norm(each.mean(0))
    assert len(sample) == 4
    np.testing.assert_allclose(sample.mean_gradient_norm, mean, rtol=1e-4)


def test_layers_inside_others_are_found():
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="deep")])
    model = keras.Sequential([keras.Input((2,)), inner])
    assert "deep" in [layer.name for layer in compat.flat_layers(model)]
