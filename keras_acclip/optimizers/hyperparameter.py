"""Attributes of an optimizer that stand in its rule."""

from __future__ import annotations

import dataclasses
from typing import Any, Generic, TypeVar, overload

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
