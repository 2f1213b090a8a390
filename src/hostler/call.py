"""A call on its way: the model, its body, the writer of its response, and what it has cost.

`build_call` is how both agents (the LB's and the runner's) make one: the caller's options, then
the agent's, then the overrider.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import attrs
import trio

from ._spans import Span
from .abc import Body, CallOverrider, CallRequest, ResponseWriter, RunnerCall, SlotHook
from .bodies import BytesBody
from .errors import (
    APIError,
    ConfigError,
    HostlerError,
    ServerBusy,
    ServiceReservationFailure,
)
from .models import Call


@attrs.define
class CallDraft:
    """What call options fill in. ``model`` and ``request`` are mandatory in the end."""

    model: Call | None = None
    request: CallRequest | None = None
    writer: ResponseWriter | None = None
    extensions: dict[str, str] = attrs.field(factory=dict, repr=False)
    slot_hash_id: bytes | None = None
    request_id: str = ""
    deadline: float = math.inf
    disable_net: bool = False


CallOption = Callable[[CallDraft], None]
"""Changes a draft in place; an exception aborts ``get_call``."""


@attrs.define
class Timings:
    """Nanoseconds that the stages of one call took; 0 = did not happen (a hot call starts
    nothing) or is not known."""

    scheduler_ns: int = 0
    execution_ns: int = 0
    image_pull_wait_ns: int = 0
    ctr_prep_ns: int = 0
    ctr_create_ns: int = 0
    init_start_ns: int = 0
    began: dict[str, float] = attrs.field(factory=dict, repr=False, eq=False)
    """When (`trio.current_time`) those of them began that a `stopwatch` of this process took."""

    @property
    def start_seconds(self) -> float:
        """Of the container. The pull does not count: the next start will not need it."""
        return (self.ctr_prep_ns + self.ctr_create_ns + self.init_start_ns) / 1e9


@contextmanager
def stopwatch(timings: Timings, field: str) -> Iterator[None]:
    """Store how long the block took, however it ends."""
    started = trio.current_time()
    timings.began[field] = started
    try:
        yield
    finally:
        setattr(timings, field, max(1, round((trio.current_time() - started) * 1e9)))


@attrs.define(eq=False)
class PendingCall(RunnerCall):
    """The `RunnerCall` that both agents make. ``created_ns`` is this process's monotonic clock."""

    model: Call
    body: Body
    writer: ResponseWriter
    request: CallRequest
    extensions: dict[str, str] = attrs.field(factory=dict, repr=False)
    slot_hash_id: bytes | None = None
    request_id: str = ""
    deadline: float = math.inf
    timings: Timings = attrs.Factory(Timings)
    runner_address: str = ""
    attempts: int = 0
    created_ns: int = attrs.Factory(time.monotonic_ns)
    user_execution_ns: int | None = None
    queue_seconds: float = 0.0
    gentle: bool = False
    launch: bool = False
    waited: bool = False
    client: str = ""
    """On a runner: the LB that has sent it."""
    refusable: bool = False
    """Its LB can have it wait better than an agent that leaves the choice to its calls
    (``auto``)."""
    span: Span | None = None
    scope: trio.CancelScope | None = None
    """Lent by who submits it, and open around that: an agent that ends before the call may cancel
    it, and then the call has ended with `cut_error`. Without one, or while another of its calls has
    it, an LB agent makes its own, which costs more than to place the call, and raises the error."""
    not_placed: bool = False
    """It was cancelled, and its agent knows that nobody had it to run."""
    disable_net: bool = False
    """A container that is launched for this call gets no network. No part of the slot key."""
    on_slot: SlotHook | None = None
    """Makes the call a reservation, on a runner; set before it is submitted."""
    log: bytearray = attrs.field(factory=bytearray, repr=False)
    """What the function printed for this call, by an agent that was opened with ``keep_logs``: at
    most FN_MAX_LOG_SIZE_BYTES, then a line that says that there was more. What it printed last may
    still be under way when the call has ended."""

    def cut_error(self) -> APIError:
        """What a call ends with that its agent had to cancel. It may have run, and `ServerBusy`
        invites another attempt: that is for one of which the agent has said that it is
        `not_placed`."""
        return ServerBusy() if self.not_placed else ServiceReservationFailure()

    def run_seconds(self, now: float) -> float:
        """Seconds for a function that starts ``now`` (`trio.current_time`): its timeout, or what is
        left to the client."""
        return max(0.0, min(self.model.timeout, self.deadline - now))

    def add_user_execution_ns(self, duration_ns: int) -> None:
        self.user_execution_ns = (self.user_execution_ns or 0) + duration_ns
        self.model.execution_duration_ns = self.user_execution_ns


class DiscardWriter(ResponseWriter):
    """Swallows a response: what a detached call's client gets of the function's output."""

    async def start(self, status: int, headers: object) -> None:
        pass

    async def write(self, data: bytes | memoryview) -> None:
        pass


def check_overrider(overrider: CallOverrider | None, name: str = "call_overrider") -> None:
    """Raise `ConfigError`, which names it, for one that no call could use: it is asynchronous, or
    takes other arguments. What can't be seen before it is called, as of code in C, is let pass."""
    if overrider is None:
        return
    if any(map(inspect.iscoroutinefunction, (overrider, type(overrider).__call__))):
        raise ConfigError(f"{name}: a call overrider must not be asynchronous")
    try:
        # (Of a decorated one, what is around it is called.)
        signature = inspect.signature(overrider, follow_wrapped=False)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(None, None, None)
    except TypeError as error:
        text = "has to take (request, model, extensions), by place"
        raise ConfigError(f"{name}: a call overrider {text}: {error}") from error


def build_call(
    options: Iterable[CallOption], overrider: CallOverrider | None = None
) -> PendingCall:
    """Apply ``options`` in order, then ``overrider``, and return the call.

    Raises whatever an option raises; a `HostlerError` without a model or a request; and for the
    overrider its own `APIError`, or an internal one chained to anything else it raised.
    """
    draft = CallDraft()
    for option in options:
        option(draft)
    if draft.model is None or draft.request is None:
        raise HostlerError("no model or request provided for call")
    extensions: Mapping[str, str] = draft.extensions
    if overrider is not None:
        try:
            extensions = overrider(draft.request, draft.model, extensions)
        except APIError:
            raise
        except Exception as error:
            raise APIError() from error
    # By place: to look up names takes longer than all the rest.
    call = PendingCall(
        draft.model,
        draft.request.body or BytesBody(),
        draft.writer or DiscardWriter(),
        draft.request,
        dict(extensions),
        draft.slot_hash_id,
        draft.request_id,
        draft.deadline,
    )
    call.disable_net = draft.disable_net
    return call
