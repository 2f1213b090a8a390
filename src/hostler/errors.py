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

__all__ = [
    "INTERNAL_TEXT",
    "APIError",
    "AttemptTimedOut",
    "Blame",
    "CallHandleNotFound",
    "CallOverriderFailed",
    "CallResourceTooBig",
    "CallTimeout",
    "ClientCancelled",
    "ConfigError",
    "ContainerExited",
    "ContainerInitFailed",
    "ContainerInitTimeout",
    "ContainerOutOfMemory",
    "DetachUnsupported",
    "FnNotFound",
    "FunctionError",
    "FunctionFailed",
    "FunctionInvalidResponse",
    "FunctionResponseError",
    "FunctionResponseHeaderTooBig",
    "FunctionResponseTooBig",
    "FunctionWriteRequest",
    "HostlerError",
    "ImagePullFailed",
    "ImagePullTimeout",
    "ImageWithVolume",
    "InvalidCPUs",
    "InvalidFnImage",
    "InvalidJSON",
    "MissingEOF",
    "NoRunnerReached",
    "ProtocolError",
    "RequestTooBig",
    "ReservationAbandoned",
    "RunnerClosed",
    "RunnerFailed",
    "RunnerFault",
    "ServerBusy",
    "ServiceReservationFailure",
    "SyslogUnavailable",
    "code_of",
    "is_internal",
    "public_error",
]

Blame = Literal["user", "service"]
INTERNAL_TEXT = "internal server error"


class HostlerError(Exception):
    """Base of every exception that hostler raises on purpose."""


class ConfigError(HostlerError):
    """A setting can't be used. The text names the setting, its value and what it takes."""


class APIError(HostlerError):
    """A failure with an HTTP-like code, blamed on the service.

    ``code`` is the HTTP status, ``message`` the text that the client may read. Subclasses fix
    both (``class Teapot(APIError, code=418, text="teapot")``), the constructor takes others.
    """

    default_code: ClassVar[int] = 500
    default_message: ClassVar[str] = INTERNAL_TEXT
    blame: ClassVar[Blame] = "service"

    def __init_subclass__(
        cls, *, code: int | None = None, text: str | None = None, blame: Blame | None = None
    ) -> None:
        if code is not None:
            cls.default_code = code
        if text is not None:
            cls.default_message = text
        if blame is not None:
            cls.blame = blame

    def __init__(self, code: int | None = None, message: str | None = None) -> None:
        self.code = self.default_code if code is None else code
        self.message = self.default_message if message is None else message
        super().__init__(self.message)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.code} {self.message!r} blame={self.blame}>"


class FunctionError(APIError, code=502, text="function failed", blame="user"):
    """A failure that the author of the function has to mend (``errorUser`` on the wire)."""


class ServerBusy(APIError, code=503, text="Timed out - server too busy"):
    """No capacity: the NACK. The only error after which a call may be tried elsewhere."""

    retry_after: float | None = None
    """Seconds after which it is worth to try again; ``None`` = nobody knows."""

    @classmethod
    def after(cls, seconds: float | None) -> ServerBusy:
        """A refusal with advice."""
        error = cls()
        error.retry_after = seconds
        return error


class NoRunnerReached(ServerBusy, text="no runner can be reached"):
    """The pool has runners, and has reached none of them for longer than calls wait for that."""


class ClientCancelled(APIError, code=444, text="Client cancelled context"):
    """The client went away. Only the code (nginx's 444) is ever visible, in logs and metrics."""


class CallResourceTooBig(APIError, code=400, text="Requested CPU/Memory cannot be allocated"):
    """The call asks for more CPU or memory than the machine has in total."""


class DetachUnsupported(
    APIError, code=501, text="Detach call functions are not supported on this server"
):
    """A detached call reached a runner that was opened without support for them."""


class CallHandleNotFound(APIError, code=500, text="Unable to find the call handle"):
    """A detached call has no engagement to acknowledge on."""


class ServiceReservationFailure(
    APIError, code=500, text="Unable to service the request for the reservation period"
):
    """The LB's own time for a placed call is over."""


class RunnerFailed(APIError, code=500, text=INTERNAL_TEXT):
    """A runner that had the call broke, or broke the protocol: ``__cause__`` says how. The call may
    have run."""


class CallOverriderFailed(APIError, code=500, text="call overrider failed"):
    """The operator's call overrider raised, or returned what are no extensions. The text names the
    overrider, and the extension or key that was wrong; the log has the cause."""


class InvalidFnImage(APIError, code=400, text="Invalid Fn image"):
    """A user's call names the reserved status image."""


class ImageWithVolume(APIError, code=400, text="image has Volume definition"):
    """The image declares volumes and they are not allowed here."""


class RequestTooBig(APIError, code=413, text="Request content too large"):
    """The request body is over the limit of the front end."""

    @classmethod
    def known(cls, length: int, limit: int) -> RequestTooBig:
        """The declared ``Content-Length`` of ``length`` bytes is over ``limit`` bytes."""
        return cls(message=f"Content-Length too large for this server, {length} > max {limit}")


class FnNotFound(APIError, code=404, text="Fn not found"):
    """No function has this id."""


class InvalidJSON(APIError, code=400, text="Invalid JSON"):
    """The document can't be decoded."""


class InvalidCPUs(
    APIError,
    code=400,
    text="Cpus is invalid. Value should be either between [0.000 and 1024.000] "
    "or [0m and 1024000m] milliCPU units",
):
    """A CPU quantity has the wrong form or is out of range."""


class ImagePullTimeout(FunctionError, code=504, text="Image pull timed out"):
    """The image did not arrive in time."""


class ImagePullFailed(FunctionError, code=502, text="Failed to pull image"):
    """The registry or the engine refused the image; a 4xx of theirs is kept as the code."""


class FunctionResponseTooBig(FunctionError, text="function response body too large"):
    """The response body is over FN_MAX_RESPONSE_SIZE."""


class FunctionResponseHeaderTooBig(FunctionError, text="function response header too large"):
    """The response head is over FN_MAX_HDR_RESPONSE_SIZE."""


class FunctionResponseError(FunctionError, text="error receiving function response"):
    """The function died or broke the HTTP exchange before its response was complete."""


class FunctionFailed(FunctionError, text="function failed"):
    """The function kit answered 502: the user's code failed."""


class FunctionInvalidResponse(FunctionError, text="invalid function response"):
    """The function answered anything but 200, 502 or 504."""


class FunctionWriteRequest(FunctionError, text="function closed pipe while receiving request"):
    """The function closed its connection while its request was being written."""


class CallTimeout(FunctionError, code=504, text="Timed out"):
    """The function's run time is over."""


class ContainerInitFailed(
    FunctionError,
    text="Container failed to initialize, please ensure you are using the latest fdk "
    "and check the logs",
):
    """The container ended, or offered a bad socket, before it was ready."""

    @classmethod
    def because(cls, reason: str) -> ContainerInitFailed:
        """With a reason behind the text that Fn's clients know."""
        return cls(message=f"{cls.default_message}: {reason}")


class ContainerInitTimeout(
    FunctionError,
    code=504,
    text="Container initialization timed out, please ensure you are using the latest fdk "
    "and check the logs",
):
    """The container was not ready in time."""


class SyslogUnavailable(FunctionError, code=500, text="Syslog Unavailable"):
    """The engine can't start the app's syslog driver."""


class ContainerExited(FunctionError):
    """The container ended while it had a request; ``exit_code`` is what the engine reported."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message=f"container exit code {exit_code}")


class ContainerOutOfMemory(
    FunctionError,
    text="container out of memory, you may want to raise fn.memory for this function "
    "(default: 128MB)",
):
    """The kernel killed the container for memory, while it had a request or before it was ready."""


class RunnerClosed(HostlerError):
    """This runner object is closed; the call was not sent and may be tried elsewhere."""

    def __init__(self) -> None:
        super().__init__("Runner is closed")


class ReservationAbandoned(HostlerError):
    """A slot that a runner held for a call was given back: somebody else has the call."""

    def __init__(self) -> None:
        super().__init__("the reservation was abandoned")


class AttemptTimedOut(HostlerError):
    """A runner did not take a call in the time that the attempt had."""

    def __init__(self) -> None:
        super().__init__("the runner did not take the call in time")


class ProtocolError(HostlerError):
    """The peer broke the order of the messages; the text says what was expected."""


class RunnerFault(HostlerError):
    """A runner failed a call for a reason that no client must see. The text is the runner's own."""


class MissingEOF(HostlerError):
    """A runner went on sending after it had reported the outcome of a call."""

    def __init__(self) -> None:
        super().__init__("Purerunner missing EOF response")


def code_of(error: BaseException) -> int:
    """The HTTP-like code of any exception; 0 for one that is not an `APIError`.

    0 is what Fn's runners send for such errors, and what a receiver must read as 500.
    """
    return error.code if isinstance(error, APIError) else 0


def is_internal(error: BaseException) -> bool:
    """Whether a client learns nothing from ``error``, so that its cause has to be logged."""
    return not isinstance(error, APIError) or isinstance(error, RunnerFailed)


def public_error(error: BaseException) -> APIError:
    """What a client may see of ``error``: itself if it is an `APIError`, else a bare 500."""
    if isinstance(error, APIError) and error.code:
        return error
    return APIError()
