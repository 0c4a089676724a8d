"""What mkdocs does besides: pages from files outside this folder, and links to such files."""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
# Files of the repository that are pages of the site too.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/README.md": "examples.md",
}
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#:]+)(#[^)]*)?\)")


def on_files(files, config):
    """Adds the pages from outside."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    return files


def on_page_markdown(markdown, page, config, files):
    """Leads links from and to files outside the folder to their pages."""
    sources = {generated: source for source, generated in PAGES.items()}
    uri = page.file.src_uri
    return rewritten(markdown, sources.get(uri, f"docs/{uri}"), uri)


def rewritten(markdown, source, uri):
    """The text with links that hold on the site.

    Args:
        markdown: A page's text.
        source: The file that it stands in, from the repository's root; its links are from there.
        uri: The page, from the folder of pages.

    Returns:
        The text. A link to a file that is no page becomes the file's path in the repository.
    """

    def lead(match):
        text, target, anchor = match[1], match[2], match[3] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path.startswith("docs/"):
            page = path.removeprefix("docs/")
        elif path in PAGES:
            page = PAGES[path]
        elif (ROOT / path).exists():
            shown = text.strip("`")
            return f"`{path}`" if shown in path else f"{text} (`{path}`)"
        else:
            return match[0]
        if page.endswith((".py", ".jsonl")):
            return f"{text} (`{path}`)"
        start = posixpath.dirname(uri) or "."
        return f"[{text}]({posixpath.relpath(page, start)}{anchor})"

    return _LINK.sub(lead, markdown)
