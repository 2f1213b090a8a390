"""Reading a settings class from the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import attrs

from hostler.errors import ConfigError

from ._kinds import Kind

_HIDDEN = "(hidden)"


def setting(kind: Kind, variable: str = "") -> dict[str, Any]:
    """The metadata of a field: its kind and its variable ("" = only code sets it)."""
    return {"kind": kind, "variable": variable}


@attrs.frozen(kw_only=True)
class EnvConfig:
    """Base of the settings classes.

    Making one, from the environment or in code, raises `ConfigError` for a value that its
    setting does not take, and for values that don't go together.
    """

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, **defaults: Any) -> Self:
        """Read the variables from ``env`` (default: the process's environment).

        ``defaults`` (by field) replace those of the class. A variable ``NAME`` that is not set is
        read from the file that ``NAME_FILE`` names (for secrets). White space around a value is
        dropped. Raises `ConfigError`. Blocks for the reading of those files; call it before the
        event loop has work to do.
        """
        source = os.environ if env is None else env
        values = dict(defaults)
        for field in _fields(cls):
            text = look_up(source, field.metadata["variable"])
            kind: Kind = field.metadata["kind"]
            if text is None or (not text and kind.blank_is_default):
                continue
            try:
                value = kind.parse(text)
            except ValueError:
                raise _error(field, text) from None
            if not kind.accepts(value):
                raise _error(field, text)
            values[field.name] = value
        return cls(**values)

    def __attrs_post_init__(self) -> None:
        for field in _fields(type(self)):
            value = getattr(self, field.name)
            if not field.metadata["kind"].accepts(value):
                raise _error(field, value)
        self._check_together()

    def _check_together(self) -> None:
        """Raise `ConfigError` for settings that are fine alone but not together."""


def _fields(cls: type[EnvConfig]) -> Iterator[attrs.Attribute[Any]]:
    return (field for field in attrs.fields(cls) if "kind" in field.metadata)


def look_up(env: Mapping[str, str], variable: str) -> str | None:
    """The text of ``variable``, or of the file that ``<variable>_FILE`` names; ``None`` if neither
    is set. Raises `ConfigError` for a file that can't be read."""
    if not variable:
        return None
    text = env.get(variable)
    if text is None and (path := env.get(f"{variable}_FILE")):
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            raise ConfigError(f"{variable}_FILE={path!r}: can't be read: {reason}") from error
    return None if text is None else text.strip()


def _error(field: attrs.Attribute[Any], value: object) -> ConfigError:
    shown = repr(value) if field.repr else _HIDDEN
    name = field.metadata["variable"] or field.name
    return ConfigError(f"{name}={shown}: takes {field.metadata['kind'].takes}")
