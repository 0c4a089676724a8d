"""Checks an experiment against devices, data and checkpoints before its first step."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging
from google.protobuf import message
from official.common import distribute_utils
from official.core import config_definitions, input_reader
from official.modeling import optimization
from official.modeling.hyperparams import base_config
from official.nlp.configs import encoders as encoder_configs
from official.nlp.data import (
    pretrain_dataloader,
    pretrain_text_dataloader,
    question_answering_dataloader,
    sentence_prediction_dataloader,
)
from official.vision.configs import image_classification

from keras_acclip.garden import accumulation, checkpoints
from keras_acclip.garden.errors import ExperimentError

_KNOWN = (
    pretrain_dataloader.BertPretrainDataConfig,
    pretrain_text_dataloader.BertPretrainTextDataConfig,
    question_answering_dataloader.QADataConfig,
    sentence_prediction_dataloader.SentencePredictionDataConfig,
)
_PART_OF_CHECKPOINT = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")
_IDS = ("input_ids", "input_word_ids")
_SEGMENTS = ("input_type_ids", "segment_ids")
_SIZES = (
    "vocab_size",
    "type_vocab_size",
    "hidden_size",
    "num_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)
_RECORDS = 10_000  # Read of each part of the data, from all of its files.


def available(runtime: config_definitions.RuntimeConfig) -> config_definitions.RuntimeConfig:
    """The devices to run on: those asked for, or one CPU where none is, or it is allowed instead.

    Args:
        runtime: The experiment's `runtime`; `allow_cpu` may be among its parameters.

    Raises:
        ExperimentError: If it asks for GPUs that aren't there, and not for the CPU instead.
    """
    asked, found = runtime.num_gpus, len(tf.config.list_physical_devices("GPU"))
    kind = str(runtime.distribution_strategy).lower()
    # Of one CPU there is one replica, and a step on it is one XLA computation without a mirror.
    one = {"distribution_strategy": "one_device"} if kind == "mirrored" else {}
    if kind == "tpu" or asked <= found:
        return runtime if asked else runtime.replace(**one)
    what = f"runtime.num_gpus={asked} ({kind}), but this machine has {found or 'no'} GPU"
    what += "s" if found > 1 else ""
    if not getattr(runtime, "allow_cpu", False):
        raise ExperimentError(
            f"{what}. Name the file cpu, set runtime.num_gpus, or train on the CPU all the same "
            "with runtime.allow_cpu=true"
        )
    logging.warning("%s: this trains on the CPU, as runtime.allow_cpu says.", what)
    return runtime.replace(num_gpus=0, all_reduce_alg=None, **one)


def strategy(runtime: config_definitions.RuntimeConfig) -> tf.distribute.Strategy:
    """The strategy that `runtime` describes.

    Raises:
        ExperimentError: If there is no such strategy, or no TPU at the address.
    """
    if runtime.distribution_strategy == "multi_worker_mirrored":
        _check_cluster(os.environ.get("TF_CONFIG", ""))
    try:
        return distribute_utils.get_distribution_strategy(
            distribution_strategy=runtime.distribution_strategy,
            all_reduce_alg=runtime.all_reduce_alg,
            num_gpus=runtime.num_gpus,
            tpu_address=runtime.tpu,
            **runtime.model_parallelism(),
        )
    except (ValueError, RuntimeError, tf.errors.OpError, OSError) as error:
        what = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        if str(runtime.distribution_strategy).lower() == "tpu":
            raise ExperimentError(
                f"No TPU is found at --tpu={runtime.tpu}: {what}. --tpu takes its name, "
                "grpc://ADDRESS:8470, or local on the TPU's own machine"
            ) from error
        raise ExperimentError(
            f"runtime.distribution_strategy={runtime.distribution_strategy!r}: {what}"
        ) from error


def _check_cluster(text: str) -> None:
    """Raises an `ExperimentError` if a `TF_CONFIG` does not say which worker this is."""
    if not text:
        return
    try:
        config = json.loads(text)
        task, workers = config["task"], config["cluster"]
        if not 0 <= task["index"] < len(workers[task["type"]]):
            raise ValueError(f"there is no {task['type']} {task['index']} in its cluster")
    except (ValueError, KeyError, TypeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ExperimentError(
            f"TF_CONFIG does not describe this worker: {what}. It looks like "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        ) from error


def check_optimizer(trainer: config_definitions.TrainerConfig) -> None:
    """Raises an `ExperimentError` if an optimizer can't have the values that it is given.

    Args:
        trainer: The experiment's trainer.
    """
    config: Any = trainer.optimizer_config
    if config.optimizer is None or config.optimizer.type is None:
        raise ExperimentError("trainer.optimizer_config.optimizer.type is not set")
    try:
        factory = optimization.OptimizerFactory(config)
        factory.build_optimizer(factory.build_learning_rate())
    except (ValueError, TypeError) as error:
        raise ExperimentError(f"trainer.optimizer_config: {error}") from error


def check_schedule(trainer: config_definitions.TrainerConfig) -> None:
    """Raises an `ExperimentError` if a rate's or a warm-up's numbers are missing or not finite.

    Args:
        trainer: The experiment's trainer; stock experiments leave some for their users to set.
    """
    missing = []
    for section in ("learning_rate", "warmup"):
        choice: Any = getattr(trainer.optimizer_config, section, None)
        chosen = choice.get() if choice is not None else None
        if chosen is None:
            continue
        for name in ("learning_rate", "initial_learning_rate", "decay_steps", "warmup_steps"):
            if getattr(chosen, name, 0) is None:
                missing.append(f"trainer.optimizer_config.{section}.{choice.type}.{name}")
        for name, value in _numbers(chosen.as_dict()):
            if not math.isfinite(value):
                raise ExperimentError(
                    f"trainer.optimizer_config.{section}.{choice.type}.{name} must be a finite "
                    f"number. Received: {value}"
                )
    if missing:
        raise ExperimentError(f"{' and '.join(missing)} {'are' if missing[1:] else 'is'} not set")


def _numbers(values: Any, at: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested dicts and lists, each with its name."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from _numbers(value, f"{at}.{name}" if at else name)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _numbers(value, at)
    elif isinstance(values, int | float):
        yield at, values


def check_intervals(trainer: config_definitions.TrainerConfig) -> None:
    """Raises an `ExperimentError` if a training can't be cut into loops.

    Args:
        trainer: The experiment's trainer: its steps and intervals must be at least 1, and its
            `summary_interval` a multiple of its `steps_per_loop`.
    """
    loop, summary = trainer.steps_per_loop, trainer.summary_interval
    for name in ("train_steps", "steps_per_loop", "checkpoint_interval", "validation_interval"):
        value = getattr(trainer, name)
        if value is not None and value < 1:
            raise ExperimentError(f"trainer.{name} must be at least 1. Received: {value}")
    if summary is not None and (summary < 1 or summary % loop):
        raise ExperimentError(
            f"trainer.summary_interval must be a multiple of trainer.steps_per_loop={loop}. "
            f"Received: {summary}"
        )


def check_initial(task: config_definitions.TaskConfig) -> None:
    """Raises an `ExperimentError` if a checkpoint to start from isn't there.

    Args:
        task: The experiment's task.
    """
    path = getattr(task, "init_checkpoint", None)
    if not path:
        return
    place = f"task.init_checkpoint={path}"
    prefix = tf.train.latest_checkpoint(path) if tf.io.gfile.isdir(path) else path
    if not prefix:
        raise ExperimentError(f"{place}: the folder holds no checkpoint")
    if not tf.io.gfile.exists(f"{prefix}.index"):
        meant = _PART_OF_CHECKPOINT.sub("", prefix)
        if meant != prefix and tf.io.gfile.exists(f"{meant}.index"):
            raise ExperimentError(f"{place}: a file of a checkpoint; the checkpoint is {meant}")
        name = os.path.basename(path)
        raise ExperimentError(
            f"{place}: there is neither such a folder nor a checkpoint {name}.index"
        )
    if fault := checkpoints.unreadable(prefix):
        raise ExperimentError(f"{place}: the checkpoint {prefix} can't be read: {fault}")


def check_outside(task: config_definitions.TaskConfig, model_dir: str) -> None:
    """Raises an `ExperimentError` if a checkpoint to start from is one that `--fresh` removes.

    Args:
        task: The experiment's task.
        model_dir: The model directory.
    """
    path = getattr(task, "init_checkpoint", None)
    inside = os.path.realpath(model_dir)
    if path and os.path.commonpath([os.path.realpath(path), inside]) == inside:
        raise ExperimentError(
            f"task.init_checkpoint={path} lies in --model_dir={model_dir}, which --fresh clears: "
            "name another model_dir"
        )


def check_accumulation(
    params: config_definitions.ExperimentConfig, strategy: tf.distribute.Strategy
) -> None:
    """Raises an `ExperimentError` if a batch can't be divided into micro-batches.

    Args:
        params: The experiment's parameters.
        strategy: What it trains with.
    """
    try:
        accumulation.micro_batches(params, strategy.num_replicas_in_sync)
    except (TypeError, ValueError) as error:
        raise ExperimentError(str(error)) from error


def check_data(task: config_definitions.TaskConfig, mode: str) -> None:
    """Compares tasks with their data: fields; of BERT's vocabulary, lengths, classes, too.

    Args:
        task: The experiment's task; of tasks that aren't known, only whether there are data.
        mode: What is to be done.

    Raises:
        ExperimentError: If data are missing, can't be read, or aren't what the model takes.
    """
    encoders = _encoders(task) or [("", None)]
    for part, word in (("train_data", "train"), ("validation_data", "eval")):
        data: Any = getattr(task, part, None)
        place = f"task.{part}"
        if word not in mode or getattr(data, "input_path", "dummy") == "dummy":
            continue
        if (data.input_path or data.tfds_name) and data.global_batch_size < 1:
            raise ExperimentError(
                f"{place}.global_batch_size must be at least 1. Received: {data.global_batch_size}"
            )
        if isinstance(data, _KNOWN):
            for name, encoder in encoders:
                _check_part(task, place, data, name, encoder)
        elif data.input_path and not data.tfds_name:
            files = _files(place, data.input_path)
            if isinstance(data, image_classification.DataConfig):
                _check_fields(place, files, (data.image_field_key, data.label_field_key))


def _encoders(task: config_definitions.TaskConfig) -> list[tuple[str, Any]]:
    """The names and the configs of the encoders in a task's model; ELECTRA has two."""
    parts = vars(task.model).items() if isinstance(task.model, base_config.Config) else ()
    return [
        (f"task.model.{part}.{choice.type}", choice.get())
        for part, choice in parts
        if isinstance(choice, encoder_configs.EncoderConfig) and choice.type
    ]


def _check_part(
    task: config_definitions.TaskConfig, place: str, data: Any, name: str, encoder: Any
) -> None:
    for size in _SIZES:
        if getattr(encoder, size, 1) < 1:
            raise ExperimentError(
                f"{name}.{size} must be at least 1. Received: {getattr(encoder, size)}"
            )
    if not (data.input_path or data.tfds_name):
        raise ExperimentError(
            f"{place}.input_path is not set. The data.yaml of a folder made by "
            "keras_acclip.garden.data sets it: name it as the last --config_file"
        )
    longest = getattr(encoder, "max_position_embeddings", None)
    if longest and data.seq_length > longest:
        raise ExperimentError(
            f"{place}.seq_length={data.seq_length} is above {name}.max_position_embeddings="
            f"{longest}"
        )
    tokens = getattr(encoder, "vocab_size", None)
    for field in ("vocab_file", "vocab_file_path"):
        if path := getattr(data, field, ""):
            _check_vocabulary(f"{place}.{field}={path}", path, name, tokens)
    if not data.input_path:
        return
    files = _files(place, data.input_path)
    if files[0].endswith(".json"):
        return
    # `keras_acclip.garden.data` leaves the vocabulary there; few examples have its rare words.
    beside = os.path.join(os.path.dirname(files[0]), "vocab.txt")
    if tokens and tf.io.gfile.exists(beside):
        _check_vocabulary(f"{place}.input_path: {beside}", beside, name, tokens)
    classes = getattr(getattr(task, "model", None), "num_classes", None)
    label = getattr(data, "label_field", None)
    most = getattr(data, "max_predictions_per_seq", None)
    _check_fields(place, files, _needed(data))
    if isinstance(data, pretrain_text_dataloader.BertPretrainTextDataConfig):
        return
    segments = getattr(encoder, "type_vocab_size", None)
    for file, features in _examples(files, place):
        ids = next((features[key] for key in _IDS if key in features), None)
        if ids is None:
            raise ExperimentError(
                f"{place}.input_path: the examples of {file} have no input_ids; they have "
                f"{', '.join(sorted(features)) or 'no field'}"
            )
        if len(ids) != data.seq_length:
            raise ExperimentError(
                f"{place}.seq_length={data.seq_length}, but the examples of {file} have "
                f"{len(ids)} tokens"
            )
        if tokens and max(ids) >= tokens:
            raise ExperimentError(
                f"{name}.vocab_size={tokens}, but {file} holds the token {max(ids)}; the data's "
                "data.yaml, named last, sets the size"
            )
        kinds = next((features[key] for key in _SEGMENTS if key in features), ())
        if segments and max(kinds, default=0) >= segments:
            raise ExperimentError(
                f"{name}.type_vocab_size={segments}, but {file} has segments up to {max(kinds)}"
            )
        masked = features.get("masked_lm_positions")
        if most and masked is not None and len(masked) != most:
            raise ExperimentError(
                f"{place}.max_predictions_per_seq={most}, but the examples of {file} have "
                f"{len(masked)} masked places"
            )
        labels = features.get(label) if label and data.label_type == "int" else None
        if labels is not None and classes and not 0 <= labels[0] < classes:
            raise ExperimentError(
                f"task.model.num_classes={classes}, but {file} holds the label {labels[0]}"
            )


def _check_vocabulary(place: str, path: str, name: str, tokens: int | None) -> None:
    try:
        with tf.io.gfile.GFile(path) as file:
            count = sum(1 for line in file if line.strip())
    except tf.errors.OpError:
        raise ExperimentError(f"{place}: no such file") from None
    if tokens and count > tokens:
        raise ExperimentError(f"{name}.vocab_size={tokens}, but {place} holds {count} tokens")


def _needed(data: Any) -> Sequence[str]:
    """The fields that examples must have, beside their tokens."""
    if isinstance(data, pretrain_text_dataloader.BertPretrainTextDataConfig):
        return data.text_field_names or ()
    if isinstance(data, sentence_prediction_dataloader.SentencePredictionDataConfig):
        return (data.label_field,)
    if isinstance(data, question_answering_dataloader.QADataConfig):
        return ("start_positions", "end_positions") if data.is_training else ()
    pairs = ("next_sentence_labels",) if data.use_next_sentence_label else ()
    return ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights", *pairs)


def _check_fields(place: str, files: Iterable[str], needed: Sequence[str]) -> None:
    for file, features in itertools.islice(_examples(files, place), 1):
        for field in needed:
            if field not in features:
                raise ExperimentError(
                    f"{place}.input_path: the examples of {file} have no {field!r}; they have "
                    f"{', '.join(sorted(features)) or 'no field'}"
                )


def _files(place: str, patterns: Any) -> list[str]:
    if isinstance(patterns, Mapping) or hasattr(patterns, "as_dict"):
        raise ExperimentError(f"{place}.input_path must be a path, a pattern or a list of them")
    try:
        files = sorted(input_reader.match_files(patterns))
    except ValueError as error:
        raise ExperimentError(f"{place}.input_path: {error}") from error
    for file in files:
        if not tf.io.gfile.exists(file):
            raise ExperimentError(f"{place}.input_path: {file}: no such file")
    return files


def _examples(files: Iterable[str], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The first examples of each file, `_RECORDS` in all: each's fields and their values."""
    files = list(files)
    share = -(-_RECORDS // max(1, len(files)))
    for file in files:
        try:
            for record in tf.data.TFRecordDataset(file).take(share).as_numpy_iterator():
                example = tf.train.Example.FromString(record)
                fields = example.features.feature.items()
                yield file, {key: _values(feature) for key, feature in fields}
        except tf.errors.OpError as error:
            what = str(error).splitlines()[0]
            raise ExperimentError(f"{place}.input_path: {file} can't be read: {what}") from error
        except message.DecodeError as error:
            raise ExperimentError(f"{place}.input_path: {file}: holds no examples") from error


def _values(feature: Any) -> Any:
    kind = feature.WhichOneof("kind")
    return getattr(feature, kind).value if kind else []
