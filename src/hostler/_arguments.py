"""Checks of arguments and extensions: what is wrong, in words, before anything starts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TypeVar

from .errors import ConfigError

_T = TypeVar("_T")


def check(where: str, *, optional: bool = False, **arguments: tuple[object, type]) -> None:
    """Raise `ConfigError` unless each argument, ``name=(value, class)``, is an instance of its
    class. With ``optional`` it may be ``None``. ``where`` is the function that got them."""
    for name, (value, kind) in arguments.items():
        if not (isinstance(value, kind) or (optional and value is None)):
            raise ConfigError(f"{where}: {name}: takes {_a(kind.__name__)}, not {told(value)}")


def all_of(where: str, values: Iterable[_T], kind: type[_T]) -> tuple[_T, ...]:
    """``values`` as a tuple. Raises `ConfigError` unless it is a list of instances of ``kind``.
    A text is no list of texts."""
    kinds = "texts" if kind is str else f"{kind.__name__} objects"
    return _listed(where, values, lambda value: isinstance(value, kind), kinds)


def all_callable(where: str, values: Iterable[_T]) -> tuple[_T, ...]:
    """``values`` as a tuple. Raises `ConfigError` unless it is a list of what can be called."""
    return _listed(where, values, callable, "callables")


def _listed(
    where: str, values: Iterable[_T], good: Callable[[object], bool], kinds: str
) -> tuple[_T, ...]:
    if good(values) or isinstance(values, str) or not isinstance(values, Iterable):
        raise ConfigError(f"{where}: takes a list of {kinds}, not {told(values)}")
    found = tuple(values)
    for value in found:
        if not good(value):
            raise ConfigError(f"{where}: takes {kinds}, not {told(value)}")
    return found


def told(value: object) -> str:
    """What ``value`` is, and what to do about it if that is a common mistake."""
    if value is None:
        return "None"
    if isinstance(value, str):
        return f"the text {value!r}"
    if inspect.isclass(value):
        return f"the class {value.__name__}: give an object of it"
    if hasattr(value, "__aenter__") or hasattr(value, "__enter__"):
        return "a context manager that was not entered: give what `async with ... as` yields"
    return _a(type(value).__name__)


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOaeio' else 'a'} {name}"
