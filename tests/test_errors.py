"""Codes, texts and kinds of what ends calls: they travel on the wire, and clients compare them."""

from __future__ import annotations

import pytest

from hostler import errors
from hostler.errors import APIError, FunctionError, public_error

FDK = "please ensure you are using the latest fdk and check the logs"
TABLE: dict[type[APIError], tuple[int, str, str]] = {
    errors.ServerBusy: (503, "service", "Timed out - server too busy"),
    errors.ClientCancelled: (444, "service", "Client cancelled context"),
    errors.CallResourceTooBig: (400, "service", "Requested CPU/Memory cannot be allocated"),
    errors.DetachUnsupported: (
        501,
        "service",
        "Detach call functions are not supported on this server",
    ),
    errors.CallHandleNotFound: (500, "service", "Unable to find the call handle"),
    errors.ServiceReservationFailure: (
        500,
        "service",
        "Unable to service the request for the reservation period",
    ),
    errors.InvalidFnImage: (400, "service", "Invalid Fn image"),
    errors.ImagePullTimeout: (504, "user", "Image pull timed out"),
    errors.FunctionResponseTooBig: (502, "user", "function response body too large"),
    errors.FunctionResponseHeaderTooBig: (502, "user", "function response header too large"),
    errors.FunctionResponseError: (502, "user", "error receiving function response"),
    errors.FunctionFailed: (502, "user", "function failed"),
    errors.FunctionInvalidResponse: (502, "user", "invalid function response"),
    errors.FunctionWriteRequest: (502, "user", "function closed pipe while receiving request"),
    errors.CallTimeout: (504, "user", "Timed out"),
    errors.ContainerInitFailed: (502, "user", f"Container failed to initialize, {FDK}"),
    errors.ContainerInitTimeout: (504, "user", f"Container initialization timed out, {FDK}"),
    errors.SyslogUnavailable: (500, "user", "Syslog Unavailable"),
    errors.ImageWithVolume: (400, "service", "image has Volume definition"),
    errors.InvalidJSON: (400, "service", "Invalid JSON"),
    errors.FnNotFound: (404, "service", "Fn not found"),
}
"""Reference 06, section 1, with what of section 2 and 4 a call meets."""


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.__name__)
def test_each_error_is_fns(kind: type[APIError]) -> None:
    error = kind()
    assert (error.code, error.blame, error.message) == TABLE[kind]
    assert isinstance(error, FunctionError) == (error.blame == "user")
    assert public_error(error) is error


def test_what_is_no_api_error_is_a_bare_500() -> None:
    told = public_error(OSError("secret"))
    assert (told.code, told.blame, told.message) == (500, "service", "internal server error")
    text = str(errors.RequestTooBig.known(9, 5))
    assert text == "Content-Length too large for this server, 9 > max 5"
