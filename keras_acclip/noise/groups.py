"""A break-down of a gradient by groups of variables."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

Patterns: TypeAlias = Mapping[str, str] | Literal["layer"] | None
"""`None`, `"layer"`, or regular expressions on variable paths by name."""

Groups: TypeAlias = Literal["layer"] | Mapping[str, str] | Iterable[str]
"""`"layer"`, or regular expressions on variable paths, alone or by name."""

_REST = "rest"


def checked_groups(groups: Groups | None) -> Patterns:
    """Returns `groups` as `None`, `"layer"` or a dict from name to regular expression.

    Raises:
        ValueError: If it is none of these.
    """
    if groups is None:
        return None
    if groups == "layer":
        return "layer"
    if isinstance(groups, str):
        raise ValueError(
            "Argument `groups` must be None, 'layer', or regular expressions on variable paths, as "
            f"a list or as a dict's values. Received: {groups!r}"
        )
    patterns = groups if isinstance(groups, Mapping) else {p: p for p in groups}
    for pattern in patterns.values():
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(
                "Argument `groups` must be None, 'layer', or regular expressions on variable "
                f"paths, as a list or as a dict's values. Received: {pattern!r} ({error})"
            ) from error
    return patterns


def divide(paths: Sequence[str], groups: Patterns) -> tuple[list[str], list[list[int]]]:
    """Returns the names of the groups, and the positions of each group's variables.

    Args:
        paths: The variables' paths.
        groups: As `checked_groups` returns it.

    Raises:
        ValueError: If a regular expression is left without a variable.
    """
    if groups is None:
        return ["all"], [list(range(len(paths)))]
    if groups == "layer":
        common = os.path.commonpath([os.path.dirname(path) for path in paths])
        shared = len(common.split("/")) if common else 0
        names = ["/".join(path.split("/")[: shared + 1]) for path in paths]
    else:
        names = [
            next((name for name, pattern in groups.items() if re.search(pattern, path)), _REST)
            for path in paths
        ]
        for name, pattern in groups.items():
            if name not in names:
                raise ValueError(
                    f"Argument `groups`: no variable is left for {pattern!r}. Variable paths are: "
                    f"{', '.join(paths)}"
                )
    order = list(dict.fromkeys(names))
    return order, [[i for i, n in enumerate(names) if n == name] for name in order]
