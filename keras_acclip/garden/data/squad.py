"""Question-answering data: SQuAD v1.1's JSON files, checked, to TFRecords, by `squad_lib`."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from keras_acclip._utils.processes import available_cpus
from keras_acclip.garden.data import shards
from keras_acclip.garden.data.squad_files import (
    Article,
    count_questions,
    deal_paragraphs,
    read_squad,
)
from keras_acclip.text.corpus import cache_key
from keras_acclip.text.vocabulary import read_vocabulary

_SHARD = 5000  # questions


@dataclass(frozen=True)
class Windows:
    """How a question and its context become examples: the BERT paper's values for SQuAD.

    Attributes:
        seq_length: Tokens of an example. Defaults to 384.
        query_length: Most tokens of the question. Defaults to 64.
        doc_stride: Step between the windows into which a longer context is cut. Defaults to 128.
        lower_case: Whether the text is put in lower case. Defaults to `True`.

    Raises:
        ValueError: If a value is not above 0, or leaves no room for the context.

    Example:

    >>> from keras_acclip.garden.data import Windows
    >>> Windows(seq_length=128)
    Windows(seq_length=128, query_length=64, doc_stride=128, lower_case=True)
    """

    seq_length: int = 384
    query_length: int = 64
    doc_stride: int = 128
    lower_case: bool = True

    def __post_init__(self) -> None:
        for name in ("seq_length", "query_length", "doc_stride"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"Argument `{name}` must be above 0. Received: {getattr(self, name)}"
                )
        if self.seq_length - self.query_length - 3 < 1:
            raise ValueError(
                f"Argument `seq_length` must be above query_length + 3 = {self.query_length + 3}, "
                f"to have room for the context. Received: {self.seq_length}"
            )


# Articles, the vocabulary file, the windows.
_Task: TypeAlias = tuple[list[Article], str, Windows]


def make_squad_data(
    train: str | Path,
    dev: str | Path,
    vocab: str | Path,
    output: str | Path,
    windows: Windows | None = None,
    processes: int | None = None,
    skip_unanswerable: bool = False,
) -> dict[str, int]:
    """Makes a folder with all that `acclip/bert_squad` needs to train and to evaluate.

    Stopped by whatever means and started again with the same arguments, it goes on with the shards
    that are missing.

    Args:
        train: A SQuAD v1.1 file to train on.
        dev: A SQuAD v1.1 file to evaluate on.
        vocab: The vocabulary file that the encoder was pretrained with.
        output: Folder to make. It gets `vocab.txt`, `dev.json`, the shards
            `train-00000-of-00018.tfrecord` and so on, and last `data.yaml`, for `--config_file`.
        windows: A `Windows`. Defaults to `Windows()`.
        processes: Number of processes. Defaults to the CPUs that this process may use.
        skip_unanswerable: Whether questions without an answer, which SQuAD v2.0 has, are left out.
            Defaults to `False`: they are errors.

    Returns:
        dict of the numbers of `"train"` examples and of `"train questions"` and `"dev questions"`.

    Raises:
        DataError: If a file is not SQuAD v1.1, or the output can't be written or gets other data;
            of several such files the message names all.
        keras_acclip.text.vocabulary.VocabularyError: If the vocabulary file can't be used.

    Example:

    >>> import json, tempfile
    >>> from pathlib import Path
    >>> from keras_acclip.garden.data import make_squad_data
    >>> folder = Path(tempfile.mkdtemp())
    >>> answer = {"text": "A cat", "answer_start": 0}
    >>> question = {"id": "1", "question": "Who sat?", "answers": [answer]}
    >>> articles = [{"title": "cats", "paragraphs": [{"context": "A cat sat.", "qas": [question]}]}]
    >>> for name in ("train.json", "dev.json"):
    ...     _ = (folder / name).write_text(json.dumps({"version": "1.1", "data": articles}))
    >>> tokens = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "a", "cat", "sat", ".", "who", "?"]
    >>> _ = (folder / "vocab.txt").write_text("\\n".join(tokens))
    >>> made = make_squad_data(
    ...     folder / "train.json",
    ...     folder / "dev.json",
    ...     vocab=folder / "vocab.txt",
    ...     output=folder / "data",
    ...     processes=1,
    ... )
    >>> made["train"], made["dev questions"]
    (1, 1)
    """
    output, windows = Path(output), windows or Windows()
    with shards.together() as faults:
        with faults.one():
            vocabulary = read_vocabulary(vocab)
        articles = {}
        for part, path in (("train", train), ("dev", dev)):
            with faults.one():
                articles[part] = read_squad(path, part == "train", skip_unanswerable)
    questions = {f"{part} questions": count_questions(found) for part, found in articles.items()}
    parts = deal_paragraphs(articles["train"], -(-questions["train questions"] // _SHARD))
    settings = {
        "data": "SQuAD",
        **{part: cache_key(found) for part, found in articles.items()},
        "vocabulary": cache_key(vocabulary),
        **asdict(windows),
        "tf-models-official": version("tf-models-official"),
    }
    with shards.claimed(output, settings):
        shards.write_file(output / "vocab.txt", "".join(f"{token}\n" for token in vocabulary))
        dataset = {"version": "1.1", "data": articles["dev"]}
        shards.write_file(output / "dev.json", json.dumps(dataset, ensure_ascii=False) + "\n")
        paths = shards.paths(output, "train", len(parts))
        kept = str(output / "vocab.txt")
        tasks = {path: (part, kept, windows) for path, part in zip(paths, parts, strict=True)}
        examples = shards.make_missing(
            _write_examples, tasks, processes or available_cpus(), "train"
        )
        config = _config(output, len(parts), len(vocabulary), windows)
        config["trainer"] = {"train_steps": math.ceil(3 * examples / 32)}
        notes = (
            f"# {examples} train examples\n"
            "# train_steps: 3 epochs in batches of 32; --params_override=trainer.train_steps=N\n"
        )
        shards.write_file(output / "data.yaml", notes + yaml.safe_dump(config, sort_keys=False))
    return {"train": examples, **questions}


def _write_examples(path: str, task: _Task) -> None:
    from official.nlp.data import squad_lib

    articles, vocab, windows = task
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".json") as file:
        json.dump({"data": articles}, file)
        file.flush()
        squad_lib.generate_tf_record_from_json_file(
            file.name,
            vocab,
            path,
            max_seq_length=windows.seq_length,
            do_lower_case=windows.lower_case,
            max_query_length=windows.query_length,
            doc_stride=windows.doc_stride,
        )


def _config(output: Path, count: int, vocabulary_size: int, windows: Windows) -> dict[str, Any]:
    """The Model Garden's config of these data."""
    output = output.resolve()
    both = {
        "seq_length": windows.seq_length,
        "query_length": windows.query_length,
        "doc_stride": windows.doc_stride,
        "do_lower_case": windows.lower_case,
        "vocab_file": str(output / "vocab.txt"),
        "version_2_with_negative": False,
    }
    train = {"input_path": shards.pattern(output, "train", count), "is_training": True}
    # The task reads the questions themselves, and needs every one to be answered.
    dev = {"input_path": str(output / "dev.json"), "is_training": False, "drop_remainder": False}
    return {
        "task": {
            "model": {"encoder": {"type": "bert", "bert": {"vocab_size": vocabulary_size}}},
            "train_data": train | both,
            "validation_data": dev | both,
        }
    }
