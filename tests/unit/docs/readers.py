"""What the reader of a docstring's example has already: a model, data, norms, files."""

import functools
import os
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tf_keras

import keras_acclip
from keras_acclip.noise import NoiseSample
from tests.unit.garden.model_dirs import write_run


class Reader:
    """With a small model of Keras 3; each of its attributes is made where it is first used."""

    library, acclip = keras, keras_acclip.ACClip

    @functools.cached_property
    def x(self):
        return np.random.default_rng(0).normal(size=(512, 4)).astype("float32")

    @functools.cached_property
    def y(self):
        return (self.x.sum(axis=1, keepdims=True) > 0).astype("int32")

    @functools.cached_property
    def dataset(self):
        return tf.data.Dataset.from_tensor_slices((self.x, self.y)).batch(4)

    @functools.cached_property
    def model(self):
        layers = self.library.layers
        model = self.library.Sequential([layers.Input((4,)), layers.Dense(2, "softmax")])
        model.compile(self.acclip(1e-3), loss="sparse_categorical_crossentropy")
        return model

    @functools.cached_property
    def norms(self):
        return np.random.default_rng(0).pareto(1.5, 400) + 1

    @functools.cached_property
    def sample(self):
        norms = self.norms
        return NoiseSample(norms, norms, norms, np.full(len(norms), 8), mean_gradient_norm=1.0)

    before = after = a = b = c = d = resnet = bert = property(lambda self: self.sample)
    # A gradient, and a line to draw.
    g = property(lambda self: np.array([3.0, 0.0, 4.0]))
    losses = property(lambda self: [2.0, 1.0])
    record = property(lambda self: b"a record")
    Base = property(lambda self: object)
    read_texts = property(lambda self: lambda: ["a", "bc"])
    load_tensorflow = property(lambda self: os.getpid)


class Keras2Reader(Reader):
    """With a model of Keras 2."""

    library, acclip = tf_keras, keras_acclip.tf_keras.ACClip


class GardenReader(Keras2Reader):
    """With a BERT of the Model Garden, as small as it can be, and its data."""

    def __init__(self):
        """Writes what examples read by a name: a table of sentences, and runs."""
        rows = ("sentence1\tsentence2\tlabel", "A cat sat.\tSomething sat.\tentailment")
        Path("train.tsv").write_text("\n".join(rows))
        for optimizer in ("adamw", "acclip"):
            write_run(Path("runs", optimizer), optimizer, validation_loss=2.5)

    @functools.cached_property
    def folder(self):
        return tempfile.mkdtemp()

    @functools.cached_property
    def params(self):
        from tests.integration.garden import runs

        data = {"input_path": runs.write_records(self.folder)}
        return runs.parse(runs.overrides(data, steps=10))

    @functools.cached_property
    def task(self):
        from official.core import task_factory

        return task_factory.get_task(self.params.task)

    @functools.cached_property
    def trainer(self):
        from official.core import train_utils

        from keras_acclip.garden.trainer import Trainer

        return train_utils.create_trainer(
            self.params, self.task, train=True, evaluate=False, trainer_cls=Trainer
        )

    model = property(lambda self: self.trainer.model)
    strategy = property(lambda self: tf.distribute.get_strategy())
    model_dir = property(lambda self: self.folder)
    optimizer = property(lambda self: self.trainer.optimizer)
    metrics = property(lambda self: self.task.build_metrics(training=True))

    @property
    def four_micro_batches(self):
        return self.task.build_inputs(self.params.task.train_data).take(4)

    @property
    def make_dataset(self):
        return lambda seed: tf.data.Dataset.range(2000).shuffle(10, seed=seed)

    @functools.cached_property
    def path(self):
        return tf.train.Checkpoint(model=self.model).save(f"{self.folder}/checkpoint")
