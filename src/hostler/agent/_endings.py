"""What a caller is told whose container has ended under it, or before it was ready."""

from __future__ import annotations

from hostler.abc import RunResult
from hostler.errors import (
    APIError,
    ContainerInitFailed,
    ContainerOutOfMemory,
    FunctionError,
    ServerBusy,
)


def explain_end(error: FunctionError, result: RunResult | None) -> APIError:
    """``error``, of a call whose container has ended, and how that was.

    Where nobody knows (``result`` is ``None`` or without a reason), because the driver has lost
    the container, code and text stay, but the author of the function is not to blame.
    """
    if result is None or not result.reason:
        return APIError(error.code, error.message)
    if result.status == "killed":
        return ContainerOutOfMemory()
    # The text that Fn's clients know comes first.
    return type(error)(message=f"{error}: the container {result.reason}")


def why_not_ready(result: RunResult | None) -> APIError:
    """Why a launch that met no error itself has no container."""
    error = explain_end(ContainerInitFailed(), result)
    # Nothing of the call was sent: where the function is not to blame, it may go elsewhere.
    return error if error.blame == "user" else ServerBusy()
