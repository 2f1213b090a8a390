"""Reading a settings class from the environment, by Go's rules, and describing it.

A `SettingType` parses one sort of setting and checks a value that was given in code. Parsers raise
`ValueError`; `EnvConfig` names the variable.
"""

from __future__ import annotations

import ast
import inspect
import math
import os
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import attrs

from ..errors import ConfigError

_HIDDEN = "(hidden)"


_Value = TypeVar("_Value")


def setting(
    kind: SettingType, default: _Value, *, in_code: bool = False, secret: bool = False
) -> _Value:
    """Declare a field of a settings class. Its variable is ``FN_`` and its name in upper case.

    ``in_code`` means that there is no variable; a ``secret`` is shown nowhere.
    """
    metadata = {"kind": kind, "in_code": in_code}
    field: _Value = attrs.field(default=default, repr=not secret, metadata=metadata)
    return field


def variable_of(field: attrs.Attribute[Any]) -> str:
    """The environment variable of a field, "" if only code sets it."""
    return "" if field.metadata["in_code"] else f"FN_{field.name.upper()}"


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
        for field in attrs.fields(cls):
            text = look_up(source, variable_of(field))
            kind: SettingType = field.metadata["kind"]
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
        for field in attrs.fields(type(self)):
            value = getattr(self, field.name)
            if not field.metadata["kind"].accepts(value):
                raise _error(field, value)
        self._check_together()

    def _check_together(self) -> None:
        """Raise `ConfigError` for settings that are fine alone but not together."""


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
    name = variable_of(field) or field.name
    return ConfigError(f"{name}={shown}: takes {field.metadata['kind'].takes}")


_UINT64_MAX = 2**64 - 1
_INT64_MAX = 2**63 - 1

_MAX_MSECS = _INT64_MAX // 1_000_000
"""More milliseconds don't fit Go's duration, which counts nanoseconds: Fn means "never" by it."""

_UNSIGNED = re.compile(r"[0-9]+", re.ASCII)
_SIGNED = re.compile(r"[+-]?[0-9]+", re.ASCII)
_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)

_UNIT_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,  # the Greek letter; above is the micro sign
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}

_BOOLS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}


@attrs.frozen
class SettingType:
    """One sort of setting."""

    takes: str
    """What it takes, for error texts and the reference page."""
    parse: Callable[[str], Any]
    """Trimmed text to value; raises `ValueError`."""
    accepts: Callable[[Any], bool]
    """Whether a value, however it was made, may be used."""
    blank_is_default: bool = True
    """Whether a variable that is set but empty means the default; if not, it is parsed."""


def parse_bool(text: str) -> bool:
    """Go's ``strconv.ParseBool``."""
    if text not in _BOOLS:
        raise ValueError(text)
    return _BOOLS[text]


def parse_unsigned(text: str) -> int:
    """Go's ``strconv.ParseUint`` in base 10 for 64 bits: digits only."""
    return _whole(text, _UNSIGNED, 0, _UINT64_MAX)


def parse_signed(text: str) -> int:
    """Go's ``strconv.ParseInt`` in base 10 for 64 bits."""
    return _whole(text, _SIGNED, -_INT64_MAX - 1, _INT64_MAX)


def _whole(text: str, form: re.Pattern[str], low: int, high: int) -> int:
    if not form.fullmatch(text) or len(text) > 4096 or not low <= (number := int(text)) <= high:
        raise ValueError(text)
    return number


def parse_milliseconds(text: str) -> float:
    """A signed integer; negative, or more than a Go duration holds, is infinite."""
    number = parse_signed(text)
    return math.inf if number < 0 or number > _MAX_MSECS else float(number)


def parse_duration(text: str) -> float:
    """Seconds of Go's ``time.ParseDuration`` (``1h30m``, ``300ms``), without a sign."""
    if text == "0":
        return 0.0
    seconds, end = 0.0, 0
    for part in _DURATION_PART.finditer(text):
        if part.start() != end:
            break
        seconds += float(part[1]) * _UNIT_SECONDS[part[2]]
        end = part.end()
    if not text or end != len(text) or seconds * 1e9 > _INT64_MAX:
        raise ValueError(text)
    return seconds


def parse_seconds(text: str) -> float:
    """Whole seconds or a Go duration."""
    return float(parse_unsigned(text)) if _UNSIGNED.fullmatch(text) else parse_duration(text)


def is_number(value: object) -> bool:
    """Whether a value may be a time or a share: a number that is no truth value."""
    return isinstance(value, float | int) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_texts(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, str) and item for item in value)


def number(
    low: int = 0,
    high: int = _UINT64_MAX,
    *,
    blank_is_default: bool = True,
    optional: bool = False,
) -> SettingType:
    """A whole number from ``low`` to ``high``; in code ``None``, too, if it is ``optional``."""
    takes = f"a whole number from {low}"
    if high < _UINT64_MAX:
        takes += f" to {high}"

    def accepts(value: Any) -> bool:
        is_whole = isinstance(value, int) and is_number(value)
        return (optional and value is None) or (is_whole and low <= value <= high)

    return SettingType(takes, parse_unsigned, accepts, blank_is_default)


def choice(*values: str) -> SettingType:
    """One of ``values``, upper or lower case."""
    return SettingType("one of " + ", ".join(values), str.lower, lambda value: value in values)


def _split_tokens(text: str) -> tuple[str, ...]:
    tokens = WORDS.parse(text)
    if not tokens:
        raise ValueError("there is none")
    return tuple(tokens)


def _split_comma(text: str) -> tuple[str, ...]:
    return tuple(item for part in text.split(",") if (item := part.strip()))


FLAG = SettingType(
    "1, t, T, TRUE, true, True or 0, f, F, FALSE, false, False",
    parse_bool,
    lambda value: isinstance(value, bool),
    blank_is_default=False,
)

AUTO: Final = "auto"
"""Of a flag: what is best for the case."""

FLAG_OR_AUTO = SettingType(
    f"{FLAG.takes}, or auto",
    lambda text: AUTO if text.lower() == AUTO else parse_bool(text),
    lambda value: isinstance(value, bool) or value == AUTO,
    blank_is_default=False,
)

OPTIONAL_FLAG = SettingType(
    FLAG.takes,
    parse_bool,
    lambda value: value is None or isinstance(value, bool),
    blank_is_default=False,
)

SHARE = SettingType(
    "a number from 0 to 1", float, lambda value: is_number(value) and 0 <= value <= 1
)
TEXT = SettingType("any text", str, _is_text)

NON_EMPTY = SettingType(
    "a text that is not empty", str, lambda value: _is_text(value) and bool(value)
)

ABSOLUTE_PATH = SettingType(
    "an absolute path, or nothing",
    str,
    lambda value: _is_text(value) and (not value or value.startswith("/")),
)

WORDS = SettingType("a list separated by white space", lambda text: tuple(text.split()), _is_texts)
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,4096}", re.ASCII)

TOKENS = SettingType(
    "tokens separated by white space, each of 16 letters, digits and ._~+/=- at least",
    _split_tokens,
    lambda value: _is_texts(value) and all(map(_TOKEN.fullmatch, value)),
    blank_is_default=False,  # nobody means by it that everybody may do everything
)

VISIBLE = SettingType(
    "a text of visible ASCII characters, or nothing",
    str,
    lambda value: _is_text(value) and all("!" <= character <= "~" for character in value),
)

COMMA_LIST = SettingType("a list separated by commas", _split_comma, _is_texts)
MILLISECONDS = SettingType(
    "whole milliseconds, negative for never",
    parse_milliseconds,
    lambda value: is_number(value) and value >= 0,
)
POSITIVE_MILLISECONDS = SettingType(
    "whole milliseconds over 0, negative for never",
    parse_milliseconds,
    lambda value: is_number(value) and value > 0,
)
SECONDS = SettingType(
    "whole seconds or a duration such as 1m30s or 300ms, over 0",
    parse_seconds,
    lambda value: is_number(value) and 0 < value < math.inf,
)
TIME_LIMIT = SettingType(
    "whole seconds or a duration such as 1m30s or 300ms, 0 for no limit",
    lambda text: parse_seconds(text) or math.inf,
    lambda value: is_number(value) and value > 0,
)


@attrs.frozen
class SettingInfo:
    """One setting."""

    field: str
    variable: str
    """"" = there is none, only code sets it."""
    default: Any
    takes: str
    doc: str


def describe(cls: type[EnvConfig]) -> tuple[SettingInfo, ...]:
    """The settings of ``cls`` in the order of the source, with the docstrings of the fields.

    Reads the source of ``cls``, so it is for tools, not for a running node. Raises `OSError`
    where there is none.
    """
    docs = _field_docs(cls)
    return tuple(
        SettingInfo(
            field.name,
            variable_of(field),
            field.default,
            field.metadata["kind"].takes,
            docs[field.name],
        )
        for field in attrs.fields(cls)
    )


def _field_docs(cls: type) -> dict[str, str]:
    definition = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(definition, ast.ClassDef)
    docs = {}
    for statement, after in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            docs[statement.target.id] = _docstring(after)
    return docs


def _docstring(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return inspect.cleandoc(str(statement.value.value))
    return ""
