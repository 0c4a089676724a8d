"""Checks an experiment against devices, data and checkpoints before its first step."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf
from absl import logging
from google.protobuf import message
from official.common import distribute_utils
from official.core import config_definitions, input_reader
from official.nlp.data import (
    pretrain_dataloader,
    pretrain_text_dataloader,
    question_answering_dataloader,
    sentence_prediction_dataloader,
)

from keras_acclip.garden import checkpoints
from keras_acclip.garden.errors import ExperimentError

_KNOWN = (
    pretrain_dataloader.BertPretrainDataConfig,
    pretrain_text_dataloader.BertPretrainTextDataConfig,
    question_answering_dataloader.QADataConfig,
    sentence_prediction_dataloader.SentencePredictionDataConfig,
)
_PART_OF_CHECKPOINT = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")
_IDS = ("input_ids", "input_word_ids")
_RECORDS = 1000  # Read of each part of the data, from all of its files.


def available(runtime: config_definitions.RuntimeConfig) -> config_definitions.RuntimeConfig:
    """The devices to run on: those asked for, or the CPU where that is allowed in their place.

    Args:
        runtime: The experiment's `runtime`; `allow_cpu` may be among its parameters.

    Raises:
        ExperimentError: If it asks for GPUs that aren't there, and not for the CPU instead.
    """
    asked, found = runtime.num_gpus, len(tf.config.list_physical_devices("GPU"))
    kind = str(runtime.distribution_strategy).lower()
    if kind == "tpu" or asked <= found:
        return runtime
    what = f"runtime.num_gpus={asked} ({kind}), but this machine has {found or 'no'} GPU"
    what += "s" if found > 1 else ""
    if not getattr(runtime, "allow_cpu", False):
        raise ExperimentError(
            f"{what}. Name the file cpu, set runtime.num_gpus, or train on the CPU all the same "
            "with runtime.allow_cpu=true"
        )
    logging.warning("%s: this trains on the CPU, as runtime.allow_cpu says.", what)
    return runtime.replace(num_gpus=0, all_reduce_alg=None)


def strategy(runtime: config_definitions.RuntimeConfig) -> tf.distribute.Strategy:
    """The strategy that `runtime` describes.

    Raises:
        ExperimentError: If there is no such strategy, or no TPU at the address.
    """
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


def check_schedule(trainer: config_definitions.TrainerConfig) -> None:
    """Raises an `ExperimentError` if numbers of a rate or a warm-up are missing; it names all.

    Args:
        trainer: The experiment's trainer; stock experiments leave some for their users to set.
    """
    missing = []
    for section in ("learning_rate", "warmup"):
        choice: Any = getattr(trainer.optimizer_config, section, None)
        if choice is None:
            continue
        chosen = choice.get()
        for name in ("learning_rate", "initial_learning_rate", "decay_steps", "warmup_steps"):
            if getattr(chosen, name, 0) is None:
                missing.append(f"trainer.optimizer_config.{section}.{choice.type}.{name}")
    if missing:
        raise ExperimentError(f"{' and '.join(missing)} {'are' if missing[1:] else 'is'} not set")


def check_intervals(trainer: config_definitions.TrainerConfig) -> None:
    """Raises an `ExperimentError` if a training can't be cut into loops.

    Args:
        trainer: The experiment's trainer: its `steps_per_loop` must be at least 1, and its
            `summary_interval` a multiple of it.
    """
    loop, summary = trainer.steps_per_loop, trainer.summary_interval
    if loop < 1:
        raise ExperimentError(f"trainer.steps_per_loop must be at least 1. Received: {loop}")
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


def check_data(task: config_definitions.TaskConfig, mode: str) -> None:
    """Compares BERT's tasks with their data: vocabulary, lengths, classes.

    Args:
        task: The experiment's task; of other tasks nothing is known.
        mode: What is to be done.

    Raises:
        ExperimentError: If data are missing, can't be read, or aren't what the model takes.
    """
    encoder = _encoder(task)
    for part, word in (("train_data", "train"), ("validation_data", "eval")):
        data = getattr(task, part, None)
        if word in mode and isinstance(data, _KNOWN) and data.input_path != "dummy":
            _check_part(task, f"task.{part}", data, encoder)


def _encoder(task: config_definitions.TaskConfig) -> tuple[str, Any]:
    """The name and the config of the encoder in a task's model, or none."""
    choice: Any = getattr(getattr(task, "model", None), "encoder", None)
    config = choice.get() if hasattr(choice, "get") and choice.type else None
    return (f"task.model.encoder.{choice.type}", config) if config else ("", None)


def _check_part(
    task: config_definitions.TaskConfig, place: str, data: Any, named_encoder: tuple[str, Any]
) -> None:
    name, encoder = named_encoder
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
    classes = getattr(getattr(task, "model", None), "num_classes", None)
    label = getattr(data, "label_field", None)
    most = getattr(data, "max_predictions_per_seq", None)
    if isinstance(data, pretrain_text_dataloader.BertPretrainTextDataConfig):
        _check_texts(place, data, files)
        return
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


def _check_texts(place: str, data: Any, files: Iterable[str]) -> None:
    for file, features in itertools.islice(_examples(files, place), 1):
        for field in data.text_field_names or ():
            if field not in features:
                raise ExperimentError(
                    f"{place}.text_field_names: the examples of {file} have no {field!r}; they "
                    f"have {', '.join(sorted(features)) or 'no field'}"
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
    """The first examples of each file, a thousand in all: each's fields and their values."""
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
