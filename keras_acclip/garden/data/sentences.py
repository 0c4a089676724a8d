"""The sentences of a text, and files that hold a sentence a line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from keras_acclip.text import corpus as texts

_PARAGRAPH = re.compile(r"\n\s*\n")
# TensorFlow Text's sentence breakers end a sentence within "e.g." and "3.5".
_SENTENCE = re.compile(
    r"(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bvs\.)(?<!\bcf\.)(?<!\bDr\.)(?<!\bMr\.)(?<!\bMrs\.)"
    r"(?:(?<=[.!?])|(?<=[.!?][\"')\]]))\s+(?=[\"'(\[`]?[A-Z0-9])"
)


def sentences(document: str) -> Iterator[str]:
    """The sentences of a text, each with single spaces between its words.

    They end where a stop, a space and a capital or a digit meet, and at blank lines.

    Example:

    >>> list(sentences("It is 3.5, e.g. here. And more"))
    ['It is 3.5, e.g. here.', 'And more']
    """
    for paragraph in _PARAGRAPH.split(document):
        for sentence in _SENTENCE.split(" ".join(paragraph.split())):
            if sentence:
                yield sentence


def sentence_files(
    patterns: Sequence[str | Path],
    validation_patterns: Sequence[str | Path] = (),
    skip_unusable: bool = False,
) -> texts.Corpus:
    """A corpus from files as the Model Garden has them.

    They hold a sentence a line, and blank lines between documents.

    Args:
        patterns: Paths or globs of plain UTF-8 or gzip files.
        validation_patterns: The same for the held-out text. Without it every 20th document is
            held out.
        skip_unusable: Whether files that can't be used are left out, and named on stderr. Defaults
            to `False`.

    Returns:
        A `keras_acclip.text.corpus.Corpus`; a document's sentences are its lines.

    Raises:
        keras_acclip.text.corpus.TextError: If files are missing, empty or not text; the
            message names them all.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from keras_acclip.garden.data import sentence_files
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "train.txt").write_text("A cat sat.\\nIt slept.\\n\\nA dog ran.\\n")
    >>> _ = (folder / "dev.txt").write_text("A bird flew.\\n")
    >>> corpus = sentence_files([folder / "train.txt"], [folder / "dev.txt"])
    >>> len(corpus.train), len(corpus.validation)
    (2, 1)
    """
    found = texts.read_texts(patterns, skip_unusable)
    train = _documents(found.values())
    if validation_patterns:
        held_out_texts = texts.read_texts(validation_patterns, skip_unusable)
        validation = _documents(held_out_texts.values())
    else:
        held_out = texts.HELD_OUT_EVERY // 2
        validation = train[held_out :: texts.HELD_OUT_EVERY]
        del train[held_out :: texts.HELD_OUT_EVERY]
    return texts.Corpus(texts.shorten(found), tuple(train), tuple(validation))


def _documents(files: Iterable[str]) -> list[str]:
    documents = (document for text in files for document in _PARAGRAPH.split(text))
    return [document for document in documents if document.strip()]
