"""What mkdocs does besides: pages from files outside this folder, and links to such files."""

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
_LOG = logging.getLogger("mkdocs.hooks")
# Files of the repository that are pages of the site too.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/README.md": "examples.md",
}
_HREF = re.compile(r'href="([^":#?]+\.(?:md|ipynb))(#[^"]*)?"')
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


def on_page_content(html, page, config, files):
    """Leads the links of a notebook to pages: mkdocs sees its HTML alone, and leaves them."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html
    urls = {file.src_uri: file.url for file in files}
    return resolved(html, page.file.src_uri, page.file.url, urls)


def resolved(html, uri, url, urls):
    """The HTML of a notebook with links that hold on the site.

    Args:
        html: The page; its links are from file to file.
        uri: The notebook's file, from the folder of pages.
        url: Its page, from the site's root.
        urls: Dict from each file to its page.

    Returns:
        The HTML. A link to no page stays as it is, with a warning, at which a strict build fails.
    """

    def lead(match):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(uri), match[1]))
        if target not in urls:
            _LOG.warning("%s links to %s, which is no page", uri, match[1])
            return match[0]
        start = posixpath.normpath(url) if url.endswith("/") else posixpath.dirname(url)
        return f'href="{posixpath.relpath(urls[target] or ".", start or ".")}/{match[2] or ""}"'

    return _HREF.sub(lead, html)


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
