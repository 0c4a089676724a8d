"""Checks an experiment's tasks against their data before the first step."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from google.protobuf import message
from official.core import config_definitions, input_reader
from official.modeling.hyperparams import base_config
from official.nlp.configs import encoders as encoder_configs
from official.nlp.data import (
    pretrain_dataloader,
    pretrain_text_dataloader,
    question_answering_dataloader,
    sentence_prediction_dataloader,
)
from official.vision.configs import image_classification

from keras_acclip.garden import input_paths
from keras_acclip.garden.errors import ExperimentError

_KNOWN = (
    pretrain_dataloader.BertPretrainDataConfig,
    pretrain_text_dataloader.BertPretrainTextDataConfig,
    question_answering_dataloader.QADataConfig,
    sentence_prediction_dataloader.SentencePredictionDataConfig,
)
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
        raise ExperimentError(input_paths.not_set(place))
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
    _check_fields(place, files, _needed(data))
    if isinstance(data, pretrain_text_dataloader.BertPretrainTextDataConfig):
        return
    _check_examples(task, place, data, files, name, encoder)


def _check_examples(
    task: config_definitions.TaskConfig,
    place: str,
    data: Any,
    files: Iterable[str],
    name: str,
    encoder: Any,
) -> None:
    tokens = getattr(encoder, "vocab_size", None)
    segments = getattr(encoder, "type_vocab_size", None)
    classes = getattr(getattr(task, "model", None), "num_classes", None)
    label = getattr(data, "label_field", None)
    most = getattr(data, "max_predictions_per_seq", None)
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
