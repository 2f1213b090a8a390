"""What the API's answers mean: the errors of the datastore, again."""

from __future__ import annotations

import msgspec

from hostler.errors import APIError, FnNotFound
from hostler.rules import errors
from hostler.rules.errors import Conflict, DatastoreUnavailable, Invalid, NotFound

_BY_CODE: dict[int, type[APIError]] = {400: Invalid, 404: NotFound, 409: Conflict}


class ApiUnavailable(DatastoreUnavailable):
    """The API can't be reached, or fails. ``reason`` is for operators: it may name hosts."""

    default_message = "API unavailable, try again later"

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


def no_api(fault: str) -> ApiUnavailable:
    """Something answers with a success that is none of the API."""
    return ApiUnavailable(f"what answers is no API: {fault}")


class _Message(msgspec.Struct):
    message: str = ""


def _known() -> dict[tuple[int, str], type[APIError]]:
    """Errors that always have the same text, by code and text."""
    found: dict[tuple[int, str], type[APIError]] = {}
    for value in (*vars(errors).values(), FnNotFound):
        is_error = isinstance(value, type) and issubclass(value, APIError)
        if is_error and "default_message" in vars(value):
            found[value.default_code, value.default_message] = value
    return found


_KNOWN = _known()
_FOREIGN = "the API answered {}"


def refusal(status: int, body: bytes) -> APIError:
    """The error of an answer that is neither a success nor a failure of the API itself.

    One of `hostler.rules.errors` where code and text are its, else a plain one of that code with
    the text of the body.
    """
    text = message_of(body) or _FOREIGN.format(status)
    known = _KNOWN.get((status, text))
    return known() if known is not None else _BY_CODE.get(status, APIError)(status, text)


def is_foreign(error: APIError) -> bool:
    """Whether it is the `refusal` of something that has another form of errors than the API."""
    return error.message == _FOREIGN.format(error.code)


def message_of(body: bytes) -> str:
    """The text of an error document, "" if it is none."""
    try:
        return msgspec.json.decode(body, type=_Message).message
    except (msgspec.DecodeError, UnicodeError):
        return ""
