"""The seams of hostler: what can be replaced, and what each side may rely on.

Everything in hostler is written against these classes. Each docstring is the contract: what may
be called when, what an exception means, what cancellation does. All async methods are
Trio-flavoured and can be cancelled unless the docstring says otherwise; a method with nothing to
wait for need not give other tasks a turn.

Grouped by who implements them:

* a caller: `Body`, `ResponseWriter`, `CallOverrider`, `CallListener`
* the LB side: `Placer`, `RunnerPool`, `Runner`, `RunnerCall`
* the runner side: `Driver`, `Cookie`, `RunningContainer`, and `ContainerTask`, which the agent
  hands to a driver; `KeepAlive`, which is shown containers as `KeptContainer`
* what a front end needs of either agent: `CallAgent`
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import trio

from ._container_task import CallHook, CloseHook, ContainerTask, ExitStatus, RunResult
from ._keep_alive_seam import KeepAlive, KeptContainer
from ._runner_seam import NotPlaced, Outcome, Placed, Runner
from ._spans import Span
from .config import PlacerConfig
from .frames import Headers, LoadHint
from .models import Call

if TYPE_CHECKING:
    from .call import CallOption, PendingCall, Timings

__all__ = [
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
    "InnerAgent",
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
    "RunnerCall",
    "RunnerPool",
    "RunningContainer",
    "SlotHook",
]

# --- bodies and responses ------------------------------------------------------------------


class Body(ABC):
    """A request body.

    ``open`` returns a stream from the body's first byte, each time it is called: a call that
    was NACKed is sent again. A body that can't start over any more raises `BodyConsumed`. A
    failing read raises from ``receive_some``; it must never look like the end of the body.
    """

    @abstractmethod
    def open(self) -> trio.abc.ReceiveStream: ...

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
    An exception from either method ends the call with that exception. So does one from
    ``start_now`` and ``write_now``, which are asked first where all of a response is there: they do
    the same if there is nothing to wait for, and else, or by default, nothing and return false.
    """

    @abstractmethod
    async def start(self, status: int, headers: Headers) -> None: ...

    @abstractmethod
    async def write(self, data: bytes | memoryview) -> None: ...

    def start_now(self, status: int, headers: Headers) -> bool:
        """As ``start``, without a wait. Synchronous."""
        return False

    def write_now(self, data: bytes) -> bool:
        """As ``write``, without a wait. Synchronous."""
        return False


@attrs.define
class CallRequest:
    """The HTTP request that made the call, as the front end saw it. ``headers`` have canonical
    names; like everything that may hold secrets they are not in the repr. The call's own are
    ``Call.headers``: to change these here changes nothing."""

    method: str
    url: str
    headers: dict[str, list[str]] = attrs.field(repr=False)
    body: Body | None = None


CallOverrider = Callable[[CallRequest, Call, Mapping[str, str]], Mapping[str, str]]
"""A service provider's hook, on the LB and on the runner, once per call.

Gets the request, the call model (may be changed in place, any field) and the extensions so far;
returns the extensions that replace them. Synchronous, because no task exists yet: it must not
block. An `APIError` ends the call with its code, anything else with 500. A `ServerBusy` raised on
a runner asks the LB to try elsewhere.
"""


SlotHook = Callable[[], Awaitable[None]]
"""Awaited in a call's own task once it has its container, before anything of the call reaches
that, and before listeners hear of it. The call goes on when it returns; what it raises ends the
call, and the container serves others as if nothing had been."""


class CallListener:
    """Told about each call of an agent, in order of registration, in the call's own task.

    ``before_call``: the call has a slot (runner) or is about to be placed (LB); an exception
    ends the call with that exception. ``after_call``: the call is over and its model complete;
    it also runs when the call was cancelled (then shielded, with a deadline); an exception is
    logged, the later listeners still run. `note_end` is for listeners that only take note.
    """

    def hears_begin(self, call: PendingCall) -> bool:
        """Whether ``before_call`` is to be awaited for ``call``, which has its costs. By default it
        is unless it does nothing. Synchronous. Only a runner's agent asks."""
        return getattr(self.before_call, "__func__", None) is not CallListener.before_call

    async def before_call(self, call: PendingCall) -> None:
        """The default does nothing."""

    async def after_call(self, call: PendingCall) -> None:
        """The default does nothing, and costs nothing."""

    def note_end(self, call: PendingCall) -> None:
        """As ``after_call``, and before it, without its cost: synchronous, and must not block."""


class CallAgent(ABC):
    """What a front end needs of an LB agent or of a runner's agent."""

    @abstractmethod
    def get_call(self, *options: CallOption) -> PendingCall:
        """Make a call of the caller's options, then the agent's, then the overrider.

        Raises the options' and the overrider's errors, and 400 `CallResourceTooBig`.
        """

    @abstractmethod
    async def submit(self, call: PendingCall) -> None:
        """Run the call to its end, or, if it is detached, until it is acknowledged.

        Raises the `APIError` that ended it. Cancelling the caller's scope ends the call everywhere,
        down to the container; a detached one up to its acknowledgement. ``call.scope``: see there.
        """


class InnerAgent(CallAgent):
    """What a pure runner needs beyond that of the agent behind it."""

    @abstractmethod
    def add_listener(self, listener: CallListener) -> None:
        """Tell ``listener`` about the calls from now on, after the present listeners."""

    def refuse(self, call: PendingCall) -> bool:
        """Refuse ``call`` if `submit` certainly would, at once, with `ServerBusy`: then it is over,
        and must not be submitted. Synchronous, and cheap. The default refuses nothing."""
        return False

    def load_hint(self, call: PendingCall) -> LoadHint | None:
        """What to tell the LB of this agent's load with the answer to ``call``, which is over or
        was refused. Synchronous. The default, ``None``, tells nothing."""
        return None

    def load(self) -> LoadHint | None:
        """How busy this agent is now, as `load_hint` but of no call in particular."""
        return None

    def load_figures(self) -> LoadHint | None:
        """As `load`, asked for more often: may leave out ``warm``, and is not ``complete`` then,
        if that takes long. The default is `load`."""
        return self.load()

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
        `SlotHook`; running ones go on. Idempotent."""


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
    gentle: bool = False
    """A runner is to refuse it rather than evict a hot container that is worth keeping."""
    launch: bool = False
    """A runner is to start a container for it unless one is idle."""
    waited: bool = False
    """It has had to wait for room, so none is to be kept from it."""
    span: Span | None = None
    """What is done for it now, if somebody records that."""

    @abstractmethod
    def add_user_execution_ns(self, duration_ns: int) -> None:
        """Add time that the function itself used; also kept in the model."""


class RunnerPool(ABC):
    """Knows the runners."""

    @abstractmethod
    async def runners(self, call: RunnerCall) -> Sequence[Runner]:
        """The runners to try for ``call``, in order of preference; asked before every sweep.

        An empty list means "none now, ask again". Raising a 502 `FunctionError` means that
        asking again is useless; any other exception is retried until the placer gives up.
        """

    def runners_now(self, call: RunnerCall) -> Sequence[Runner] | None:
        """What ``runners`` would return, or raise, if there is nothing to wait for; else ``None``.
        Asked first: it is what spares each call a time limit."""
        return None

    def add_load_listener(self, listener: LoadListener) -> None:  # noqa: B027  (a default)
        """Tell ``listener``, as long as it lives, what runners tell of their load by themselves.
        Idempotent. Pools that do not listen to their runners do nothing, as by default."""

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
        """Place ``call`` and see it through. Raises the error that ends it.

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
        containers go on waiting."""

    def close(self) -> None:  # noqa: B027  (placers that never wait need none)
        """Refuse with `ServerBusy` the calls that are still searching. Committed ones go on."""


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
        """Whether the image still needs a pull. Raises `APIError` if it must not be run."""

    @abstractmethod
    async def pull_image(self) -> None:
        """Fetch the image. Raises `ImagePullFailed`. The caller sets the time limit."""

    @abstractmethod
    async def create_container(self) -> None:
        """Raises `ServerBusy` if the image has vanished since it was validated."""

    @abstractmethod
    async def run(self) -> RunningContainer:
        """Start the container. Raises an `APIError` or the driver's own trouble."""

    @abstractmethod
    async def freeze(self) -> None: ...

    @abstractmethod
    async def unfreeze(self) -> None:
        """Returns when the container runs again."""

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

        Calls for which it differs never share a container.
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
