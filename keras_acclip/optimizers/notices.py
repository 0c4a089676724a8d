"""Says once why an optimizer's step is no XLA computation of its own."""

from __future__ import annotations

import logging

_said: set[tuple[str, str]] = set()


def not_compiled(method: str, reason: str, jit_compile: bool | str) -> None:
    """Logs it as a warning, once a process, where `jit_compile` allows the step to go without.

    Args:
        method: The optimizer's class.
        reason: Words that follow "…XLA computation: ".
        jit_compile: The optimizer's argument; nothing is said where it is `False`.

    Raises:
        ValueError: If it is `True`.
    """
    if jit_compile is True:
        raise ValueError(
            f"{method} can't run its step as one XLA computation: {reason}. "
            "Use jit_compile='auto' or False. Received: jit_compile=True"
        )
    if jit_compile and (method, reason) not in _said:
        _said.add((method, reason))
        logging.getLogger("keras_acclip").warning(
            "%s runs its step without an XLA computation of its own: %s.", method, reason
        )


def forget() -> None:
    """Lets everything be said once more."""
    _said.clear()
