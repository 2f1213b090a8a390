"""What can go wrong with the engine, and the table from the library's exceptions to ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import docker.errors
import requests.exceptions
import structlog

from ...errors import HostlerError, ServerBusy

log = structlog.get_logger(__name__)


class EngineError(HostlerError):
    """A call of the engine failed.

    ``operation`` names the call, ``message`` is what the engine said, ``status`` its HTTP
    status, or ``None`` if it gave no answer, so that nobody knows what the call has done.
    """

    def __init__(self, operation: str, message: str, status: int | None = None) -> None:
        self.operation = operation
        self.message = message
        self.status = status
        super().__init__(f"Docker engine, {operation}: {message}")


class EngineTimeout(EngineError):
    """The engine did not answer within the limit of the call."""


class EngineUnreachable(EngineError):
    """The connection to the engine can't be made, or broke before the answer."""


class EngineTooOld(HostlerError):
    """The engine's version is below ``AgentConfig.min_docker_version``."""


class InitMissing(EngineError):
    """The engine's machine has no init binary, which every function container runs as pid 1."""

    def __init__(self, operation: str, message: str, status: int | None) -> None:
        super().__init__(
            operation,
            "the engine has no init binary (docker-init: Debian's docker.io package, which "
            f"takes it from tini); it said: {message}",
            status,
        )


@contextmanager
def busy_if_away() -> Iterator[None]:
    """For the steps of a launch: if the engine is away or hangs, the call has certainly not run
    and may be tried on another runner, so `ServerBusy` is raised and the trouble logged."""
    try:
        yield
    except (EngineTimeout, EngineUnreachable) as error:
        log.warning("engine is away, the call may go elsewhere", error=str(error))
        raise ServerBusy() from error


def translate(operation: str, error: Exception) -> EngineError:
    """The `EngineError` for an exception that the Docker library raised during ``operation``."""
    match error:
        case EngineError():
            return error
        case docker.errors.APIError():
            return _of_answer(operation, error)
        case requests.exceptions.Timeout():
            return EngineTimeout(operation, "the engine did not answer in time")
        case requests.exceptions.HTTPError():
            status = None if error.response is None else error.response.status_code
            return EngineError(operation, str(error), status)
        case _:
            return EngineUnreachable(operation, str(error) or type(error).__name__)


def _of_answer(operation: str, error: docker.errors.APIError) -> EngineError:
    text = str(error.explanation or error).strip()
    if "docker-init" in text and "not found" in text:
        return InitMissing(operation, text, error.status_code)
    return EngineError(operation, text, error.status_code)
