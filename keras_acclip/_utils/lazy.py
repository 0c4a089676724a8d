"""Public names that load where they are first used, so that importing a package costs nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping


def attach(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Makes a package's `__getattr__` and `__dir__` (PEP 562) out of where its names stand.

    Type checkers and IDEs see the names by imports under `typing.TYPE_CHECKING` beside it.

    Args:
        package: The package's `__name__`.
        homes: Dict from a public name to the module that defines it, by its name in the package
            or by its whole name. A name whose home is the name itself is that module.

    Example:

    >>> __getattr__, __dir__ = attach(__name__, {"measure_noise": "measure", "tails": "tails"})
    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        module = importlib.import_module(home if "." in home else f"{package}.{home}")
        found = module if home == name else getattr(module, name)
        # Found without this function from now on.
        setattr(sys.modules[package], name, found)
        return found

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return load, names
