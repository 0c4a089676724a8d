"""The messages under "Limits and troubleshooting" are what the package says to a person."""

import ast
import re

import pytest

from tests.unit.docs.pages import PAGES, ROOT

ROWS = re.findall(
    r"^\| `(.*?)` \| .+ \|$", PAGES["docs/troubleshooting.md"], re.MULTILINE
)
# What hands a text to a person. An exception's class counts as such: it may be made apart from
# its `raise`.
SAYERS = re.compile(r"(Error|[Ww]arn|warning|^error|^fail|^print|^exit|^say|^notice)")


def said(source):
    """The texts that a source says: in what it raises, warns of, prints or ends a command with."""
    tree = ast.parse(source)
    spoken, names = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc:
            spoken.append(node.exc)
        elif isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if SAYERS.search(name):
                spoken.append(node)
    for part in spoken:
        names |= {n.id for n in ast.walk(part) if isinstance(n, ast.Name)}
    return [
        n.value
        for part in spoken
        for n in ast.walk(part)
        if isinstance(n, ast.Constant) and isinstance(n.value, str)
    ]

texts = "\n".join(t for p in (ROOT/"keras_acclip").rglob("*.py") for t in said(p.read_text()))
for row in ROWS:
    if row not in texts: print("MISSING", row)
