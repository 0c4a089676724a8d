"""Stock experiments of the Model Garden train with ACClip, by its own drivers and by this one's."""

import itertools
import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf
import yaml

from tests.integration.garden.runs import ENCODER, LENGTH

ROOT = pathlib.Path(__file__).parents[3]
LINE = "trainer.optimizer_config.optimizer.type=acclip"
BERT = ("bert/sentence_prediction", "bert/pretraining", "bert/squad", "electra/pretraining")
VISION = ("resnet_imagenet",)
OURS, NLP, IMAGES = "keras_acclip.garden.train", "official.nlp.train", "official.vision.train"
GIN = "--gin_params=import keras_acclip.garden"
STEPS = 2


def bert(experiment):
    """What makes a BERT experiment tiny, on the Model Garden's dummy data."""
    shape = {"seq_length": LENGTH, "input_path": "dummy", "global_batch_size": 1}
    if "pretraining" in experiment:
        shape["max_predictions_per_seq"] = 3
    schedule = {
        "learning_rate": {"polynomial": {"decay_steps": 100}},
        "warmup": {"polynomial": {"warmup_steps": 1}},
    }
    model = {"encoder": {"bert": ENCODER}}
    if experiment == "electra/pretraining":
        encoders = ("generator_encoder", "discriminator_encoder")
        model = {key: {"bert": ENCODER} for key in encoders}
        model |= {"sequence_length": LENGTH, "num_masked_tokens": 3}
    if experiment == "bert/sentence_prediction":
        model["num_classes"] = 2
    task = {"model": model, "train_data": shape, "validation_data": dict(shape)}
    if experiment == "bert/squad":
        del task["validation_data"]
    return {"task": task, "trainer": {"optimizer_config": schedule}}


def images(folder):
    """What makes an image classification tiny, on images written here."""
    with tf.io.TFRecordWriter(f"{folder}/images.tfrecord") as writer:
        for i in range(8):
            image = tf.io.encode_jpeg(tf.fill((32, 32, 3), tf.cast(i * 30, tf.uint8))).numpy()
            features = {
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
                "image/class/label": tf.train.Feature(
                    int64_list=tf.train.Int64List(value=[1 + i % 4])
                ),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())
    data = {"input_path": f"{folder}/images.tfrecord", "global_batch_size": 4, "dtype": "float32"}
    model = {"num_classes": 5, "input_size": [32, 32, 3], "backbone": {"resnet": {"model_id": 10}}}
    return {
        "task": {"model": model, "train_data": data, "validation_data": dict(data)},
        "runtime": {"mixed_precision_dtype": "float32"},
    }


def write_changes(experiment, folder):
    changes = bert(experiment) if experiment in BERT else images(folder)
    counts = ("train_steps", "steps_per_loop", "checkpoint_interval", "summary_interval")
    trainer = dict.fromkeys(counts, STEPS)
    changes["trainer"] = changes.get("trainer", {}) | trainer
    changes["runtime"] = changes.get("runtime", {}) | {"distribution_strategy": "one_device"}
    changes["runtime"]["num_gpus"] = 0
    (folder / "changes.yaml").write_text(yaml.safe_dump(changes))
    return folder / "changes.yaml"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("driver", "experiment"),
    [
        *itertools.product([OURS], BERT + VISION),
        *itertools.product([NLP], BERT),
        *itertools.product([IMAGES], VISION),
    ],
)
def test_a_stock_experiment_trains(driver, experiment, tmp_path):
    command = [
        *(sys.executable, "-m", driver, f"--experiment={experiment}", "--mode=train"),
        *([] if driver == OURS else [GIN]),
        f"--config_file={write_changes(experiment, tmp_path)}",
        f"--params_override={LINE}",
        f"--model_dir={tmp_path / 'run'}",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=500, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    checkpoint = tf.train.latest_checkpoint(tmp_path / "run")
    assert checkpoint and checkpoint.endswith(f"ckpt-{STEPS}")
    names = [name for name, _ in tf.train.list_variables(checkpoint)]
    assert any(name.startswith("optimizer/_counts") for name in names)  # Of ACClip's record.
