"""Every code block of the pages is run by a test, or says why not."""

import ast
import re

import pytest

from tests.unit.docs.pages import PAGES, ROOT, Block, blocks, prose, spans

BLOCKS = {name: blocks(text) for name, text in PAGES.items() if blocks(text)}
# Python: test_guides.py. Shell and YAML: test_commands.py. An indented block has no language that
# a test could go by.
LANGUAGES = {"python", "bash", "yaml"}


def test_the_pages_have_blocks():
    assert len(BLOCKS) > 15
    assert {block.language for found in BLOCKS.values() for block in found} == LANGUAGES | {""}


@pytest.mark.parametrize("page", sorted(BLOCKS))
def test_each_block_is_of_a_kind_that_tests_run_or_says_why_not(page):
    for block in BLOCKS[page]:
        assert block.not_run or block.language in LANGUAGES, block


@pytest.mark.parametrize("page", sorted(PAGES))
def test_no_block_is_html(page):
    assert "<pre" not in prose(PAGES[page])


@pytest.mark.parametrize("page", sorted(BLOCKS))
def test_python_can_be_read(page):
    for block in BLOCKS[page]:
        if block.language == "python":
            ast.parse(block.text)


# --- How they are found ---

PAGE = """# A page

~~~python
tilde
~~~

- an item

    ```py
    short
      indented
    ```

        deep

  more of the item

Text with `code`, and with ``code of `ticks` ``.

<!-- not run: it is long -->

````sh
``` no end
````

    indented

    further

End of `a \\| b`.
"""


def test_blocks_are_found_whatever_fences_them():
    assert blocks(PAGE) == [
        Block("python", "tilde\n", None),
        Block("py", "short\n  indented\n", None),
        Block("", "deep\n", None),
        Block("sh", "``` no end\n", "it is long"),
        Block("", "indented\n\nfurther\n", None),
    ]


def test_code_in_the_text_is_found():
    assert spans(PAGE) == ["code", "code of `ticks`", "a | b"]


def test_a_block_without_end_is_seen():
    with pytest.raises(AssertionError, match="not closed"):
        blocks("```python\nx\n")


# --- Pictures ---

PICTURE = re.compile(r"^!\[([^\]]*)\]\(([^)\s]+)\)(.*)$", re.MULTILINE)
CAPTION = re.compile(r"\n\n\*What to see: [^*]+\*(\n\n|\n?\Z)")
PICTURES = [
    (page, picture) for page, text in PAGES.items() for picture in PICTURE.finditer(prose(text))
]


def test_the_pages_have_pictures():
    shown = {page for page, _ in PICTURES}
    assert {"README.md", "docs/noise.md"} <= shown
    assert len([page for page in shown if page.startswith("docs/results/")]) > 10
    # Nor are there others, in HTML or within a line.
    for page, text in PAGES.items():
        assert "<img" not in prose(text)
        assert prose(text).count("![") == len([p for p, _ in PICTURES if p == page])


@pytest.mark.parametrize(
    ("page", "picture"), [pytest.param(*each, id=f"{each[0]}-{each[1][2]}") for each in PICTURES]
)
def test_a_picture_is_there_and_its_caption_says_what_to_see(page, picture):
    assert picture[1]
    assert (ROOT / page).parent.joinpath(picture[2]).exists()
    assert CAPTION.match(picture[3] + prose(PAGES[page])[picture.end() :])
