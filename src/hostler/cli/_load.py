"""Objects of the operator's own code, named ``module:attribute``."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from hostler.errors import ConfigError, HostlerError


def load_callable(name: str, option: str) -> Callable[..., Any]:
    """Import ``module:attribute`` (dots reach deeper), also from the working directory.

    Raises `ConfigError`, which names ``option``.
    """
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise ConfigError(f"{option} {name!r}: takes module:attribute")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except Exception as error:
        # Whatever the foreign module raises while it is imported is its own trouble.
        raise ConfigError(f"{option} {name!r}: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise ConfigError(f"{option} {name!r}: {type(found).__name__} can't be called")
    result: Callable[..., Any] = found
    return result


def make_loaded(name: str, option: str, *args: object) -> Any:
    """What the callable of that name makes of ``args``. Raises `ConfigError`."""
    make = load_callable(name, option)
    try:
        return make(*args)
    except HostlerError:  # says what is wrong
        raise
    except Exception as error:
        text = f"{option} {name!r}: {type(error).__name__}: {error}"
        if inside := traceback.extract_tb(error.__traceback__)[1:]:
            text += f" ({inside[-1].filename}, line {inside[-1].lineno})"
        raise ConfigError(text) from error
