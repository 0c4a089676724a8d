"""The same for Keras 2 (`tf_keras`), which the TensorFlow Model Garden trains with."""

try:
    import tf_keras
except ImportError as error:
    raise ImportError(
        "keras_acclip.tf_keras needs tf_keras: pip install 'keras-acclip[garden]'"
    ) from error

from keras_acclip.noise import callback

__all__ = ["GradientNoise"]


class GradientNoise(callback.NoiseCallback, tf_keras.callbacks.Callback):
    """`keras_acclip.GradientNoise` for Keras 2: the same arguments, logs and attributes."""

    # Without it, Keras 2 waits for the logs of every batch.
    _supports_tf_logs = True
