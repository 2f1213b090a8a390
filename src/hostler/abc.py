"""Seams: what an extender implements or replaces, each contract in prose.

Everything in hostler is written against these classes. Each docstring is the contract: what may
be called when, what an exception means, what cancellation does. All async methods are
Trio-flavoured and can be cancelled unless the docstring says otherwise; a method with nothing to
wait for need not give other tasks a turn.

Grouped by who implements them:

* a caller: `Body`, `ResponseWriter`, `CallOverrider`, `CallListener`
* the LB side: `Placer`, `RunnerPool`, `Runner`, `RunnerCall`, `AttemptObserver`
* the runner side: `Driver`, `Cookie`, `RunningContainer`, and `ContainerTask`, which the agent
  hands to a driver; `KeepAlive`, which is shown containers as `KeptContainer`
* what a front end needs of either agent: `CallAgent`
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Mapping, Sequence
from signal import NSIG
from typing import Any, Literal, Protocol

import attrs
import msgspec
import trio

from .calls import (
    Body,
    CallListener,
    CallOption,
    CallOverrider,
    CallRequest,
    DockerAuth,
    PendingCall,
    ResponseWriter,
    RunnerCall,
    SlotHook,
)
from .config import PlacerConfig
from .errors import APIError, ReservationAbandoned
from .models import Call
from .protocol import UNOBSERVED, AttemptObserver, LoadHint, RunnerStatus

__all__ = [
    "AttemptObserver",
    "Body",
    "CallAgent",
    "CallHook",
    "CallListener",
    "CallOverrider",
    "CallRequest",
    "CloseHook",
    "ContainerTask",
    "Cookie",
    "Driver",
    "ExitStatus",
    "KeepAlive",
    "KeptContainer",
    "MTLSRunnerFactory",
    "NotPlaced",
    "Outcome",
    "PKIData",
    "Placed",
    "Placer",
    "ResponseWriter",
    "RunResult",
    "Runner",
    "RunnerAgent",
    "RunnerCall",
    "RunnerPool",
    "RunningContainer",
    "SlotHook",
]


class Placed(msgspec.Struct, frozen=True, eq=False):
    """The call was (or may have been) run: final. ``error`` is its outcome, ``None`` = success.

    ``load`` is what the runner said about itself, if it does that; outcomes with others are equal.
    """

    error: Exception | None = None
    load: LoadHint | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Placed) and self.error == other.error

    def __hash__(self) -> int:
        return hash(self.error)


class NotPlaced(msgspec.Struct, frozen=True, eq=False):
    """The call certainly did not run and may be tried on any runner.

    ``reason`` is a `ServerBusy` for a NACK (the runner is healthy, only full), anything else
    for a runner that can't be reached. ``retry_after`` is the runner's hint in seconds, ``load``
    as for `Placed`.
    """

    reason: Exception
    retry_after: float | None = None
    load: LoadHint | None = None

    def __eq__(self, other: object) -> bool:
        seen = (self.reason, self.retry_after)
        return isinstance(other, NotPlaced) and seen == (other.reason, other.retry_after)

    def __hash__(self) -> int:
        return hash((self.reason, self.retry_after))


Outcome = Placed | NotPlaced


class Runner(ABC):
    """One runner of a pool."""

    @property
    @abstractmethod
    def address(self) -> str:
        """``host:port``. Never changes; placers, metrics and logs know the runner by it."""

    @abstractmethod
    async def try_exec(self, call: RunnerCall, observer: AttemptObserver = UNOBSERVED) -> Outcome:
        """Try to run ``call`` here; the response goes to ``call.writer``.

        ``observer`` hears when the call is committed. Until then the caller's scope may carry a
        deadline, and ending the attempt is harmless; a placer lifts the deadline then. Cancelling
        later cancels the call on the runner. Never raises for a failing call or runner: both are
        outcomes.
        """

    @property
    def reserves(self) -> bool:
        """Whether the runner has said that it takes reservations. False by default."""
        return False

    async def try_reserve(
        self, call: RunnerCall, observer: AttemptObserver = UNOBSERVED
    ) -> Outcome:
        """As `try_exec`, in two steps: reserve a slot here, then commit the call to it.

        ``observer`` hears when the runner was asked, and claims the slot that it holds. If it does
        not, the outcome is `NotPlaced` with a `ReservationAbandoned`. Until the call is committed
        the attempt may be cancelled at no cost, also after the claim, and the body is not touched.
        A `Placed` before the claim is the failure of a runner that could not make a slot.

        Runners that don't reserve claim at once and try: the default.
        """
        if not observer.claim():
            await trio.lowlevel.checkpoint()
            return NotPlaced(ReservationAbandoned())
        return await self.try_exec(call, observer)

    @abstractmethod
    async def status(self, payload: Mapping[str, Any] | None = None) -> RunnerStatus:
        """Ask the runner how it is. ``payload`` goes to its status image (``Status2``).

        Raises `HostlerError` if it can't be asked.
        """

    async def watch_health(self) -> AsyncGenerator[bool, None]:
        """Whether the runner takes calls, now and after each change. Raises `HostlerError` once
        the runner can't be heard any more. Ends, as by default, if the runner can't tell. Close it
        (with `contextlib.aclosing`) if you leave it before its end."""
        await trio.lowlevel.checkpoint()
        return
        yield

    async def watch_load(self) -> AsyncGenerator[LoadHint, None]:
        """How busy the runner is, now and after changes. For the rest see `watch_health`."""
        await trio.lowlevel.checkpoint()
        return
        yield

    @abstractmethod
    async def aclose(self) -> None:
        """Refuse new attempts, wait for the running ones, close the connections.

        Cancelling it (a deadline is the normal case) cancels the running attempts and closes
        at once. Idempotent.
        """


class CallAgent(ABC):
    """What a front end needs of an LB agent or of a runner's agent."""

    @abstractmethod
    def get_call(self, *options: CallOption) -> PendingCall:
        """Make a call of the caller's options, then the agent's, then the overrider. Synchronous.

        Raises the options' and the overrider's errors, and 400 `CallResourceTooBig`.
        """

    @abstractmethod
    async def submit(self, call: PendingCall) -> None:
        """Run the call to its end, or, if it is detached, until it is acknowledged.

        Raises the `APIError` that ended it: `RunnerFailed`, whose cause says more, if a runner that
        had the call broke. What the call's body, its writer or a listener raises leaves as it is.
        Cancelling the caller's scope ends the call everywhere, down to the container; a detached
        one up to its acknowledgement. ``call.scope``: see there.
        """

    def calls(self) -> Sequence[PendingCall]:
        """The calls under way, those that wait included, detached ones until their function has
        ended. They are the agent's own objects: only to be looked at. Synchronous. By default
        none."""
        return ()


class RunnerAgent(CallAgent):
    """What a pure runner needs beyond that of the agent behind it."""

    async def run(self, call: PendingCall) -> None:
        """Run the call to its end, detached or not: a pure runner acknowledges detached calls
        itself. Otherwise as `submit`, which is the default."""
        await self.submit(call)

    @abstractmethod
    def add_listener(self, listener: CallListener) -> None:
        """Tell ``listener`` about the calls from now on, after the present listeners.
        Synchronous."""

    def load_hint(self, call: PendingCall) -> LoadHint | None:
        """What to tell the LB of this agent's load with the answer to ``call``, which is over or
        was refused. Synchronous. The default, ``None``, tells nothing."""
        return None

    def load(self) -> LoadHint | None:
        """How busy this agent is now, as `load_hint` but of no call in particular."""
        return None

    async def wait_load_change(self) -> None:
        """Wait until what `load` says may have changed. The default waits for ever."""
        await trio.sleep_forever()

    @property
    def reservation_seconds(self) -> float:
        """How long a call may wait in its `SlotHook` before it is refused with `ServerBusy`.
        0, the default: the agent does not await such hooks, so it takes no reservations."""
        return 0

    @abstractmethod
    def close_admission(self) -> None:
        """Refuse with `ServerBusy` new calls and those that wait, for a slot or in their
        `SlotHook`; running ones go on. Synchronous. Idempotent."""


class RunnerPool(ABC):
    """Knows the runners."""

    @abstractmethod
    async def runners(self, call: RunnerCall) -> Sequence[Runner]:
        """The runners to try for ``call``, in order of preference; asked before every sweep. May
        wait: the placer's time bounds it.

        An empty list means "none now, ask again". Raising a 502 `FunctionError` or
        `NoRunnerReached` means that asking again is useless; any other exception is retried until
        the placer gives up.
        """

    def check_reachable(self) -> None:  # noqa: B027  (a default)
        """Raise `NoRunnerReached`, as `runners` does, if there are runners and none was reached for
        so long that calls should not wait for one. A load balancer is not ready then. Synchronous.
        Does nothing by default."""

    def add_load_listener(self, listener: LoadListener) -> None:  # noqa: B027  (a default)
        """Tell ``listener``, as long as it lives, what runners tell of their load by themselves.
        Idempotent. Pools that do not listen to their runners do nothing, as by default."""

    def note_outcome(  # noqa: B027  (a default)
        self, runner: Runner, call: RunnerCall, outcome: Outcome, seconds: float
    ) -> None:
        """An attempt to place ``call`` on ``runner``, which this pool gave, has ended with
        ``outcome`` after ``seconds``. A placer tells the pool of each attempt that was not
        cancelled. An attempt that ran into its time limit before the runner took the call has
        `NotPlaced` with an `AttemptTimedOut`. Synchronous; must not raise. Does nothing by
        default."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close all runners concurrently; cancellation as for `Runner.aclose`. Idempotent."""


class LoadListener(ABC):
    """Wants to know how busy the runners of a pool are."""

    @abstractmethod
    def note_load(self, pool: RunnerPool, runner: Runner, hint: LoadHint | None) -> None:
        """``runner`` has told its load; ``None`` = it can't be heard any more. Synchronous."""


class Placer(ABC):
    """Finds a runner for each call."""

    @abstractmethod
    async def place_call(self, pool: RunnerPool, call: RunnerCall) -> None:
        """Place ``call`` and see it through. Raises the error that ends it. Tells ``pool`` the
        outcome of each attempt (`RunnerPool.note_outcome`).

        Raises `ServerBusy` when no runner took it within the placer's time. Cancelling it
        (the request's scope) cancels the attempt under way.
        """

    @property
    def config(self) -> PlacerConfig:
        """Its times: an LB agent computes the time limit of detached calls of them."""
        return PlacerConfig()

    def stop_waiting(self) -> None:  # noqa: B027  (as below)
        """From now on no call waits for room on a runner: those that do get `ServerBusy` at once,
        others if no runner has room for them now. Calls that wait for one of their function's busy
        containers go on waiting. Synchronous. Idempotent."""

    def close(self) -> None:  # noqa: B027  (placers that never wait need none)
        """Refuse with `ServerBusy` the calls that are still searching. Committed ones go on.
        Synchronous. Idempotent."""


@attrs.frozen
class PKIData:
    """Paths of PEM files: the authority to trust, our key and our certificate."""

    ca: str
    key: str
    cert: str


MTLSRunnerFactory = Callable[[str, str, PKIData | None], Runner]
"""Makes a runner of (address, expected certificate name or "", PKI data or ``None`` = no TLS)."""

# --- the runner side -----------------------------------------------------------------------


class RunningContainer(ABC):
    """A started container."""

    @abstractmethod
    async def wait(self) -> RunResult:
        """Wait until it has ended. May be called by several tasks, again after the end, and
        cancelled at any time: the container goes on."""

    async def wait_stopped(self) -> None:
        """Wait until nothing of it runs any more, so that others may have its memory and CPUs.
        Called while ``Cookie.aclose`` removes the container, and cancelled when that is over: for
        drivers whose removal goes on after that. By default it only ends so."""
        await trio.sleep_forever()


class Cookie(ABC):
    """One container from its options to its removal. Called by one task, in this order:
    ``validate_image``, ``pull_image`` and ``validate_image`` again if it said so,
    ``create_container``, ``run``, any number of ``freeze``/``unfreeze``, ``aclose``."""

    options: Any
    """The driver's create options, to be changed in place before ``create_container``. Every
    driver's have ``env`` (a dict of strings)."""

    @abstractmethod
    async def validate_image(self) -> bool:
        """Whether the image still needs a pull. May wait for the engine. Raises `APIError` if it
        must not be run."""

    @abstractmethod
    async def pull_image(self) -> None:
        """Fetch the image, and wait until it is there. Raises `ImagePullFailed`. The caller sets
        the time limit."""

    @abstractmethod
    async def create_container(self) -> None:
        """Make the container, and wait until it is there, not started. Raises `ServerBusy` if the
        image has vanished since it was validated, or the driver's own trouble."""

    @abstractmethod
    async def run(self) -> RunningContainer:
        """Start the container. Returns before the function offers its socket, which the agent waits
        for. Raises an `APIError` or the driver's own trouble."""

    @abstractmethod
    async def freeze(self) -> None:
        """Stop all that runs in the container, until ``unfreeze``: it keeps its memory and takes no
        CPU time. Called while no call has the container; returns when it stands still. The caller
        sets a deadline, and closes the cookie after any error, which is the driver's own."""

    @abstractmethod
    async def unfreeze(self) -> None:
        """Returns when the container runs again. The caller sets a deadline, and closes the cookie
        after any error, which is the driver's own."""

    @abstractmethod
    async def aclose(self) -> None:
        """Remove the container, whatever state it is in, and free all that came with it.

        The caller shields it and sets a deadline. Must work after any other method failed or
        was cancelled half-way: a container whose creation was interrupted is removed too.
        Idempotent.
        """


class Driver(ABC):
    """Runs containers. Wrap one to customise it; delegate what you don't change."""

    @abstractmethod
    async def create_cookie(self, task: ContainerTask) -> Cookie:
        """Build the container's options of ``task``. Nothing is created yet. The caller always
        closes the cookie. A wrapping driver edits ``cookie.options`` here."""

    def slot_key_extension(self, extensions: Mapping[str, str]) -> str:
        """A string that captures every extension that influences the container, "" for none.

        Calls for which it differs never share a container. Synchronous, and quick: it may be asked
        for each call.
        """
        return ""

    async def sees_directory(self, path: str) -> bool | None:
        """Whether functions can be given the directory ``path`` (of the engine's host); ``None``,
        the default: they see all that this process sees, so that no directory confines them."""
        await trio.lowlevel.checkpoint()
        return None

    async def wait_clean(self) -> None:
        """Wait until what dead processes left here is removed, and the memory that it used is free.
        The default: nothing is left."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:  # noqa: B027  (drivers without state need none)
        """Called by whoever opened the driver, once, after the last cookie was closed: not by the
        agent that was lent it. The default does nothing."""


class KeptContainer(Protocol):
    """A hot container as a `KeepAlive` sees it. It is hashable, and equal to itself only."""

    @property
    def key(self) -> Hashable:
        """Its slot key: what a call must have in common with it."""

    @property
    def memory(self) -> int:
        """Bytes that its end frees; 0 = it is counted with none."""

    @property
    def idle_timeout(self) -> float:
        """Seconds: the ``idle_timeout`` of its function."""

    @property
    def start_seconds(self) -> float:
        """How long it took from its launch until it could take a call."""

    @property
    def idle_since(self) -> float:
        """When it has become idle, in seconds."""

    @property
    def level(self) -> int:
        """How many containers of its key were busy until it became idle, itself included. As calls
        take the one that was used last, it is needed when as many are busy again."""

    @property
    def ahead(self) -> bool:
        """It was started because of `KeepAlive.starts`, and no call has had it yet."""


class KeepAlive(ABC):
    """Decides how long an idle container stays, who goes first when room is scarce, and which
    functions get a container before their next call comes.

    Each agent has one of its own. All methods are synchronous and called in the agent's thread;
    none may block, raise, or call the agent. ``now`` is in seconds of the agent's clock and never
    goes back. `became_idle`, `keep_until` and `taken` are called for nearly every call, so they
    have to be quick: some microseconds. Nothing else is.

    The agent has the last word: nobody is evicted without need, nothing is started ahead of a call
    into room that others use or wait for, and containers of ``hostler/min-warm`` and
    `Agent.keep_warm` stay; a `KeepAlive` is not even told of those.
    """

    starts_ahead: bool = False
    """Whether `starts` ever returns something. Only then the agent remembers what a launch of each
    function takes."""

    # --- what the agent tells ---

    def became_idle(self, container: KeptContainer, now: float) -> None:  # noqa: B027
        """``container`` idles from here on, until it is `taken` or has `left`."""

    def taken(self, container: KeptContainer, now: float) -> None:  # noqa: B027
        """A call has the idle ``container``, whose ``idle_since`` is still what it was."""

    def left(self, container: KeptContainer, now: float, *, early: bool) -> None:  # noqa: B027
        """The idle ``container`` is on its way out; ``early`` = before its time: evicted, ended by
        itself, or its agent closes."""

    def missed(self, key: Hashable, now: float) -> None:  # noqa: B027
        """A call of ``key`` found no container; one is launched for it if there is room."""

    # --- what the agent asks ---

    @abstractmethod
    def keep_until(self, container: KeptContainer, now: float) -> float:
        """Until when the idle ``container`` stays; ``now`` or earlier = it goes. Asked when it
        becomes idle, when that time has come, and whenever the agent looks at it."""

    @abstractmethod
    def rank(self, container: KeptContainer, now: float) -> float:
        """Of the idle containers whose end helps, the lowest ranks are evicted first; among equals
        the least recently used. Also asked of containers that it was not told of, which were to
        stay."""

    def starts(self, now: float) -> Sequence[Hashable]:
        """The slot keys of which a container is to be started now. Each is told once; the agent
        does not start it if one idles or starts already, or if there is no room."""
        return ()

    def next_start(self) -> float:
        """When `starts` has something to tell; `math.inf` = not before another container has
        `left`."""
        return math.inf


CallHook = Callable[[Call, Mapping[str, str]], Awaitable[None]]
"""Gets the model and the extensions of the call that is about to use, or has used, a container."""

CloseHook = Callable[[], Awaitable[None]]


async def no_call_hook(model: Call, extensions: Mapping[str, str]) -> None:
    pass


async def _no_close_hook() -> None:
    pass


def _no_sample(sample: Mapping[str, int]) -> None:
    pass


@attrs.define(kw_only=True)
class ContainerTask:
    """What the agent asks a driver to run. Sizes in bytes unless the name says otherwise. The
    repr leaves out what may hold secrets.

    A driver that wraps another one may replace the three hooks while it makes the cookie::

        inner = task.before_call
        async def before(model, extensions):
            await inner(model, extensions)
            ...
        task.before_call = before

    ``before_call`` raising fails the call and kills the container; ``after_call`` runs after
    each dispatch, also a failed one; ``close`` runs once, when the container ends.
    """

    id: str
    """Unique; the name of the container."""
    image: str
    app_id: str = ""
    fn_id: str = ""
    command: str = ""
    env: dict[str, str] = attrs.field(factory=dict, repr=False)
    extensions: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Of the call that caused the launch, without its registry token."""
    memory: int = 0
    cpus: int = 0
    """Milli-CPUs; 0 = no limit, as everywhere here."""
    fs_size_mb: int = 0
    tmpfs_size_mb: int = 0
    tmpfs_inodes: int = 0
    pids: int = 0
    open_files: int | None = None
    locked_memory: int | None = None
    pending_signals: int | None = None
    message_queue: int | None = None
    syslog_url: str = ""
    iofs_agent_path: str = ""
    """The socket directory as the agent sees it; the function's socket appears in it."""
    iofs_docker_path: str = ""
    """The same directory as the engine's host sees it."""
    iofs_dest: str = "/tmp/iofs"  # noqa: S108  (the place that Fn's function kits know)
    disable_net: bool = False
    registry_token: str = attrs.field(default="", repr=False)
    """For pulling this task's image only; never logged."""
    docker_auth: DockerAuth | None = attrs.field(default=None, repr=False)
    """Gives the credentials for pulling this task's image, unless there is a registry token."""
    on_output: Callable[[bytes, bool], None] | None = None
    """Gets (chunk, is_stderr) of the function's output; ``None`` = output is not captured."""
    on_sample: Callable[[Mapping[str, int]], None] = _no_sample
    """Gets samples of what the container uses, about one a second, from a driver that measures
    it; the names are Fn's (``mem_usage``, ``cpu_total``, ...). Must not block."""
    before_call: CallHook = no_call_hook
    after_call: CallHook = no_call_hook
    close: CloseHook = _no_close_hook


End = Literal["", "call", "container"]
"""What an `OutputPiece` says the end of."""


@attrs.frozen
class OutputPiece:
    """What a function printed: a piece of ``data``, of any size, not cut at lines.

    ``call_id`` is the call that the container works on (``running``), or worked on last ("" =
    none yet). With empty ``data`` it tells the end of a call, of which output may still be under
    way, or of the container, of which nothing follows.
    """

    container_id: str
    app_id: str
    fn_id: str
    call_id: str
    data: bytes
    is_stderr: bool
    running: bool = attrs.field(default=False, kw_only=True)
    ends: End = attrs.field(default="", kw_only=True)


OutputSink = Callable[[OutputPiece], None]
"""Gets what all functions of an agent print. Called in the event loop's thread; it must neither
block nor raise: the function's pipe is not read meanwhile."""

ExitStatus = Literal["success", "error", "killed"]


@attrs.frozen
class RunResult:
    """How a container ended. ``killed`` = by the kernel, for memory.

    ``exit_code`` is as shells have it: 128 and the signal's number for a process that was killed.
    """

    status: ExitStatus
    exit_code: int = 0
    error: APIError | None = None

    @property
    def reason(self) -> str:
        """For people, what the container did: "exited with code 3", "was killed by signal 9";
        "" if nobody knows its exit code."""
        if self.status == "error" and not self.exit_code:
            return ""
        signal = self.exit_code - 128
        if 0 < signal < NSIG:
            return f"was killed by signal {signal}"
        return f"exited with code {self.exit_code}"
