"""Has mkdocstrings show the examples of docstrings as code.

Keras's docstrings, and hence this package's, say "Example:", which griffe takes for a note: its
prompts would become quotations. It knows "Examples:", with what follows indented.
"""

import re

import griffe

_SECTION = re.compile(r"^Example:\n\n?((?:.+\n?)+)", re.MULTILINE)


def renamed(text):
    """A docstring with "Examples:" for "Example:", and what follows it indented."""

    def section(match):
        lines = match[1].splitlines()
        if not any(line.lstrip().startswith(">>>") for line in lines):
            return match[0]
        if not lines[0].startswith(" "):
            lines = [f"    {line}" for line in lines]
        return "\n".join(("Examples:", *lines, ""))

    return _SECTION.sub(section, text)


class Examples(griffe.Extension):
    """Renames the sections of each docstring that is loaded."""

    def on_object(self, *, obj, **kwargs):
        """Called for each name."""
        if obj.docstring:
            obj.docstring.value = renamed(obj.docstring.value)
