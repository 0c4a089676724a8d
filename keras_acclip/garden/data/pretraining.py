"""Pretraining data for BERT from text: a vocabulary, and TFRecords by the Model Garden."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from keras_acclip._utils.processes import available_cpus
from keras_acclip.garden.data import examples, shards
from keras_acclip.garden.data.examples import Task
from keras_acclip.garden.data.recipe import Recipe
from keras_acclip.garden.data.sentences import sentences
from keras_acclip.garden.data.shards import DataError
from keras_acclip.text import corpus as texts
from keras_acclip.text.vocabulary import SPECIAL_TOKENS, learn_vocabulary, read_vocabulary

# The embedded corpus: what `pip install keras-acclip[garden]` installs.
PACKAGES = ("keras", "matplotlib", "numpy", "official", "scipy", "tensorflow")

_FORMAT = 1  # Noted with the settings: raise it when the data are made differently.
_SHARD = 1_000_000  # characters
_PIECES = 100  # Of a single document.


def make_pretraining_data(
    corpus: texts.Corpus,
    output: str | Path,
    vocab: str | Path | None = None,
    vocab_size: int = 30522,
    recipe: Recipe | None = None,
    one_sentence_per_line: bool = False,
    num_shards: int | None = None,
    processes: int | None = None,
) -> dict[str, int]:
    """Makes a folder with all that `acclip/bert_pretraining` needs to train.

    Stopped by whatever means and started again with the same arguments, it goes on with the shards
    that are missing; the result depends neither on that nor on the number of processes.

    Args:
        corpus: A `keras_acclip.text.corpus.Corpus`.
        output: Folder to make. It gets `vocab.txt`, the shards
            `train-00000-of-00020.tfrecord`, `validation-00000-of-00001.tfrecord` and so on, and
            last `data.yaml`, for `--config_file`.
        vocab: A vocabulary file. Without it a vocabulary is learned from the training text.
        vocab_size: Most tokens of a learned vocabulary. Defaults to 30522, BERT's.
        recipe: A `Recipe`. Defaults to `Recipe()`.
        one_sentence_per_line: Whether a document's lines are its sentences. Defaults to `False`:
            sentences end where a stop, a space and a capital meet, and at blank lines.
        num_shards: Number of training shards. Defaults to one a million characters, but at least
            two documents a shard and at most 1000 shards.
        processes: Number of processes. Defaults to the CPUs that this process may use.

    Returns:
        dict of the numbers of examples in `"train"` and `"validation"` and of the `"vocabulary"`.

    Raises:
        DataError: If the output can't be written, or holds or gets other data; if a part of the
            corpus is too short for an example; or if there are fewer than two documents a shard.
        keras_acclip.text.vocabulary.VocabularyError: If the vocabulary file can't be used.

    Example:

    >>> import tempfile
    >>> from keras_acclip.garden.data import Recipe, make_pretraining_data
    >>> from keras_acclip.text.corpus import Corpus
    >>> text = "A cat sat on the mat. It slept there all day. The dog of the house looked on."
    >>> corpus = Corpus("cats", (text, text.replace("cat", "bird")), (text, text))
    >>> made = make_pretraining_data(
    ...     corpus, tempfile.mkdtemp(), vocab_size=60, recipe=Recipe(seq_length=16), processes=1
    ... )
    vocabulary: learning at most 60 tokens
    >>> made["train"] > 0
    True
    """
    output, recipe = Path(output), recipe or Recipe()
    given = check_vocabulary(vocab, vocab_size)
    for part in ("train", "validation"):
        if not any(map(str.strip, getattr(corpus, part))):
            fault = f"there is no {part} text"
            if part == "validation" and corpus.train:
                fault += f", as of {len(corpus.train)} documents none is held out; "
                fault += "--validation_input names some"
            raise DataError(f"{corpus.name}: too short: {fault}")
    documents = {
        part: several(getattr(corpus, part), part, corpus.name, one_sentence_per_line)
        for part in ("train", "validation")
    }
    counts = {part: default_shards(found) for part, found in documents.items()}
    if num_shards:
        if 2 * num_shards > len(documents["train"]):
            raise DataError(
                f"num_shards={num_shards} is above half the number of documents, "
                f"{len(documents['train'])}: each shard needs two, for a wrong next sentence comes "
                "from another document"
            )
        counts["train"] = num_shards
    settings = {
        "data": "pretraining",
        "text": corpus.fingerprint,
        "one_sentence_per_line": one_sentence_per_line,
        "vocabulary": texts.cache_key(given) if given else vocab_size,
        "num_shards": counts["train"],
        **asdict(recipe),
        "tf-models-official": version("tf-models-official"),
        "format": _FORMAT,
    }
    with shards.claimed(output, settings):
        vocabulary = _vocabulary(output / "vocab.txt", given, vocab_size, corpus, recipe)
        found = {}
        for part, count in counts.items():
            dealt = deal(documents[part], count)
            paths = shards.paths(output, part, count)
            tasks = {
                path: Task(
                    tuple(own),
                    one_sentence_per_line,
                    str(output / "vocab.txt"),
                    recipe,
                    recipe.dupe_factor if part == "train" else 1,
                    f"{recipe.seed}-{part}-{number}",
                )
                for number, (path, own) in enumerate(zip(paths, dealt, strict=True))
            }
            make = examples.write_text if recipe.dynamic else examples.write_pairs
            found[part] = shards.make_missing(make, tasks, processes or available_cpus(), part)
        config = _config(output, counts, len(vocabulary), recipe)
        notes = "".join(f"# {number} {part} examples\n" for part, number in found.items())
        shards.write_file(output / "data.yaml", notes + yaml.safe_dump(config, sort_keys=False))
    return {**found, "vocabulary": len(vocabulary)}


def check_vocabulary(vocab: str | Path | None, vocab_size: int) -> list[str] | None:
    """The tokens of the vocabulary file, or `None` where one is to be learned.

    Raises:
        DataError: If a vocabulary of `vocab_size` tokens can't be learned.
        keras_acclip.text.vocabulary.VocabularyError: If the file can't be used.
    """
    if vocab_size <= len(SPECIAL_TOKENS):
        raise DataError(
            f"Argument `vocab_size` must be above {len(SPECIAL_TOKENS)}, the number of special "
            f"tokens. Received: {vocab_size}"
        )
    return read_vocabulary(vocab) if vocab else None


def default_shards(documents: Sequence[str]) -> int:
    """One shard a million characters, but at least two documents a shard and at most 1000."""
    size = -(-sum(map(len, documents)) // _SHARD)
    return max(1, min(size, len(documents) // 2, 1000))


def deal(documents: Sequence[str], count: int) -> list[list[str]]:
    """Documents in `count` lists of like length, of two documents at least.

    The longest comes first, each goes to the shortest list; the last ones go to the lists that have
    fewer than two.

    Args:
        documents: The documents, twice as many as lists or more.
        count: Number of lists.
    """
    dealt: list[list[str]] = [[] for _ in range(count)]
    lengths = [0] * count
    lacking = 2 * count
    for number, document in enumerate(sorted(documents, key=len, reverse=True)):
        must = lacking >= len(documents) - number
        lists = [i for i in range(count) if not must or len(dealt[i]) < 2] or range(count)
        shortest = min(lists, key=lengths.__getitem__)
        lacking -= len(dealt[shortest]) < 2
        dealt[shortest].append(document)
        lengths[shortest] += len(document)
    return dealt


def several(
    documents: Sequence[str], part: str, name: str, one_sentence_per_line: bool = False
) -> list[str]:
    """The documents that are not blank; a single one is cut in pieces, as a book is.

    A wrong next sentence is taken from another document: from the right one's own it could be the
    right one.

    Args:
        documents: The documents.
        part: What they are for, for messages.
        name: What the text is called, for messages.
        one_sentence_per_line: Whether a document's lines are its sentences.

    Raises:
        DataError: If there is one document of one sentence alone.
    """
    found = [document for document in documents if document.strip()]
    if len(found) > 1:
        return found
    lines = found[0].splitlines() if one_sentence_per_line else list(sentences(found[0]))
    lines = [line for line in lines if line.strip()]
    if len(lines) < 2:
        raise DataError(
            f"{name}: the {part} text is one document of one sentence; a wrong next sentence comes "
            "from another document, so there must be two"
        )
    count = min(_PIECES, len(lines) // 2 if len(lines) > 3 else 2)
    print(f"{part}: one document, cut into {count} for next-sentence labels", file=sys.stderr)
    starts = [i * len(lines) // count for i in range(count + 1)]
    return ["\n".join(lines[a:b]) for a, b in itertools.pairwise(starts)]


def _vocabulary(
    path: Path, given: list[str] | None, size: int, corpus: texts.Corpus, recipe: Recipe
) -> list[str]:
    """The vocabulary that stands in `path`, put there if it does not yet."""
    if not path.exists():
        vocabulary = given or _learn(corpus, size, recipe.lower_case)
        shards.write_file(path, "".join(f"{token}\n" for token in vocabulary))
    return read_vocabulary(path)


def _learn(corpus: texts.Corpus, size: int, lower_case: bool) -> list[str]:
    if not any(character.isalnum() for text in corpus.train for character in text):
        raise DataError(f"{corpus.name}: there is no word to learn a vocabulary from")
    print(f"vocabulary: learning at most {size} tokens", flush=True)
    return learn_vocabulary(corpus.train, size, lower_case)


def _config(
    output: Path, counts: dict[str, int], vocabulary_size: int, recipe: Recipe
) -> dict[str, Any]:
    """The Model Garden's config of these data."""
    data: dict[str, dict[str, Any]] = {
        part: {
            "input_path": shards.pattern(output, part, count),
            "seq_length": recipe.seq_length,
            "max_predictions_per_seq": recipe.max_predictions_per_seq,
            "use_next_sentence_label": True,
            "is_training": part == "train",
        }
        for part, count in counts.items()
    }
    if recipe.dynamic:
        for part in data.values():
            part["vocab_file_path"] = str((output / "vocab.txt").resolve())
            part["masking_rate"] = recipe.masked_lm_prob
            part["use_whole_word_masking"] = recipe.whole_word_mask
    return {
        "task": {
            "model": {"encoder": {"type": "bert", "bert": {"vocab_size": vocabulary_size}}},
            "train_data": data["train"],
            "validation_data": data["validation"],
        }
    }
