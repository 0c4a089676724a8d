"""Text to pretrain on, with a held-out part.

The default text is one that every machine has: the docstrings of Python's standard library and of
the installed packages, about 20 MB of technical English. Docstrings are read by parsing source
files, never by importing them. For given versions of Python and of those packages the text and its
held-out part are the same.

Any other text comes from files: plain UTF-8 or gzip.
"""

import ast
import functools
import glob
import gzip
import hashlib
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import re
import sys
import sysconfig
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

from keras_acclip._utils.files import write_atomically

PACKAGES = ("keras", "keras_hub", "matplotlib", "numpy", "scipy", "tensorflow")
HELD_OUT_EVERY = 20  # One part in 20 of a text is held out.

_FORMAT = 1  # Part of every cache key: raise it when the text or the rows are made differently.
_PIECES_PER_FILE = 100
# Left out: tests, whose docstrings are few, and what some distributions of Python ship separately.
_SKIPPED_FOLDERS = {
    *("__pycache__", "site-packages", "dist-packages", "test", "tests", "testing"),
    *("ensurepip", "idlelib", "lib2to3", "tkinter", "turtledemo"),
}


class TextError(ValueError):
    """A text that can't be trained on; the message names the file and says why."""


@dataclass(frozen=True)
class Corpus:
    """Documents to train on and documents held out, in a fixed order."""

    name: str
    train: tuple[str, ...]
    validation: tuple[str, ...]

    @functools.cached_property
    def fingerprint(self):
        """First 16 hexadecimal digits of the SHA-256 of all the text."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation):
            digest.update(json.dumps(part).encode())
        return digest.hexdigest()[:16]


def default_cache_dir():
    """`$XDG_CACHE_HOME/keras-acclip`, or `~/.cache/keras-acclip` where that is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "keras-acclip"


# --- The embedded corpus ---------------------------------------------------------------------


def embedded_corpus(cache_dir, packages=PACKAGES):
    """Docstrings of Python's standard library and of installed packages, one document a module.

    The modules whose name hashes to 0 (mod 20) are held out. Gathered once for given versions,
    then read from `cache_dir`.

    Args:
        cache_dir: Folder to keep the text in.
        packages: Names of the packages. Defaults to `PACKAGES`.

    Returns:
        A `Corpus`.

    Raises:
        TextError: If one of the packages is not installed.
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


def gather_docstrings(packages, progress=sys.stderr):
    """All docstrings of the standard library and of `packages`, each once.

    Args:
        packages: Names of installed packages.
        progress: Stream that gets one line a package. `None` for silence.

    Returns:
        dict from module name to its docstrings, joined by blank lines, in order of package and
        path. A docstring that several modules hold stays with the first.
    """
    documents, seen = {}, set()
    for package, root in _source_roots(packages).items():
        for path in _source_files(root):
            module = _module_name(package, path.relative_to(root))
            fresh = [text for text in docstrings(path) if text not in seen]
            seen.update(fresh)
            if fresh:
                documents[module] = "\n\n".join(fresh)
        if package == "":
            documents.update(language_topics(root))
        if progress:
            size = sum(map(len, documents.values())) / 1e6
            print(f"docstrings: {package or 'Python'} read, {size:.1f} MB", file=progress)
    return documents


def docstrings(path):
    """The docstrings in a source file, module first. None where the file doesn't parse."""
    tree = _parse(path)
    definitions = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in ast.walk(tree) if isinstance(node, definitions)) if tree else ()
    return [text for text in map(ast.get_docstring, nodes) if text]


def language_topics(standard_library):
    """Python's help topics, `pydoc_data.topics`: dict from module-like name to text."""
    path = Path(standard_library) / "pydoc_data" / "topics.py"
    tree = _parse(path) if path.exists() else None
    tables = [
        ast.literal_eval(node.value)
        for node in (tree.body if tree else ())
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    ]
    return {f"pydoc_data.topics.{topic}": text for table in tables for topic, text in table.items()}


def _parse(path):
    """The syntax tree of a source file, or None where this Python can't parse it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            return None


def _source_roots(packages):
    """Dict from package name to folder; the standard library first, under the name ''."""
    roots = {"": Path(sysconfig.get_paths()["stdlib"])}
    for package in sorted(packages):
        roots[package] = Path(importlib.util.find_spec(package).submodule_search_locations[0])
    return roots


def _source_files(root):
    """A package's source files, in an order that no file system decides."""
    paths = (path.relative_to(root) for path in root.rglob("*.py"))
    return [root / p for p in sorted(paths, key=Path.as_posix) if not _SKIPPED_FOLDERS & {*p.parts}]


def _module_name(package, path):
    parts = (package, *path.with_suffix("").parts)
    return ".".join(part for part in parts if part and part != "__init__")


def versions(packages):
    """Dict from "Python" and each package to the versions installed, for `cache_key`."""
    distributions = importlib.metadata.packages_distributions()
    found = {"Python": platform.python_version()}
    for package in packages:
        if package not in distributions:
            raise TextError(f"{package}: not installed; the embedded text needs its docstrings")
        found[package] = [importlib.metadata.version(d) for d in distributions[package]]
    return found


# --- Text files ------------------------------------------------------------------------------


def text_files(patterns, validation_patterns=()):
    """A corpus from text files.

    Args:
        patterns: Paths or globs of plain UTF-8 or gzip files.
        validation_patterns: The same for the held-out text. Without it each file is cut into 100
            pieces and every 20th is held out.

    Returns:
        A `Corpus`.

    Raises:
        TextError: If a file is missing, empty, not text, or not a gzip file though named `.gz`.
    """
    paths = expand(patterns)
    texts = [read_text(path) for path in paths]
    if validation_patterns:
        train, validation = texts, [read_text(path) for path in expand(validation_patterns)]
    else:
        pieces = [list(enumerate(_pieces(text, _PIECES_PER_FILE))) for text in texts]
        held_out = HELD_OUT_EVERY // 2
        train = [p for file in pieces for i, p in file if i % HELD_OUT_EVERY != held_out]
        validation = [p for file in pieces for i, p in file if i % HELD_OUT_EVERY == held_out]
    return Corpus(", ".join(map(str, paths)), tuple(train), tuple(validation))


def read_text(path):
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
        raise TextError(f"{path}: can't be read: {error}") from error
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


def expand(patterns):
    """The files that paths and globs name, in order, each once.

    Raises:
        TextError: If a pattern names no file.
    """
    paths = []
    for pattern in patterns:
        found = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))
        if not found:
            raise TextError(f"{pattern}: no such file")
        paths += found
    return list(dict.fromkeys(map(Path, paths)))


def excerpt(corpus, characters):
    """A part of a corpus: as many whole documents as it takes, chosen by their text alone.

    Args:
        corpus: A `Corpus`.
        characters: How long the training text must be, if there is that much. The held-out text
            has one character for every `HELD_OUT_EVERY` of them.

    Returns:
        A `Corpus`, its documents in the order that they had.
    """
    return Corpus(
        name=f"{characters:,} characters of {corpus.name}",
        train=_documents_up_to(corpus.train, characters),
        validation=_documents_up_to(corpus.validation, characters // HELD_OUT_EVERY),
    )


def _documents_up_to(documents, characters):
    by_text = sorted(range(len(documents)), key=lambda i: zlib.crc32(documents[i].encode()))
    lengths = itertools.accumulate((len(documents[i]) for i in by_text), initial=0)
    taken = sum(length < characters for length in itertools.islice(lengths, len(documents)))
    return tuple(documents[i] for i in sorted(by_text[:taken]))


def _pieces(text, count):
    """`text` cut into about `count` pieces of like length, each cut at white space."""
    cuts = {0, len(text)}
    for i in range(1, count):
        space = re.compile(r"\s").search(text, i * len(text) // count)
        cuts.add(space.end() if space else len(text))
    cuts = sorted(cuts)
    return [text[a:b] for a, b in itertools.pairwise(cuts)]


def cache_key(settings):
    """16 hexadecimal digits that differ for different settings, for the name of a cache file."""
    text = json.dumps([_FORMAT, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
