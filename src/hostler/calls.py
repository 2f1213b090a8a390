"""A call under way: its body, response writer, timings and listeners, and how agents build one from
options.

`build_call` is how both agents (the LB's and the runner's) make one: the caller's options, then
the agent's, then the overrider.
"""

from __future__ import annotations

import inspect
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import attrs
import structlog
import trio

from ._spans import Span
from .errors import (
    APIError,
    CallOverriderFailed,
    ConfigError,
    HostlerError,
    ServerBusy,
    ServiceReservationFailure,
)
from .models import App, Call, Fn
from .protocol import Headers

__all__ = [
    "BLOCKED_SECONDS",
    "LISTENER_SECONDS",
    "AckWriter",
    "Body",
    "BodyConsumed",
    "BytesBody",
    "BytesStream",
    "CallDraft",
    "CallListener",
    "CallListeners",
    "CallOption",
    "CallOverrider",
    "CallRequest",
    "DiscardWriter",
    "DockerAuth",
    "PendingCall",
    "ResponseWriter",
    "RunnerCall",
    "SlotHook",
    "Timings",
    "build_call",
    "check_overrider",
    "name_of",
    "stopwatch",
]

# --- bodies and responses ------------------------------------------------------------------


class Body(ABC):
    """A request body.

    ``open`` returns a stream from the body's first byte, each time it is called: a call that
    was NACKed is sent again. A body that can't start over any more raises `BodyConsumed`. A
    failing read raises from ``receive_some``; it must never look like the end of the body.
    """

    @abstractmethod
    def open(self) -> trio.abc.ReceiveStream:
        """A stream from the first byte. Synchronous; reading the stream waits for the sender.
        Raises `BodyConsumed` if the body can't start over. The caller closes the stream."""

    @property
    def data(self) -> bytes | None:
        """The whole body if it is in memory, else ``None``. Lets a sender skip the stream."""
        return None

    @property
    def replayable(self) -> bool:
        """Whether ``open`` would start from the first byte now. If not, no attempt can follow."""
        return True

    async def aclose(self) -> None:  # noqa: B027  (most keep nothing)
        """Give back what is kept of the body, when nobody reads it any more. Called by whoever
        made it. Idempotent, and never cancelled."""


class ResponseWriter(ABC):
    """Takes the response of one call, in the task that runs the call.

    ``start`` once, then ``write`` any number of times; both wait while the reader is slow. The
    end, and every error, is what ``submit`` returns or raises; a writer never learns of them.
    An exception from either method ends the call with that exception.
    """

    @abstractmethod
    async def start(self, status: int, headers: Headers) -> None:
        """Take the head: ``status`` is an HTTP status, ``headers`` are (name, value) pairs, of
        which a name may come twice. May wait for the reader."""

    @abstractmethod
    async def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the body, any number, and wait while the reader is slow. A
        ``memoryview`` is good only until the return: copy what is kept."""


@attrs.define
class CallRequest:
    """The HTTP request that made the call, as the front end saw it. ``headers`` have canonical
    names; like everything that may hold secrets they are not in the repr. The call's own are
    ``Call.headers``: to change these here changes nothing."""

    method: str
    url: str
    headers: dict[str, list[str]] = attrs.field(repr=False)
    body: Body | None = None
    app: App | None = attrs.field(default=None, repr=False)
    """The app of the function as it is stored: not to be changed. ``None`` on a runner."""
    fn: Fn | None = attrs.field(default=None, repr=False)
    """The function as it is stored, likewise."""


CallOverrider = Callable[[CallRequest, Call, Mapping[str, str]], Mapping[str, str] | None]
"""A service provider's hook, on the LB and on the runner, once per call.

Gets the request, the call model (may be changed in place, any field) and the extensions so far;
returns the extensions that replace them, or ``None`` to leave them as they are. ``request.app`` is
the app as it is stored: in ``call.annotations`` and ``call.config`` a function's value hides its
app's. `hostler.models.annotation` reads an annotation.

Synchronous, because no task exists yet: it must not block. An `APIError` ends the call with its
code. Anything else is logged, and ends the call with `CallOverriderFailed`, as do extensions that
are not text. A `ServerBusy` raised on a runner asks the LB to try elsewhere.
"""


SlotHook = Callable[[], Awaitable[None]]
"""Awaited in a call's own task once it has its container, before anything of the call reaches
that, and before listeners hear of it. The call goes on when it returns; what it raises ends the
call, and the container serves others as if nothing had been."""


DockerAuth = Callable[[str], Awaitable[Mapping[str, str] | None]]
"""Gives the credentials with which an image, whose name it gets, is pulled: ``username`` and
``password``, ``identitytoken``, or ``registrytoken``. ``None`` = those of the node. Bounded by the
time for a pull. What it raises fails the call: an `APIError` with its own code and text."""


class CallListener:
    """Told about each call of an agent, in order of registration, in the call's own task.

    ``before_call``: the call has a slot (runner) or is about to be placed (LB); an exception
    ends the call with that exception. ``after_call``: the call is over and its model complete;
    it also runs when the call was cancelled (then shielded, with a deadline); an exception is
    logged, the later listeners still run. Neither is told of a call that was refused or failed
    before its ``before_call``.

    `note_submit` and `note_end` are told of every call. They are for listeners that only take
    note: synchronous, must not block or raise, and cost little. What a listener does not override
    costs nothing.
    """

    def note_submit(self, call: PendingCall) -> None:
        """The agent got ``call``, and has not yet looked at whether it can run."""

    def wants_before_call(self, call: PendingCall) -> bool:
        """Whether ``before_call`` is to be awaited for ``call``, which has its costs. Synchronous.
        Only a runner's agent asks, and only a listener that overrides ``before_call``."""
        return True

    async def before_call(self, call: PendingCall) -> None:
        """The default does nothing."""

    async def after_call(self, call: PendingCall) -> None:
        """The default does nothing, and costs nothing."""

    def note_end(self, call: PendingCall, error: BaseException | None, *, began: bool) -> None:
        """``call`` is over, and ``error`` is what ended it, perhaps a cancellation. ``began``: this
        listener's ``before_call`` let it pass. Called before any ``after_call``."""


# --- the LB side ---------------------------------------------------------------------------


class RunnerCall(ABC):
    """A call as a placer and a runner see it.

    ``body.open()`` may be called once per attempt. ``slot_hash_id`` is the raw key. The runner
    object fills ``runner_address``, the placer counts ``attempts`` and, if it is cancelled, has the
    former tell who has the call, "" = nobody. At ``deadline`` (Trio's clock) its client gives up.
    """

    model: Call
    body: Body
    writer: ResponseWriter
    extensions: dict[str, str]
    slot_hash_id: bytes | None
    request_id: str
    deadline: float
    timings: Timings
    runner_address: str
    attempts: int
    user_execution_ns: int | None
    queue_seconds: float = 0.0
    """How long a runner without room may let it wait to be the next on a hot container."""
    spare_warm: bool = False
    """A runner is to refuse it rather than evict a hot container that is worth keeping."""
    launch: bool = False
    """A runner is to start a container for it unless one is idle."""
    surplus: bool = False
    """One more of its function's containers on the runner that runs it is surplus."""
    waited: bool = False
    """It has had to wait for room, so none is to be kept from it."""
    span: Span | None = None
    """What is done for it now, if somebody records that."""

    @abstractmethod
    def add_user_execution_ns(self, duration_ns: int) -> None:
        """Add time that the function itself used; also kept in the model."""


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
    fn_name: str = ""
    docker_auth: DockerAuth | None = attrs.field(default=None, repr=False)
    logger: Callable[[bytes], object] | None = None


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
    spare_warm: bool = False
    launch: bool = False
    surplus: bool = False
    waited: bool = False
    client: str = ""
    """On a runner: the LB that has sent it."""
    refusable: bool = False
    """Its LB can have it wait better than an agent that leaves the choice to its calls
    (``auto``)."""
    span: Span | None = None
    scope: trio.CancelScope | None = None
    """The submitter's scope, open around `submit`. An agent that ends before the call may cancel
    it; the call has ended with `cancelled_error` then. Without one, or while another call uses it,
    an LB agent makes a scope, which costs more than placing the call, and raises the error."""
    never_placed: bool = False
    """It was cancelled, and its agent knows that nobody had it to run."""
    disable_net: bool = False
    """A container that is launched for this call gets no network. No part of the slot key."""
    fn_name: str = ""
    """The function's name, for people; "" on a runner, which does not know it."""
    on_slot: SlotHook | None = None
    """Makes the call a reservation, on a runner; set before it is submitted."""
    docker_auth: DockerAuth | None = attrs.field(default=None, repr=False)
    """Asked when a container that is launched for this call has to pull its image."""
    logger: Callable[[bytes], object] | None = None
    """Gets what the function prints for this call, up to the same limit as ``log``."""
    log: bytearray = attrs.field(factory=bytearray, repr=False)
    """What the function printed for this call, by an agent that was opened with ``keep_logs``: at
    most FN_MAX_LOG_SIZE_BYTES, then a line that says that there was more. What it printed last may
    still be under way when the call has ended."""

    def cancelled_error(self) -> APIError:
        """The error of a call that its agent had to cancel. `ServerBusy` invites another attempt,
        so it is only for a call that was `never_placed`; others may have run."""
        return ServerBusy() if self.never_placed else ServiceReservationFailure()

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
        """Never waits, never raises."""

    async def write(self, data: bytes | memoryview) -> None:
        """Never waits, never raises."""


class AckWriter(DiscardWriter):
    """Lets the submitter of a detached call go once the call is under way."""

    def __init__(self, task_status: trio.TaskStatus[None]) -> None:
        self._task_status = task_status
        self.acknowledged = False

    def acknowledge(self) -> None:
        """The call is under way, or already over. Idempotent."""
        if not self.acknowledged:
            self.acknowledged = True
            self._task_status.started()


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
    overrider its own `APIError`, or `CallOverriderFailed`.
    """
    draft = CallDraft()
    for option in options:
        option(draft)
    if draft.model is None or draft.request is None:
        raise HostlerError("no model or request provided for call")
    extensions: Mapping[str, str] = draft.extensions
    if overrider is not None:
        extensions = _overridden(overrider, draft.request, draft.model, extensions)
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
    call.docker_auth = draft.docker_auth
    call.logger = draft.logger
    call.fn_name = draft.fn_name
    return call


BLOCKED_SECONDS = 0.1
"""Seconds in an overrider that are worth a warning: no other call of the node goes on meanwhile."""


def _overridden(
    overrider: CallOverrider, request: CallRequest, model: Call, extensions: Mapping[str, str]
) -> Mapping[str, str]:
    """What ``overrider`` makes of ``extensions``."""
    began = time.perf_counter()
    try:
        found = overrider(request, model, extensions)
        if (seconds := time.perf_counter() - began) > BLOCKED_SECONDS:
            name = name_of(overrider)
            log.warning("call overrider blocks the node", overrider=name, seconds=round(seconds, 3))
        if found is None:
            return extensions
        _check_extensions(found)
    except APIError:
        raise
    except Exception as error:
        name = name_of(overrider)
        log.exception("call overrider failed", overrider=name)
        raise CallOverriderFailed(None, f"call overrider {name}: {_reason(error)}") from error
    return found


def _check_extensions(found: object) -> None:
    if not isinstance(found, Mapping):
        raise HostlerError(f"it returned {_kind_of(found)} instead of a mapping")
    for name, value in found.items():
        if not isinstance(name, str):
            raise HostlerError(f"the name {name!r} of an extension is not text")
        if not isinstance(value, str):
            raise HostlerError(f"extension {name!r} is {_kind_of(value)}, not text")


def _kind_of(value: object) -> str:
    return f"a value of type {type(value).__name__}"


def name_of(hook: object) -> str:
    """The name of a provider's callable, for logs and errors."""
    named = hook if hasattr(hook, "__qualname__") else type(hook)
    return f"{named.__module__}.{named.__qualname__}"


def _reason(error: Exception) -> str:
    """For a client: what is wrong, but no text of unknown origin."""
    if isinstance(error, KeyError) and error.args:
        return f"there is no key {error.args[0]!r}"
    if isinstance(error, HostlerError):
        return str(error)
    return type(error).__name__


log = structlog.get_logger(__name__)

LISTENER_SECONDS = 10.0
"""Seconds for one listener's ``after_call``. It can't be cancelled, so it must have an end."""


class CallListeners:
    """The listeners of one agent, in order of registration.

    ``of_submit`` and the like have only the listeners that override the method, with their places
    from 1 on. The agent counts how many listeners were ``told`` that a call begins.
    """

    def __init__(self, listeners: Iterable[CallListener] = ()) -> None:
        self.all = tuple(listeners)
        self.of_submit = self._overriding("note_submit")
        self.of_begin = self._overriding("before_call")
        self._of_end = self._overriding("note_end")
        self.of_after = self._overriding("after_call")

    def _overriding(self, name: str) -> tuple[tuple[int, CallListener], ...]:
        default = getattr(CallListener, name)
        return tuple(
            (place, listener)
            for place, listener in enumerate(self.all, 1)
            if getattr(getattr(listener, name), "__func__", None) is not default
        )

    def note_end(self, call: PendingCall, error: BaseException | None, *, told: int) -> None:
        """Tell all listeners. Raises nothing."""
        for place, listener in self._of_end:
            try:
                listener.note_end(call, error, began=place <= told)
            except Exception as failure:  # noqa: BLE001  (logged there)
                _log_failure(listener, call, failure)

    async def tell_after(self, call: PendingCall, *, told: int) -> None:
        """Tell listeners that were told of the begin of ``call``, also if it was cancelled. Each
        is shielded, and has a deadline. Raises nothing."""
        for place, listener in self.of_after:
            if place <= told:
                await _tell_after(listener, call)


async def _tell_after(listener: CallListener, call: PendingCall) -> None:
    deadline = trio.current_time() + LISTENER_SECONDS
    with trio.CancelScope(shield=True, deadline=deadline) as scope:
        try:
            await listener.after_call(call)
        except Exception as error:  # noqa: BLE001  (logged there)
            _log_failure(listener, call, error)
    if scope.cancelled_caught:
        log.error(
            "after-call listener took too long",
            call_id=call.model.id,
            listener=repr(listener),
            seconds=LISTENER_SECONDS,
        )


def _log_failure(listener: CallListener, call: PendingCall, error: Exception) -> None:
    log.error(
        "after-call listener failed",
        call_id=call.model.id,
        listener=repr(listener),
        exc_info=error,
    )


class BodyConsumed(HostlerError):
    """The body was partly sent and can't be sent again."""


class BytesBody(Body):
    """A body in memory."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = data

    def open(self) -> trio.abc.ReceiveStream:
        """Works any number of times, also at the same time; the streams share the bytes and never
        wait."""
        return BytesStream(self._data)

    @property
    def data(self) -> bytes:
        return self._data


class BytesStream(trio.abc.ReceiveStream):
    """A stream of bytes in memory. A read gets what it asks for, all that is left without
    ``max_bytes``, and never waits."""

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        size = len(self._rest) if max_bytes is None else max_bytes
        chunk, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return chunk

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
