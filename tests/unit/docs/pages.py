"""What README, the site and the other pages for readers hold: blocks, code in the text, pictures.

A block is found whatever fences it, and wherever it is indented.
"""

import dataclasses
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
# By their paths from the root, as the tests' names have them.
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in (
        *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING")),
        ROOT / "examples/README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    )
}
_FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})\s*([^`]*)$")
_ITEM = re.compile(r"^ {0,3}(?:[-*+]|\d+[.)]) +\S")
_NOT_RUN = re.compile(r"<!-- not run: (\S.*\S) -->$")
_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block: its language ("" where it is only indented), text, and why it isn't run."""

    language: str
    text: str
    not_run: str | None


def blocks(text):
    """The blocks of a page, in their order."""
    return _split(text)[0]


def code(language, *, not_run=False):
    """The code of each page that has blocks of a language, with or without what isn't run.

    A page's blocks are read one after the other: later ones use what earlier ones set.
    """
    found = {
        name: [
            b.text for b in blocks(text) if b.language == language and (not_run or not b.not_run)
        ]
        for name, text in PAGES.items()
    }
    return {name: "\n".join(texts) for name, texts in found.items() if texts}


def prose(text):
    """A page without its blocks and comments."""
    return re.sub(r"<!--.*?-->", "", _split(text)[1], flags=re.DOTALL)


def spans(text):
    """The code in a page's sentences and tables."""
    found = (" ".join(code.split()) for _, code in _SPAN.findall(prose(text)))
    return [code.replace(r"\|", "|") for code in found]


def notebooks():
    """The text of each tutorial's cells, by the notebook's path."""
    return {
        path.relative_to(ROOT).as_posix(): "\n\n".join(
            "".join(cell["source"])
            for cell in json.loads(path.read_text("utf-8"))["cells"]
            if cell["cell_type"] == "markdown"
        )
        for path in sorted((ROOT / "docs/tutorials").glob("*.ipynb"))
    }


def _split(text):
    """The blocks, and the text around them."""
    found, outside = [], []
    lines, at, in_list = text.splitlines(), 0, False
    while at < len(lines):
        line, start = lines[at], at
        fence = _FENCE.match(line)
        blank_before = at == 0 or not lines[at - 1].strip()
        if fence:
            indent, marks, language = fence.groups()
            closing = re.compile(rf"^\s*{marks[0]}{{{len(marks)},}}\s*$")
            at += 1
            while at < len(lines) and not closing.match(lines[at]):
                at += 1
            assert at < len(lines), f"a block is not closed: {line}"
            inner = [each.removeprefix(indent) for each in lines[start + 1 : at]]
            found.append(_block(language.strip(), inner, lines[:start]))
            at += 1
        elif blank_before and line.startswith("        " if in_list else "    "):
            width = 8 if in_list else 4
            while at < len(lines) and (lines[at].startswith(" " * width) or not lines[at].strip()):
                at += 1
            found.append(_block("", [each[width:] for each in lines[start:at]], lines[:start]))
        else:
            if _ITEM.match(line):
                in_list = True
            elif line and not line.startswith(" ") and blank_before:
                in_list = False
            outside.append(line)
            at += 1
    return found, "\n".join(outside)


def _block(language, lines, before):
    mark = _NOT_RUN.search("\n".join(before).rstrip())
    return Block(language, "\n".join(lines).strip("\n") + "\n", mark and mark[1])
