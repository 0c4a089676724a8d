"""Texts as token ids, and the segments in which a Transformer-XL reads them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_acclip.text import corpus
from keras_acclip.text.vocabulary import SPECIAL_TOKENS

from ..token_rows import token_rows

SEP = SPECIAL_TOKENS.index("[SEP]")


@dataclass(frozen=True)
class Text:
    """A text as token ids.

    Attributes:
        train: The documents to train on, int32 arrays.
        validation: The same, held out.
        vocabulary_size: Number of tokens.
        name: What the text is.
    """

    train: list[np.ndarray]
    validation: list[np.ndarray]
    vocabulary_size: int
    name: str

    def __str__(self):
        train, held_out = (sum(map(len, part)) for part in (self.train, self.validation))
        return f"{self.name}: {train:,} tokens to train on, {held_out:,} held out"


def load(options):
    """The text that the command line asks for, checked to be long enough.

    Args:
        options: Of `transformer_xl.py`.

    Raises:
        corpus.TextError: If a file can't be used; the message names it.
    """
    if options.ptb:
        text = penn_treebank(options.ptb)
    else:
        text = embedded_text(options.cache, options.vocabulary_size)
    for part, documents in (("training", text.train), ("held-out", text.validation)):
        if not segments_in(documents, vars(options)):
            raise corpus.TextError(
                f"{text.name}: too short: the {part} text has {sum(map(len, documents))} tokens; a "
                f"batch takes {options.batch_size} · ({options.target_length} + 1)"
            )
    return text


def embedded_text(cache, vocabulary_size):
    """The docstrings of `corpus.embedded_corpus` as word pieces, a document a module."""
    # Rows as `bert_pretraining` has them; without the first and last token they are the text.
    rows = token_rows(corpus.embedded_corpus(cache), vocabulary_size, 64, cache)

    def documents(part):
        stream = part[:, 1:-1].ravel().astype("int32")
        return np.split(stream, np.flatnonzero(stream == SEP) + 1)

    parts = (documents(rows.train), documents(rows.validation))
    return Text(*parts, len(rows.vocabulary), rows.source)


def penn_treebank(folder):
    """`ptb.train.txt` and `ptb.valid.txt` as words, one document each, `<eos>` after each line.

    A word of the held-out part that the other lacks becomes `<unk>`.

    Raises:
        corpus.TextError: If a file can't be used, or such a word occurs and there is no `<unk>`.
    """
    paths = [Path(folder) / f"ptb.{part}.txt" for part in ("train", "valid")]
    train, validation = ([*words(corpus.read_text(path))] for path in paths)
    identity = {word: i for i, (word, _) in enumerate(Counter(train).most_common())}
    unknown = set(validation) - set(identity)
    if unknown and "<unk>" not in identity:
        raise corpus.TextError(f"{paths[1]}: {min(unknown)!r} is not in {paths[0]}")
    documents = [
        np.array([identity.get(word, identity.get("<unk>")) for word in part], "int32")
        for part in (train, validation)
    ]
    return Text(*([document] for document in documents), len(identity), str(folder))


def words(text):
    """The words of a text, `<eos>` after each line."""
    for line in text.splitlines():
        yield from (*line.split(), "<eos>")


def contiguous_rows(documents, count):
    """Documents end to end, cut into so many rows, each a stretch of the text."""
    stream = np.concatenate(documents)
    length = len(stream) // count
    return stream[: count * length].reshape(count, length)


def segments_in(documents, settings):
    """How many segments the rows of such documents have."""
    row = sum(map(len, documents)) // settings["batch_size"]
    return max(0, row - 1) // settings["target_length"]


def segment(rows, number, length):
    """Segment number `number`: `length` tokens of each row, and the next one."""
    return rows[:, number * length : (number + 1) * length + 1]


def training_segments(documents, settings, seed, first):
    """Segments of training from number `first` on, without end, each with its number in its pass.

    Each pass over the text has the documents in another order, so that every optimizer sees the
    same, and a resumed run needs no state of the data to go on.

    Args:
        documents: As `Text.train`.
        settings: The values of `SCALES`.
        seed: An int.
        first: Number of the first segment.
    """
    count = segments_in(documents, settings)
    passed, start = divmod(first, count)
    while True:
        order = np.random.default_rng((seed, passed)).permutation(len(documents))
        rows = contiguous_rows([documents[i] for i in order], settings["batch_size"])
        for number in range(start, count):
            yield number, segment(rows, number, settings["target_length"])
        passed, start = passed + 1, 0


def validation_segments(documents, settings):
    """The first of the held-out segments, documents in an order that is always the same."""
    order = np.random.default_rng(0).permutation(len(documents))
    rows = contiguous_rows([documents[i] for i in order], settings["batch_size"])
    count = min(settings["validation_segments"], segments_in(documents, settings))
    return [segment(rows, number, settings["target_length"]) for number in range(count)]
