"""The networks and the batches that each of them learns from."""

import keras
import tensorflow as tf

from .. import bert, images, masked_lm, resnets
from ..training import WarmupLinearDecay
from .names import FIGURE_4, RESNET


def build_network(name, data, settings):
    """The network `name`, compiled with the paper's optimizer for it."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if name == RESNET:
        build = resnets.resnet50 if settings["scale"] == "paper" else resnets.small_resnet
        model = build(data.images.shape, data.images.classes)
        steps = settings["image_steps"]
        rate = WarmupLinearDecay(settings["image_rate"], steps // 20, steps)
        optimizer = keras.optimizers.SGD(rate, momentum=0.9)
    else:
        model = bert.build_model(settings["vocabulary_size"], settings, *FIGURE_4[name])
        steps = settings["steps"]
        rate = WarmupLinearDecay(settings["rate"], settings["warmup"], steps)
        optimizer = keras.optimizers.Adam(rate)
    # Compiling takes longer than a few dozen steps.
    model.compile(optimizer, loss, jit_compile=steps > 100)
    optimizer.build(model.trainable_variables)
    return model


class Data:
    """The batches of all five networks.

    Args:
        rows: `token_rows.TokenRows`.
        pictures: `images.Images`.
        settings: The values of `SCALES`.
    """

    def __init__(self, rows, pictures, settings):
        self.rows, self.images, self.settings = rows, pictures, settings

    def batches(self, name, size, seed, first, last):
        """Batches number `first` to `last` of the network `name`, `size` examples in each."""
        if name == RESNET:
            return images.training_batches(self.images, size, seed, first, last)
        _, text = FIGURE_4[name]
        made = masked_lm.training_batches(
            self.rows.train, len(self.rows.vocabulary), size, seed, first, last
        )
        if text:
            return made
        numbered = made.enumerate(first)
        return numbered.map(lambda number, batch: self._on_gaussian_input(batch, seed, number))

    def _on_gaussian_input(self, batch, seed, number):
        inputs, labels = batch
        length, hidden = self.settings["sequence_length"], self.settings["hidden"]
        shape = (tf.shape(inputs["token_ids"])[0], length, hidden)
        vectors = tf.random.stateless_normal(shape, (seed, number), stddev=bert.INITIAL_SCALE)
        vectors = tf.ensure_shape(vectors, (None, length, hidden))
        return {"embeddings": vectors, "mask_positions": inputs["mask_positions"]}, labels
