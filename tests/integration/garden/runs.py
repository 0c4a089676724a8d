"""A tiny pretraining run: its data and its parameters."""

import numpy as np
import tensorflow as tf
import yaml
from official.core import train_utils

from keras_acclip.garden import configs, experiments  # noqa: F401

LENGTH, MASKED, VOCABULARY = 16, 3, 64


ENCODER = {
    "vocab_size": VOCABULARY,
    "num_layers": 1,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "max_position_embeddings": LENGTH,
}


def _integers(values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _write(writer, features):
    example = tf.train.Example(features=tf.train.Features(feature=features))
    writer.write(example.SerializeToString())


def write_records(folder, files=3, examples=40):
    """Writes BERT's pretraining examples; returns their pattern."""
    rng = np.random.default_rng(0)
    for i in range(files):
        with tf.io.TFRecordWriter(f"{folder}/{i}.tfrecord") as writer:
            for _ in range(examples):
                ids = rng.integers(5, VOCABULARY, LENGTH)
                positions = rng.choice(LENGTH, MASKED, replace=False)
                features = {
                    "input_ids": _integers(ids),
                    "input_mask": _integers([1] * LENGTH),
                    "segment_ids": _integers([0] * 8 + [1] * 8),
                    "masked_lm_positions": _integers(positions),
                    "masked_lm_ids": _integers(ids[positions]),
                    "masked_lm_weights": tf.train.Feature(
                        float_list=tf.train.FloatList(value=[1.0] * MASKED)
                    ),
                    "next_sentence_labels": _integers([rng.integers(2)]),
                }
                _write(writer, features)
    return f"{folder}/*.tfrecord"


def write_answers(folder, examples=40):
    """Writes question-answering examples; returns their file."""
    rng = np.random.default_rng(0)
    with tf.io.TFRecordWriter(f"{folder}/answers.tfrecord") as writer:
        for _ in range(examples):
            start = rng.integers(8, LENGTH)
            features = {
                "input_ids": _integers(rng.integers(5, VOCABULARY, LENGTH)),
                "input_mask": _integers([1] * LENGTH),
                "segment_ids": _integers([0] * 8 + [1] * 8),
                "start_positions": _integers([start]),
                "end_positions": _integers([rng.integers(start, LENGTH)]),
            }
            _write(writer, features)
    return f"{folder}/answers.tfrecord"


def write_text(folder):
    """Writes documents, of a sentence a line, and a vocabulary; returns their paths."""
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(VOCABULARY - 5)]
    (folder / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])
    )
    with tf.io.TFRecordWriter(f"{folder}/text.tfrecord") as writer:
        for _ in range(40):
            text = "\n".join(" ".join(rng.choice(words, 7)) for _ in range(4)).encode()
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
            _write(writer, {"text": feature})
    return f"{folder}/text.tfrecord", f"{folder}/vocab.txt"


def overrides(data, validation=None, steps=40, **trainer):
    """Returns what makes a run tiny, as a dict."""
    shape = {"seq_length": LENGTH, "max_predictions_per_seq": MASKED, "global_batch_size": 4}
    return {
        "task": {
            "model": {"encoder": {"bert": ENCODER}},
            "train_data": shape | {"shuffle_buffer_size": 20} | data,
            "validation_data": shape | (validation or data),
        },
        "trainer": {
            "train_steps": steps,
            "steps_per_loop": 5,
            "summary_interval": 5,
            "checkpoint_interval": 10,
            "validation_interval": 20,
            "validation_steps": 2,
            "optimizer_config": {
                "learning_rate": {
                    "polynomial": {"initial_learning_rate": 1e-2, "decay_steps": 100}
                },
                "warmup": {"polynomial": {"warmup_steps": 2}},
            },
        }
        | trainer,
    }


def parse(changes, experiment="acclip/bert_pretraining", files=("cpu",)):
    """Returns an experiment's parameters with the changes."""
    paths = [configs.find(name) for name in files]
    options = train_utils.ParseConfigOptions(
        experiment, paths, params_override=yaml.safe_dump(changes)
    )
    return train_utils.parse_configuration(options, print_return=False)
