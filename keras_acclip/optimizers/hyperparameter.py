"""Attributes of an optimizer that are checked when they are set, some of them its rule's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from keras_acclip._utils import arguments

T = TypeVar("T")


class Hyperparameter(Generic[T]):
    """An attribute that reads a field of `self.rule`, and that puts a new rule there when set.

    The new value is checked as the rule checks it, and holds from the next step on.

    Example:

    >>> class ACClip(Base):
    ...     beta_1 = Hyperparameter[float]()
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, optimizer: None, owner: type) -> Hyperparameter[T]: ...

    @overload
    def __get__(self, optimizer: Any, owner: type) -> T: ...

    def __get__(self, optimizer: Any, owner: type) -> T | Hyperparameter[T]:
        return self if optimizer is None else getattr(optimizer.rule, self._name)

    def __set__(self, optimizer: Any, value: T) -> None:
        optimizer.rule = dataclasses.replace(optimizer.rule, **{self._name: value})


class Checked(Generic[T]):
    """An attribute whose value is checked whenever it is set.

    Args:
        check: Function from the attribute's name and a value to the value to keep; it may raise.

    Example:

    >>> class ACClip(Base):
    ...     weight_decay = Checked(optional_rate)
    """

    def __init__(self, check: Callable[[str, Any], T]) -> None:
        self._check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, optimizer: None, owner: type) -> Checked[T]: ...

    @overload
    def __get__(self, optimizer: Any, owner: type) -> T: ...

    def __get__(self, optimizer: Any, owner: type) -> T | Checked[T]:
        if optimizer is None:
            return self
        if self._name not in vars(optimizer):
            raise AttributeError(f"{self._name} has not been set yet")
        return vars(optimizer)[self._name]

    def __set__(self, optimizer: Any, value: T) -> None:
        vars(optimizer)[self._name] = self._check(self._name, value)


def optional_rate(name: str, value: Any) -> float | None:
    """Returns `None`, or `value` as a float of at least 0."""
    return None if value is None else arguments.real(name, value, low=0.0)


def optional_length(name: str, value: Any) -> float | None:
    """Returns `None`, or `value` as a float above 0."""
    return None if value is None else arguments.positive(name, value)


def compiles(name: str, value: Any) -> Any:
    """Returns `value`, checked to be what Keras 3 takes as `jit_compile`."""
    return arguments.one_of(name, value, ("auto", True, False))
