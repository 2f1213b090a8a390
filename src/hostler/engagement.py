"""The engagement seam: one attempt to run one call, as seen from either end of the wire.

``wire/`` implements it over one gRPC stream per call (``Engage``). Runners and the pure runner
only know these classes, so an engagement may also share a stream with others, or be a pair of
memory channels in a test (`hostler.testing`). All methods are Trio-flavoured.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import trio

from .errors import HostlerError
from .frames import (
    ClientFrame,
    Data,
    Finished,
    LoadHint,
    LogContainer,
    LogMessage,
    RunnerFrame,
    RunnerStatus,
    TryCall,
)

NACK_STATUS = 503
"""A gRPC status outside the standard range that means the same as ``finished{503}``."""


UNKNOWN_STATUS = 2
"""The gRPC status with which runners answer a first frame that they do not know."""

UNIMPLEMENTED_STATUS = 12
"""The gRPC status of a method that the server does not know."""

UNAVAILABLE_STATUS = 14
"""The gRPC status of a stream whose connection or server has gone."""


DEADLINE_STATUS = 4
"""The gRPC status of a stream whose deadline, which the client had set, has passed."""


class NotSent(HostlerError):
    """The ``TryCall`` was certainly not handed to the transport: the call may be tried again.

    ``__cause__`` is the trouble (refused, timed out, TLS, closed), the text a summary of it.
    """


class EngagementEnded(HostlerError):
    """The peer has ended the engagement; what was to be sent is of no use any more."""


class EngagementFailed(HostlerError):
    """The stream broke, or ended with a gRPC status other than OK.

    ``status`` is the gRPC status number (503 is possible), ``text`` the peer's message, which
    must not be shown to clients.
    """

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text
        super().__init__(f"gRPC status {status}: {text}")


class ClientEngagement(ABC):
    """The LB's end, open from a sent ``TryCall`` to the end of the stream.

    A ``TryCall`` with ``reserve`` makes it a reservation. The first frame received is then
    `Reserved`, or the `Finished` of a runner that refuses or fails; nothing may be sent before
    `commit`, with which the engagement goes on as any other. Leaving it uncommitted gives the
    slot back, and the call has not run. A peer that does not know reservations ends the stream
    with the status `UNKNOWN_STATUS`, and has not run the call either.
    """

    @abstractmethod
    async def send(self, frame: Data) -> None:
        """Wait for the runner's flow control, then send. Raises `EngagementEnded`."""

    @abstractmethod
    async def commit(self, first: Data | None, *, on_commit: Callable[[], None]) -> None:
        """Send `Commit`, and ``first`` with it if there is one: from here the call may run.

        ``on_commit`` and `NotSent` are as for `RunnerClient.engage`: the one is called when, the
        other raised if certainly not, the `Commit` was handed to the transport. If the runner has
        ended the stream before, neither happens, and ``receive`` tells its outcome. Cancelled
        before the hand-over, nothing is sent.
        """

    def receive_ready(self) -> RunnerFrame | None:
        """The next frame if it is here; ``None``: ask `receive`, as by default."""
        return None

    @property
    def ended(self) -> bool:
        """Whether it is known already that ``receive`` will return ``None``: a short cut, which
        may be false as long as that was not asked."""
        return False

    @abstractmethod
    async def receive(self) -> RunnerFrame | None:
        """The next frame; ``None`` at the regular end (status OK). Not reading stops the runner
        from writing. Raises `EngagementFailed`, or `NotSent` if the runner proves that it never
        looked at the call (it refused the stream, or went away before it): the call may be tried
        again although it counted as committed. Unknown frames are logged and skipped."""


class BegunEngagement(ClientEngagement):
    """One that `RunnerClient.begin` gave: no block ends it."""

    @abstractmethod
    def leave(self) -> None:
        """End it; the runner cancels a call that has not ended. Not a checkpoint."""

    @abstractmethod
    def cut(self) -> None:
        """Break it off, whoever works with it: the runner cancels the call, and ``receive`` raises
        `EngagementFailed`. Synchronous."""


class RunnerClient(ABC):
    """A client of one runner, made without connecting; connections are opened when needed."""

    @property
    @abstractmethod
    def address(self) -> str: ...

    @abstractmethod
    def engage(
        self,
        try_call: TryCall,
        *,
        first: Data | None = None,
        request_id: str = "",
        deadline: float = math.inf,
        on_commit: Callable[[], None] = lambda: None,
    ) -> AbstractAsyncContextManager[ClientEngagement]:
        """Open an engagement: send ``try_call``, and ``first`` with it if there is one.

        ``deadline`` (`trio.current_time`) is told to the runner, as the time that is left; it
        ends nothing at this end. A runner that is not done by then ends the stream with
        `DEADLINE_STATUS`.

        ``on_commit`` is called synchronously when ``try_call`` was handed to the transport.
        Entering raises `NotSent` if that certainly did not happen. If the runner ends the stream
        with a status before, ``on_commit`` is not called and ``receive`` raises that status.
        Leaving the block before the end of the stream, or being cancelled, resets the stream: the
        runner cancels the call.
        """

    def begin(
        self,
        make: Callable[[], TryCall],
        *,
        first: Data,
        request_id: str = "",
        deadline: float = math.inf,
        on_commit: Callable[[], None] = lambda: None,
    ) -> BegunEngagement | None:
        """As `engage` for a call whose whole body is ``first``, if nothing has to be waited for:
        what ``make`` gives and the body are sent in this turn of the scheduler, or, should the
        connection break before its end, never, which ``receive`` tells by `NotSent`.

        ``on_commit`` is called before this returns. The engagement is to be left by its `leave`.
        ``None`` if that is not possible now, which is what the default says. Raises what ``make``
        raises. Synchronous.
        """
        return None

    @abstractmethod
    async def status(self, payload: str | None = None) -> RunnerStatus:
        """``Status``, or ``Status2`` with ``payload``, a JSON object as text.
        Raises `EngagementFailed` or `NotSent`."""

    @abstractmethod
    async def configure(self, config: Mapping[str, str]) -> None:
        """``ConfigureRunner``. Raises `EngagementFailed` or `NotSent`."""

    async def watch_health(self, tell: Callable[[bool], None]) -> None:
        """Call ``tell`` with whether the runner takes calls, now and after each change, until it
        can't be told any more: raises `EngagementFailed` or `NotSent`.

        Returns if the runner has no way to tell, which is what the default does.
        """
        await trio.lowlevel.checkpoint()

    async def watch_load(self, tell: Callable[[LoadHint], None]) -> None:
        """Call ``tell`` with how busy the runner is, now and after changes, until it can't be
        told any more: raises `EngagementFailed` or `NotSent`.

        Returns if the runner has no way to tell, which is what the default does.
        """
        await trio.lowlevel.checkpoint()

    @abstractmethod
    def stream_logs(self) -> AbstractAsyncContextManager[LogCollector]:
        """``StreamLogs``, from the collector's side."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connections at once; running engagements fail. Idempotent."""


class LogCollector(ABC):
    """The collector's end of a log stream."""

    @abstractmethod
    async def send(self, message: LogMessage) -> None: ...

    @abstractmethod
    async def receive(self) -> Sequence[LogContainer] | None:
        """The next batch; ``None`` at the regular end. Raises `EngagementFailed`."""


class ServerEngagement(ABC):
    """The runner's end."""

    request_id: str
    """Of the metadata ``fn_request_id``; "" = none."""
    peer: str
    """The LB's address, for logs."""
    client: str = ""
    """Who the LB is, the same on all of its connections: what it says itself, else ``peer``."""
    named: bool = False
    """Whether the LB has named itself: it is one of hostler's, which let refused calls wait in
    order. Others ask again and again."""
    deadline: float = math.inf
    """When the LB gives the call up (`trio.current_time`); the engagement is cancelled then."""
    prepared: object = None
    """What the service keeps here between `RunnerService.refuse` and `RunnerService.engage`."""

    @abstractmethod
    async def receive(self) -> ClientFrame | None:
        """The next frame; ``None`` when the LB has half-closed. Not reading stops the LB from
        writing. A frame of neither kind is a `ProtocolError`."""

    @abstractmethod
    async def send(self, frame: RunnerFrame) -> None:
        """Wait for the LB's flow control, then send. Data of any size: it is cut to frames."""

    async def send_all(self, frames: Sequence[RunnerFrame], *, last: bool = False) -> None:
        """As `send`, for frames that are there at the same time: they go out in one write.

        ``last`` promises that the service returns at once after it; they may then be kept until
        the end of the RPC goes out with them.
        """
        for frame in frames:
            await self.send(frame)


class LogChannel(ABC):
    """The runner's end of a log stream."""

    @abstractmethod
    async def receive(self) -> LogMessage | None: ...

    @abstractmethod
    async def send(self, batch: Sequence[LogContainer]) -> None: ...


class GRPCStatus(HostlerError):
    """Raised by a `RunnerService` to end an RPC with this status number and text."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text
        super().__init__(f"gRPC status {status}: {text}")


class RunnerService(ABC):
    """What a server of the runner protocol serves. Each RPC has a Trio task and a context to
    itself while it runs, and is cancelled when the peer resets the stream or its connection is
    lost.

    Returning ends the RPC with OK, `GRPCStatus` with that status; anything else is logged and
    ends it with UNKNOWN and a text that tells nothing.
    """

    @abstractmethod
    async def engage(self, engagement: ServerEngagement) -> None: ...

    def refuse(self, engagement: ServerEngagement, first: TryCall) -> Finished | None:
        """The whole answer to an engagement that begins with ``first``, if it is refused at once.
        ``None``, as by default: it has to be engaged, and receives ``first`` again. For a server
        that would rather not make a task for a call that it has no room for.

        Synchronous: it sends and receives nothing. Must not raise.
        """
        return None

    @abstractmethod
    async def status(self, payload: str | None) -> RunnerStatus:
        """``payload`` is ``None`` for ``Status``, the struct as JSON text for ``Status2``."""

    @abstractmethod
    async def configure(self, config: Mapping[str, str]) -> None: ...

    @abstractmethod
    async def stream_logs(self, channel: LogChannel) -> None: ...

    async def watch_load(self, send: Callable[[LoadHint], Awaitable[None]]) -> None:
        """``send`` how busy the runner is, now and after changes, until cancelled. The default
        is a service that can't tell."""
        await trio.lowlevel.checkpoint()
        raise GRPCStatus(UNIMPLEMENTED_STATUS, "this runner does not tell its load")
