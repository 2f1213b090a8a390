"""The table of errors, of the exceptions themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from tables import table

from hostler import errors

_HEAD = """\
# Errors

The answer to a failed call is a code and `{"message": "..."}`. `blame` says who made the mistake:
the service, or the user that wrote the function. Codes and texts are Fn's. Any other error is a
500, `internal server error`; only the log has its cause. The classes are in `hostler.errors`.
"""


def errors_page() -> str:
    rows = [
        (str(kind.default_code), f"`{kind.default_message}`", kind.blame, _meaning(kind))
        for kind in sorted(_kinds(), key=lambda kind: (kind.default_code, kind.__name__))
    ]
    return "\n".join([_HEAD, table(("code", "text", "blame", "class and meaning"), rows)])


def _kinds() -> Iterator[type[errors.APIError]]:
    for value in vars(errors).values():
        if inspect.isclass(value) and issubclass(value, errors.APIError):
            yield value


def _meaning(kind: type[errors.APIError]) -> str:
    return f"`{kind.__name__}`: {(inspect.getdoc(kind) or '').partition(chr(10) * 2)[0]}"
