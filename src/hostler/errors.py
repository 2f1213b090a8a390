"""The error tree: every failure of a call has a code, a text and somebody to blame.

Two kinds travel over the wire and reach HTTP clients:

* `APIError`: a code (an HTTP status) and a text, blamed on the service.
* `FunctionError`: the same, blamed on the author of the function.

Codes, texts and kinds are Fn's (its error table is part of the wire contract), so that a peer
or a client that compares texts keeps working. Everything that is not an `APIError` is internal:
it becomes a 500 whose text says nothing (`public_error`).
"""

from __future__ import annotations

from typing import ClassVar, Literal

Blame = Literal["user", "service"]

INTERNAL_TEXT = "internal server error"


class HostlerError(Exception):
    """Base of every exception that hostler raises on purpose."""


class ConfigError(HostlerError):
    """A setting can't be used. The text names the setting, its value and what it takes."""


class APIError(HostlerError):
    """A failure with an HTTP-like code, blamed on the service.

    ``code`` is the HTTP status, ``message`` the text that the client may read. Subclasses fix
    both; the constructor takes others (``APIError(418, "teapot")``).
    """

    default_code: ClassVar[int] = 500
    default_message: ClassVar[str] = INTERNAL_TEXT
    blame: ClassVar[Blame] = "service"

    def __init__(self, code: int | None = None, message: str | None = None) -> None:
        self.code = self.default_code if code is None else code
        self.message = self.default_message if message is None else message
        super().__init__(self.message)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.code} {self.message!r} blame={self.blame}>"


class FunctionError(APIError):
    """A failure that the author of the function has to mend (``errorUser`` on the wire)."""

    default_code = 502
    default_message = "function failed"
    blame = "user"


class ServerBusy(APIError):
    """No capacity: the NACK. The only error after which a call may be tried elsewhere."""

    default_code = 503
    default_message = "Timed out - server too busy"

    retry_after: float | None = None
    """Seconds after which it is worth to try again; ``None`` = nobody knows."""

    @classmethod
    def after(cls, seconds: float | None) -> ServerBusy:
        """A refusal with advice."""
        error = cls()
        error.retry_after = seconds
        return error


class ClientCancelled(APIError):
    """The client went away. Only the code (nginx's 444) is ever visible, in logs and metrics."""

    default_code = 444
    default_message = "Client cancelled context"


class CallResourceTooBig(APIError):
    """The call asks for more CPU or memory than the machine has in total."""

    default_code = 400
    default_message = "Requested CPU/Memory cannot be allocated"


class DetachUnsupported(APIError):
    """A detached call reached a runner that was opened without support for them."""

    default_code = 501
    default_message = "Detach call functions are not supported on this server"


class CallHandleNotFound(APIError):
    """A detached call has no engagement to acknowledge on."""

    default_code = 500
    default_message = "Unable to find the call handle"


class ServiceReservationFailure(APIError):
    """The LB's own time for a placed call is over."""

    default_code = 500
    default_message = "Unable to service the request for the reservation period"


class InvalidFnImage(APIError):
    """A user's call names the reserved status image."""

    default_code = 400
    default_message = "Invalid Fn image"


class ImageWithVolume(APIError):
    """The image declares volumes and they are not allowed here."""

    default_code = 400
    default_message = "image has Volume definition"


class RequestTooBig(APIError):
    """The request body is over the limit of the front end."""

    default_code = 413
    default_message = "Request content too large"

    @classmethod
    def known(cls, length: int, limit: int) -> RequestTooBig:
        """The declared ``Content-Length`` of ``length`` bytes is over ``limit`` bytes."""
        return cls(message=f"Content-Length too large for this server, {length} > max {limit}")


class FnNotFound(APIError):
    """No function has this id."""

    default_code = 404
    default_message = "Fn not found"


class InvalidJSON(APIError):
    """The document can't be decoded."""

    default_code = 400
    default_message = "Invalid JSON"


class InvalidCPUs(APIError):
    """A CPU quantity has the wrong form or is out of range."""

    default_code = 400
    default_message = (
        "Cpus is invalid. Value should be either between [0.000 and 1024.000] "
        "or [0m and 1024000m] milliCPU units"
    )


class ImagePullTimeout(FunctionError):
    """The image did not arrive in time."""

    default_code = 504
    default_message = "Image pull timed out"


class ImagePullFailed(FunctionError):
    """The registry or the engine refused the image; a 4xx of theirs is kept as the code."""

    default_code = 502
    default_message = "Failed to pull image"


class FunctionResponseTooBig(FunctionError):
    """The response body is over FN_MAX_RESPONSE_SIZE."""

    default_message = "function response body too large"


class FunctionResponseHeaderTooBig(FunctionError):
    """The response head is over FN_MAX_HDR_RESPONSE_SIZE."""

    default_message = "function response header too large"


class FunctionResponseError(FunctionError):
    """The function died or broke the HTTP exchange before its response was complete."""

    default_message = "error receiving function response"


class FunctionFailed(FunctionError):
    """The function kit answered 502: the user's code failed."""

    default_message = "function failed"


class FunctionInvalidResponse(FunctionError):
    """The function answered anything but 200, 502 or 504."""

    default_message = "invalid function response"


class FunctionWriteRequest(FunctionError):
    """The function closed its connection while its request was being written."""

    default_message = "function closed pipe while receiving request"


class CallTimeout(FunctionError):
    """The function's run time is over."""

    default_code = 504
    default_message = "Timed out"


class ContainerInitFailed(FunctionError):
    """The container ended, or offered a bad socket, before it was ready."""

    default_message = (
        "Container failed to initialize, please ensure you are using the latest fdk "
        "and check the logs"
    )

    @classmethod
    def because(cls, reason: str) -> ContainerInitFailed:
        """With a reason behind the text that Fn's clients know."""
        return cls(message=f"{cls.default_message}: {reason}")


class ContainerInitTimeout(FunctionError):
    """The container was not ready in time."""

    default_code = 504
    default_message = (
        "Container initialization timed out, please ensure you are using the latest fdk "
        "and check the logs"
    )


class SyslogUnavailable(FunctionError):
    """The engine can't start the app's syslog driver."""

    default_code = 500
    default_message = "Syslog Unavailable"


class ContainerExited(FunctionError):
    """The container ended while it had a request; ``exit_code`` is what the engine reported."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message=f"container exit code {exit_code}")


class ContainerOutOfMemory(FunctionError):
    """The kernel killed the container for memory, while it had a request or before it was ready."""

    default_message = (
        "container out of memory, you may want to raise fn.memory for this function "
        "(default: 128MB)"
    )


class RunnerClosed(HostlerError):
    """This runner object is closed; the call was not sent and may be tried elsewhere."""

    def __init__(self) -> None:
        super().__init__("Runner is closed")


class ReservationAbandoned(HostlerError):
    """A slot that a runner held for a call was given back: somebody else has the call."""

    def __init__(self) -> None:
        super().__init__("the reservation was abandoned")


class ProtocolError(HostlerError):
    """The peer broke the order of the messages; the text says what was expected."""


def code_of(error: BaseException) -> int:
    """The HTTP-like code of any exception; 0 for one that is not an `APIError`.

    0 is what Fn's runners send for such errors, and what a receiver must read as 500.
    """
    return error.code if isinstance(error, APIError) else 0


def public_error(error: BaseException) -> APIError:
    """What a client may see of ``error``: itself if it is an `APIError`, else a bare 500."""
    if isinstance(error, APIError) and error.code:
        return error
    return APIError()
