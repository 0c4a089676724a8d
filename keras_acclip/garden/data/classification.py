"""Sentence prediction data: labelled texts, or pairs of them, to TFRecords, by the Model Garden."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from keras_acclip._utils.processes import available_cpus
from keras_acclip.garden.data import shards
from keras_acclip.garden.data.labelled_files import Labelled, read_labelled
from keras_acclip.garden.data.shards import DataError
from keras_acclip.text.corpus import cache_key
from keras_acclip.text.vocabulary import read_vocabulary

_SHARD = 50_000  # rows


@dataclass(frozen=True)
class Sentences:
    """How a labelled text becomes an example.

    Attributes:
        seq_length: Tokens of an example; of longer texts the ends are cut off. Defaults to 128.
        lower_case: Whether the text is put in lower case. Defaults to `True`.
        seed: Of the training rows' order. Defaults to 12345.

    Raises:
        ValueError: If `seq_length` is below 8.

    Example:

    >>> from keras_acclip.garden.data import Sentences
    >>> Sentences(seq_length=64)
    Sentences(seq_length=64, lower_case=True, seed=12345)
    """

    seq_length: int = 128
    lower_case: bool = True
    seed: int = 12345

    def __post_init__(self) -> None:
        if self.seq_length < 8:
            raise ValueError(
                f"Argument `seq_length` must be at least 8. Received: {self.seq_length}"
            )


@dataclass(frozen=True)
class _Task:
    rows: Sequence[Labelled]
    classes: tuple[str, ...]  # Empty for numbers to be predicted.
    vocab: str
    sentences: Sentences


def make_sentence_data(
    train: str | Path,
    dev: str | Path,
    vocab: str | Path,
    output: str | Path,
    sentences: Sentences | None = None,
    text_fields: Sequence[str] = (),
    label_field: str | None = None,
    label_type: str | None = None,
    processes: int | None = None,
) -> dict[str, int]:
    """Makes a folder with all that `acclip/bert_sentence_prediction` needs to train.

    Stopped by whatever means and started again with the same arguments, it goes on with the shards
    that are missing.

    Args:
        train: A TSV, CSV or JSON lines file to train on; see `read_labelled`.
        dev: One to evaluate on.
        vocab: The vocabulary file that the encoder was pretrained with.
        output: Folder to make. It gets `vocab.txt`, `labels.txt` with a class a line, the shards,
            and last `data.yaml`, for `--config_file`.
        sentences: A `Sentences`. Defaults to `Sentences()`.
        text_fields: Names of the columns of one or two texts. Default: the usual names.
        label_field: Name of the label's column. Default: the usual names.
        label_type: `"int"` for classes, `"float"` for numbers to be predicted. Default: numbers if
            one label is written with a point, as `2.0`, else classes; stderr says it of numbers.
        processes: Number of processes. Defaults to the CPUs that this process may use.

    Returns:
        dict of the numbers of `"train"` and `"dev"` examples, and of `"classes"`.

    Raises:
        DataError: If a file can't be used, a dev label is none of the training's, or the output
            can't be written or gets other data.
        keras_acclip.text.vocabulary.VocabularyError: If the vocabulary file can't be used.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from keras_acclip.garden.data import make_sentence_data
    >>> folder = Path(tempfile.mkdtemp())
    >>> tokens = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "good", "bad", "film"]
    >>> _ = (folder / "vocab.txt").write_text("\\n".join(tokens))
    >>> for name in ("train.tsv", "dev.tsv"):
    ...     _ = (folder / name).write_text("text\\tlabel\\ngood film\\tyes\\nbad film\\tno\\n")
    >>> make_sentence_data(
    ...     folder / "train.tsv",
    ...     folder / "dev.tsv",
    ...     vocab=folder / "vocab.txt",
    ...     output=folder / "data",
    ...     processes=1,
    ... )
    {'train': 2, 'dev': 2, 'classes': 2}
    """
    output, sentences = Path(output), sentences or Sentences()
    named = ", ".join(map(repr, text_fields))
    if len(text_fields) > 2 or len(set(text_fields)) < len(text_fields) or "" in text_fields:
        raise DataError(f"--text_fields takes one name, or two different ones. Received: {named}")
    if label_field == "" or (label_field and label_field in text_fields):
        raise DataError(
            f"--label_field must name a column that holds no text. Received: {label_field!r}, "
            f"beside the texts {named or 'of the usual names'}"
        )
    with shards.together() as faults:
        with faults.one():
            vocabulary = read_vocabulary(vocab)
        rows: dict[str, list[Labelled]] = {}
        for part, path in {"train": train, "dev": dev}.items():
            with faults.one():
                rows[part] = read_labelled(path, text_fields, label_field)
                # A file that has other usual columns besides must not be scored on those.
                *text_fields, label_field = rows[part][0].columns
    classes = label_classes(rows["train"], rows["dev"], label_type)
    if not classes and label_type is None:
        print("labels: numbers to predict; for classes --label_type int", file=sys.stderr)
    random.Random(sentences.seed).shuffle(rows["train"])
    settings = {
        "data": "sentences",
        **{part: cache_key([[*r.texts, r.label] for r in found]) for part, found in rows.items()},
        "label_type": "int" if classes else "float",
        "vocabulary": cache_key(vocabulary),
        **asdict(sentences),
        "tf-models-official": version("tf-models-official"),
    }
    counts = {part: -(-len(found) // _SHARD) for part, found in rows.items()}
    with shards.claimed(output, settings):
        kept = output / "vocab.txt"
        shards.write_file(kept, "".join(f"{token}\n" for token in vocabulary))
        shards.write_file(output / "labels.txt", "".join(f"{name}\n" for name in classes))
        made = {}
        for part, found in rows.items():
            paths = shards.paths(output, part, counts[part])
            tasks = {
                path: _Task(found[i :: counts[part]], classes, str(kept), sentences)
                for i, path in enumerate(paths)
            }
            made[part] = shards.make_missing(
                _write_examples, tasks, processes or available_cpus(), part
            )
        config = _config(output, counts, len(vocabulary), len(classes), sentences)
        config["trainer"] = {"train_steps": math.ceil(3 * made["train"] / 32)}
        notes = (
            f"# {made['train']} train examples, {made['dev']} dev examples\n"
            "# train_steps: 3 epochs in batches of 32; --params_override=trainer.train_steps=N\n"
        )
        shards.write_file(output / "data.yaml", notes + yaml.safe_dump(config, sort_keys=False))
    return made | ({"classes": len(classes)} if classes else {})


def label_classes(
    train: Sequence[Labelled], dev: Sequence[Labelled], label_type: str | None = None
) -> tuple[str, ...]:
    """The classes in the order of their numbers; none where the labels are numbers to predict.

    Whole numbers come in their order, other labels in the alphabet's.

    Args:
        train: Rows to train on.
        dev: Rows to evaluate on.
        label_type: `"int"`, `"float"`, or `None` to tell by the labels.

    Raises:
        DataError: If there is one class only, or a dev row's is none of the training's; if a
            label that must be a number isn't; or if `label_type` is `None` and the training's
            labels are numbers with a point and other words.
    """
    labels = dict.fromkeys(row.label for row in train)
    whole = all(_is_number(label, int) for label in labels)
    point = next((x for x in labels if _is_number(x, float) and not _is_number(x, int)), None)
    if label_type == "float" or (label_type is None and point):
        for row in (*train, *dev):
            if _is_number(row.label, float):
                continue
            way_out = ""
            if not label_type and row.label in labels:
                way_out = f", as {point!r} is; --label_type int makes both classes"
            raise DataError(
                f"{row.place}: the label must be a number{way_out}. Received: {row.label!r}"
            )
        return ()
    classes = tuple(sorted(labels, key=int) if whole else sorted(labels))
    if len(classes) < 2:
        raise DataError(f"{train[0].place}: all rows have one label, {train[0].label!r}")
    for row in dev:
        if row.label not in labels:
            raise DataError(
                f"{row.place}: the label {row.label!r} is none of the training's: "
                f"{', '.join(classes[:20])}"
            )
    return classes


def _is_number(label: str, kind: type) -> bool:
    try:
        return math.isfinite(kind(label))
    except ValueError:
        return False


def _write_examples(path: str, task: _Task) -> None:
    from official.nlp.data import classifier_data_lib
    from official.nlp.tools import tokenization

    examples = [
        classifier_data_lib.InputExample(
            guid=row.place,
            text_a=text,
            text_b=next(iter(pair), None),
            label=row.label if task.classes else float(row.label),
        )
        for row in task.rows
        for text, *pair in [row.texts]
    ]
    classifier_data_lib.file_based_convert_examples_to_features(
        examples,
        list(task.classes) or None,
        task.sentences.seq_length,
        tokenization.FullTokenizer(task.vocab, do_lower_case=task.sentences.lower_case),
        path,
        int if task.classes else float,
    )


def _config(
    output: Path, counts: dict[str, int], vocabulary: int, classes: int, sentences: Sentences
) -> dict[str, Any]:
    """The Model Garden's config of these data."""
    train, dev = (
        {
            "input_path": shards.pattern(output, part, counts[part]),
            "is_training": part == "train",
            "seq_length": sentences.seq_length,
            "label_type": "int" if classes else "float",
        }
        for part in ("train", "dev")
    )
    return {
        "task": {
            "model": {
                "num_classes": classes or 1,
                "encoder": {"type": "bert", "bert": {"vocab_size": vocabulary}},
            },
            "train_data": train,
            "validation_data": dev | {"drop_remainder": False},
        }
    }
