"""The docstrings of Python's standard library and of installed packages.

They are read by parsing source files, never by importing them.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib.util
import sys
import sysconfig
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

# Left out: tests, whose docstrings are few, and what some distributions of Python ship separately.
_SKIPPED_FOLDERS = {
    *("__pycache__", "site-packages", "dist-packages", "test", "tests", "testing"),
    *("ensurepip", "idlelib", "lib2to3", "tkinter", "turtledemo"),
}


def gather_docstrings(
    packages: Iterable[str], progress: TextIO | None = sys.stderr
) -> dict[str, str]:
    """All docstrings of the standard library and of `packages`, each once.

    Args:
        packages: Names of installed packages.
        progress: Stream that gets one line a package. `None` for silence.

    Returns:
        dict from module name to its docstrings, joined by blank lines, in order of package and
        path. A docstring that several modules hold stays with the first.
    """
    documents, seen = dict[str, str](), set[str]()
    for package, root in _source_roots(packages).items():
        with _no_garbage_collection():
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


def docstrings(path: Path) -> list[str]:
    """The docstrings in a source file, module first. None where the file doesn't parse."""
    tree = _parse(path)
    found = (
        ast.get_docstring(node)
        for node in (_statements(tree) if tree else ())
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return [text for text in found if text]


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """The module and all its statements, breadth first; no expressions, which are most nodes."""
    todo = deque[ast.AST]([tree])
    while todo:
        node = todo.popleft()
        yield node
        for field in ("body", "handlers", "orelse", "finalbody", "cases"):
            children = getattr(node, field, None)
            if isinstance(children, list):
                todo.extend(children)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A context in which Python doesn't collect garbage.

    The collector goes through the nodes of each syntax tree again and again: parsing takes three
    times as long with it. A tree has no cycles that it would have to find.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def language_topics(standard_library: str | Path) -> dict[str, str]:
    """Python's help topics, `pydoc_data.topics`: dict from module-like name to text."""
    path = Path(standard_library) / "pydoc_data" / "topics.py"
    tree = _parse(path) if path.exists() else None
    tables = [
        ast.literal_eval(node.value)
        for node in (tree.body if tree else ())
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    ]
    return {f"pydoc_data.topics.{topic}": text for table in tables for topic, text in table.items()}


def _parse(path: Path) -> ast.Module | None:
    """The syntax tree of a source file, or None where this Python can't parse it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            return None


def _source_roots(packages: Iterable[str]) -> dict[str, Path]:
    """Dict from package name to folder; the standard library first, under the name ''."""
    roots = {"": Path(sysconfig.get_paths()["stdlib"])}
    for package in sorted(packages):
        spec = importlib.util.find_spec(package)
        if not spec or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"{package}: no package with source files")
        roots[package] = Path(spec.submodule_search_locations[0])
    return roots


def _source_files(root: Path) -> list[Path]:
    """A package's source files, in an order that no file system decides."""
    paths = (path.relative_to(root) for path in root.rglob("*.py"))
    return [root / p for p in sorted(paths, key=Path.as_posix) if not _SKIPPED_FOLDERS & {*p.parts}]


def _module_name(package: str, path: Path) -> str:
    parts = (package, *path.with_suffix("").parts)
    return ".".join(part for part in parts if part and part != "__init__")
