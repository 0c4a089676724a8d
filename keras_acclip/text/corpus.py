"""Text to pretrain on, with a held-out part.

The default text is one that every machine has: the docstrings of Python's standard library and of
the installed packages, about 20 MB of technical English. For given versions of Python and of those
packages the text and its held-out part are the same.

Any other text comes from files: plain UTF-8 or gzip.
"""

from __future__ import annotations

import codecs
import functools
import glob
import gzip
import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_acclip._utils.files import write_atomically
from keras_acclip.text.docstrings import gather_docstrings

PACKAGES = ("keras", "keras_hub", "matplotlib", "numpy", "scipy", "tensorflow")
HELD_OUT_EVERY = 20  # One part in 20 of a text is held out.

_FORMAT = 1  # Part of every cache key: raise it when the text or the rows are made differently.
_PIECES_PER_FILE = 100


class TextError(ValueError):
    """A text that can't be trained on; the message names the file and says why.

    Example:

    >>> from keras_acclip.text.corpus import TextError, text_files
    >>> try:
    ...     text_files(["missing.txt"])
    ... except TextError as error:
    ...     print(error)
    missing.txt: no such file
    """


@dataclass(frozen=True)
class Corpus:
    """Documents to train on and documents held out, in a fixed order.

    Example:

    >>> from keras_acclip.text.corpus import Corpus
    >>> corpus = Corpus("mine", train=("A cat sat.", "It slept."), validation=("A dog ran.",))
    >>> len(corpus.train), len(corpus.fingerprint)
    (2, 16)
    """

    name: str
    train: tuple[str, ...]
    validation: tuple[str, ...]

    @functools.cached_property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of all the text."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation):
            digest.update(json.dumps(part).encode())
        return digest.hexdigest()[:16]


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/keras-acclip`, or `~/.cache/keras-acclip` where that is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "keras-acclip"


# --- The embedded corpus ---------------------------------------------------------------------


def embedded_corpus(cache_dir: str | Path, packages: Sequence[str] = PACKAGES) -> Corpus:
    """Docstrings of Python's standard library and of installed packages, one document a module.

    The modules whose name hashes to 0 (mod 20) are held out. Gathered once for given versions,
    then read from `cache_dir`.

    Args:
        cache_dir: Folder to keep the text in.
        packages: Names of the packages. Defaults to `PACKAGES`.

    Raises:
        TextError: If one of the packages is not installed.

    Example:

    >>> import tempfile
    >>> from keras_acclip.text.corpus import embedded_corpus
    >>> corpus = embedded_corpus(tempfile.mkdtemp(), packages=["yaml"])
    >>> len(corpus.train) > len(corpus.validation) > 0
    True
    """
    path = Path(cache_dir) / f"docstrings-{cache_key(versions(packages))}.json.gz"
    if path.exists():
        documents = json.loads(gzip.decompress(path.read_bytes()))
    else:
        documents = gather_docstrings(packages)
        write_atomically(path, gzip.compress(json.dumps(documents).encode(), 1, mtime=0))
    held_out = {name for name in documents if zlib.crc32(name.encode()) % HELD_OUT_EVERY == 0}
    return Corpus(
        name="docstrings of Python {} and {}".format(
            platform.python_version(), ", ".join(packages)
        ),
        train=tuple(text for name, text in documents.items() if name not in held_out),
        validation=tuple(text for name, text in documents.items() if name in held_out),
    )


def versions(packages: Iterable[str]) -> dict[str, str | list[str]]:
    """Dict from "Python" and each package to the versions installed, for `cache_key`."""
    distributions = importlib.metadata.packages_distributions()
    found: dict[str, str | list[str]] = {"Python": platform.python_version()}
    for package in packages:
        if package not in distributions:
            raise TextError(f"{package}: not installed; the embedded text needs its docstrings")
        found[package] = [importlib.metadata.version(d) for d in distributions[package]]
    return found


# --- Text files ------------------------------------------------------------------------------


def text_files(
    patterns: Iterable[str | Path],
    validation_patterns: Sequence[str | Path] = (),
    skip_unusable: bool = False,
) -> Corpus:
    """A corpus from text files.

    Args:
        patterns: Paths or globs of plain UTF-8 or gzip files.
        validation_patterns: The same for the held-out text. Without it each file is cut into 100
            pieces and every 20th is held out.
        skip_unusable: Whether files that can't be used are left out, and named on stderr. Defaults
            to `False`.

    Raises:
        TextError: If files are missing, empty, not text, or not gzip files though named `.gz`; the
            message names them all.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from keras_acclip.text.corpus import text_files
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.txt").write_text("A cat sat.")
    >>> _ = (folder / "b.txt").write_text("A dog ran.")
    >>> text_files([folder / "a.txt"], [folder / "b.txt"]).train
    ('A cat sat.',)
    """
    texts = read_texts(patterns, skip_unusable)
    name = shorten(texts)
    if validation_patterns:
        train = list(texts.values())
        validation = list(read_texts(validation_patterns, skip_unusable).values())
    else:
        pieces = [piece for text in texts.values() for piece in _pieces(text)]
        train = [piece for piece, held_out in pieces if not held_out]
        validation = [piece for piece, held_out in pieces if held_out]
    return Corpus(name, tuple(train), tuple(validation))


def whole_files(
    patterns: Iterable[str | Path],
    validation_patterns: Sequence[str | Path] = (),
    skip_unusable: bool = False,
) -> Corpus:
    """A corpus from text files that are a document each, as next sentences need it.

    Args:
        patterns: As `text_files` takes them.
        validation_patterns: The same for the held-out text. Without it a file's held-out pieces
            are one document and the rest of it is another, with blank lines in the gaps.
        skip_unusable: As `text_files` takes it.

    Raises:
        TextError: As `text_files` raises it.
    """
    texts = read_texts(patterns, skip_unusable)
    if validation_patterns:
        held_out = read_texts(validation_patterns, skip_unusable)
        return Corpus(shorten(texts), tuple(texts.values()), tuple(held_out.values()))
    parts: dict[bool, list[str]] = {False: [], True: []}
    for text in texts.values():
        runs: dict[bool, list[str]] = {False: [], True: []}
        for held_out, run in itertools.groupby(_pieces(text), key=lambda pair: pair[1]):
            runs[held_out].append("".join(piece for piece, _ in run))
        for held_out, found in runs.items():
            parts[held_out].append("\n\n".join(found))
    return Corpus(shorten(texts), tuple(parts[False]), tuple(parts[True]))


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """The pieces of a file, and whether each is held out."""
    for number, piece in enumerate(cut(text, _PIECES_PER_FILE)):
        yield piece, number % HELD_OUT_EVERY == HELD_OUT_EVERY // 2


def shorten(names: Iterable[object]) -> str:
    """Names with commas between them; of more than three the first two, and how many more."""
    words = list(map(str, names))
    if len(words) > 3:
        words = [*words[:2], f"{len(words) - 2:,} more"]
    return ", ".join(words)


def read_texts(patterns: Iterable[str | Path], skip_unusable: bool = False) -> dict[Path, str]:
    """The texts of the files that paths and globs name; of the same text in two files the first.

    Args:
        patterns: Paths or globs.
        skip_unusable: Whether files that are missing or can't be used are left out, and named on
            stderr.

    Raises:
        TextError: If files are missing or can't be used, or none can; the message names them all.
    """
    paths, faults = _named(patterns)
    texts: dict[Path, str] = {}
    seen: dict[str, Path] = {}
    for path in paths:
        try:
            text = read_text(path)
        except TextError as error:
            faults.append(str(error))
            continue
        first = seen.setdefault(text, path)
        if first is path:
            texts[path] = text
        else:
            print(f"{path}: the same text as {first}, taken once", file=sys.stderr)
    if skip_unusable and texts:
        for fault in faults:
            print(f"skipped: {fault}", file=sys.stderr)
        return texts
    them = "it" if len(faults) == 1 else "them"
    way_out = f"; --skip_unusable goes on without {them}" if texts else ""
    if len(faults) == 1:
        raise TextError(faults[0] + way_out)
    if faults:
        listed = "".join(f"\n  {fault}" for fault in faults)
        raise TextError(f"{len(faults)} input files can't be used{way_out}:{listed}")
    return texts


def read_text(path: str | Path) -> str:
    """The text of a plain or gzip file, after checking that it is text.

    Raises:
        TextError: If the file is missing, empty, not text, or not a gzip file though named `.gz`.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        what = getattr(error, "strerror", None) or error
        raise TextError(f"{path}: can't be read: {what}") from error
    if encoding := _other_encoding(data):
        raise TextError(f"{path}: {encoding} text: save it as UTF-8")
    if b"\0" in data:
        raise TextError(f"{path}: not a text file: it holds a zero byte at {data.index(0)}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise TextError(f"{path}, line {line}: not UTF-8 text: {error}") from error
    if not text.strip():
        raise TextError(f"{path}: the file is empty")
    return text


def _other_encoding(data: bytes) -> str | None:
    """The name of an encoding that isn't UTF-8, by its mark or by zeros in every second place."""
    for mark, name in (
        (codecs.BOM_UTF32_LE, "UTF-32"),
        (codecs.BOM_UTF32_BE, "UTF-32"),
        (codecs.BOM_UTF16_LE, "UTF-16"),
        (codecs.BOM_UTF16_BE, "UTF-16"),
    ):
        if data.startswith(mark):
            return name
    start = data[:1000] if len(data) > 8 else b""
    odd, even = start[1::2], start[::2]
    for zeros, others in ((odd, even), (even, odd)):
        if zeros and zeros.count(0) > 0.8 * len(zeros) and 0 not in others:
            return "UTF-16"
    return None


def _named(patterns: Iterable[str | Path]) -> tuple[list[Path], list[str]]:
    """The files that paths and globs name, in order, each once, and what is wrong with the rest.

    A folder is skipped where a glob matches it.
    """
    paths: dict[Path, Path] = {}
    faults = []
    for pattern in patterns:
        if not str(pattern).strip():
            faults.append("an empty path")
            continue
        if Path(pattern).is_dir():
            faults.append(f"{pattern}: a folder; name its files, such as {Path(pattern, '*.txt')}")
            continue
        exists = Path(pattern).exists()
        matched = [pattern] if exists else sorted(glob.glob(str(pattern), recursive=True))
        found = [Path(match) for match in matched if not Path(match).is_dir()]
        if not found:
            what = "matches folders only" if matched else "no such file"
            faults.append(f"{pattern}: {what}")
        for path in found:
            if not exists and path.exists() and not path.is_file():
                faults.append(f"{path}: a pipe, a socket or a device, not a file")
                continue
            paths.setdefault(path.resolve(), path)
    return list(paths.values()), faults


def excerpt(corpus: Corpus, characters: int) -> Corpus:
    """A part of a corpus: as many whole documents as it takes, chosen by their text alone.

    Args:
        corpus: A `Corpus`.
        characters: How long the training text must be, if there is that much. The held-out text
            has one character for every `HELD_OUT_EVERY` of them.

    Returns:
        The documents, in the order that they had.

    Example:

    >>> from keras_acclip.text.corpus import Corpus, excerpt
    >>> corpus = Corpus("mine", train=("A cat sat.",) * 10, validation=("A dog ran.",))
    >>> len(excerpt(corpus, 25).train)
    3
    """
    return Corpus(
        name=f"{characters:,} characters of {corpus.name}",
        train=_documents_up_to(corpus.train, characters),
        validation=_documents_up_to(corpus.validation, characters // HELD_OUT_EVERY),
    )


def _documents_up_to(documents: Sequence[str], characters: int) -> tuple[str, ...]:
    by_text = sorted(range(len(documents)), key=lambda i: zlib.crc32(documents[i].encode()))
    lengths = itertools.accumulate((len(documents[i]) for i in by_text), initial=0)
    taken = sum(length < characters for length in itertools.islice(lengths, len(documents)))
    return tuple(documents[i] for i in sorted(by_text[:taken]))


def cut(text: str, count: int) -> list[str]:
    """`text` cut into about `count` pieces of like length, each cut at white space."""
    cuts = {0, len(text)}
    for i in range(1, count):
        space = re.compile(r"\s").search(text, i * len(text) // count)
        cuts.add(space.end() if space else len(text))
    return [text[a:b] for a, b in itertools.pairwise(sorted(cuts))]


def cache_key(settings: object) -> str:
    """16 hexadecimal digits that differ for different settings, for the name of a cache file."""
    text = json.dumps([_FORMAT, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
