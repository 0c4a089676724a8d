"""The messages under "Limits and troubleshooting" are what the package says to a person."""

import ast
import re

import pytest

from tests.unit.docs.pages import PAGES, ROOT

PAGE = PAGES["docs/troubleshooting.md"]
ROWS = [row.strip() for _, row in re.findall(r"^\| (`+)(.*?)\1 \| .+ \|$", PAGE, re.MULTILINE)]
# What hands a text to a person. A call of an exception's class counts: it may be raised elsewhere.
SAYS = re.compile(r"Error$|[Ww]arn|^(error|fail|print|exit)")


def said(source):
    """The texts that a source says: in what it raises, warns of, prints or ends a command with.

    The values in them are left out.
    """
    tree, spoken = ast.parse(source), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            spoken.append(node)
        elif isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if SAYS.search(name):
                spoken.append(node)
    # A text may be said by its name.
    names = {n.id for each in spoken for n in ast.walk(each) if isinstance(n, ast.Name)}
    for node in ast.walk(tree):
        text = isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.JoinedStr)
        if text and names & {getattr(target, "id", "") for target in node.targets}:
            spoken.append(node.value)
    constants = (n for each in spoken for n in ast.walk(each) if isinstance(n, ast.Constant))
    return {c.value for c in constants if isinstance(c.value, str)}


@pytest.fixture(scope="module")
def messages():
    sources = (path.read_text("utf-8") for path in (ROOT / "keras_acclip").rglob("*.py"))
    return set().union(*map(said, sources))


def test_the_page_has_messages():
    assert len(ROWS) > 25
    assert len(ROWS) == PAGE.count("\n| ") - PAGE.count("\n| message | the way out |")


@pytest.mark.parametrize("message", ROWS)
def test_a_message_is_the_package_s(message, messages):
    assert [text for text in messages if message in text]


def test_what_a_source_says_is_no_docstring_and_no_help():
    source = '''
"""Of the module."""
def f(x):
    """Of the function."""
    add("--x", help="of an option")
    unsaid, named = "assigned", "never said"
    message = "said by its name"
    print(message)
    warnings.warn(f"is {x}, warned")
    raise ValueError("raised" if x else f"{x} raised too")
'''
    assert said(source) == {"said by its name", "is ", ", warned", "raised", " raised too"}
