"""One hot container: its life is one task, which belongs to the agent and to no call.

Calls take and give back the container synchronously. The task itself sleeps meanwhile; on a busy
container it wakes up once in a while to see whether it should freeze, not at every call.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Hashable
from functools import partial

import structlog
import trio

from hostler._descriptors import lacks_descriptors
from hostler.abc import ContainerTask, RunningContainer, RunResult
from hostler.call import PendingCall
from hostler.errors import APIError, ContainerInitTimeout, ServerBusy
from hostler.metrics import ReadyOutcome

from .._concurrency.alarm import Nap
from ._decisions import Plan, Resources, plan_idle
from ._endings import why_not_ready
from ._events import AgentEvents, ContainerState, ContainerTrack
from ._freezing import LAUNCHES_FIRST
from ._keeping import Idler, Keeping
from ._output import FunctionOutput
from ._plan import names_of
from ._resources import Share
from ._samples import Samples
from ._sandbox import Sandbox
from ._startup import Kit, NotNeeded
from ._waiting import Launch
from ._worth import MAX_SECONDS
from .socket_directory import Channel

log = structlog.get_logger(__name__)

IDLE_TIMEOUT = "idle timeout"
CLOSING = "closing"
"""Why containers leave when their agent closes."""


class Container(Idler):
    """A container from its launch to its removal; while it is ready, a slot of its queue.

    ``ended`` is set when the container has ended by itself, with ``result`` if the driver knows.
    """

    def __init__(
        self,
        launch: Launch[Container],
        task: ContainerTask,
        share: Share,
        *,
        idle_timeout: float,
        ahead: bool,
        kit: Kit,
        keeping: Keeping,
        events: AgentEvents,
        track: ContainerTrack,
        on_idle: Callable[[], object],
        on_ready: Callable[[], object],
        on_removed: Callable[[], object],
    ) -> None:
        super().__init__(share.size.memory, idle_timeout, ahead=ahead)
        self.task = task
        self.samples = Samples(task)
        self.ended = trio.Event()
        self.result: RunResult | None = None
        self._launch = launch
        self._queue = launch.queue
        self.share = share
        self._keeping = keeping
        self._names = partial(names_of, task)
        self._freezer = kit.freezer
        self._grace = kit.freezer.grace(self._queue.recent_gap, trio.current_time())
        self._patient = kit.config.enable_nb_resource_tracker is False
        self._sandbox = Sandbox(kit, task)
        self._events = events
        self._on_idle = on_idle
        self._on_ready = on_ready
        self._on_removed = on_removed
        self._track = track
        self._output = FunctionOutput(
            task,
            sink=kit.output,
            limit=kit.config.max_log_size_bytes,
            keep=kit.keep_logs,
            debug=kit.debug_logs,
        )
        self._life = trio.CancelScope()
        self._running: RunningContainer | None = None
        self._tasks: trio.Nursery
        self._serving = False
        """Its own task is there for calls, so that there may be others beside it."""
        self._nap = Nap()
        self._leaving = ""
        self._ready = False
        self.fresh = True
        """It has neither served a call nor idled: the call that has it had it started."""
        self._frozen = False
        self._counted = False
        self._began_at = math.inf
        """When its function began to work on the call that has it."""
        self._usable: trio.Event | None = None
        self._taken = False
        self._released: trio.Event | None = None
        """Made by who waits for the call that has it."""

    def __repr__(self) -> str:
        leaving = f" ({self._leaving})" if self._leaving else ""
        state = self._track.state.value if self._track.state else "gone"
        return f"<Container {self.task.id} {self.task.image} {state}{leaving}>"

    @property
    def key(self) -> Hashable:
        """The slot key."""
        return self._queue.key

    @property
    def size(self) -> Resources:
        """What its end frees."""
        return self.share.size

    @property
    def state(self) -> ContainerState | None:
        """Where it is in its life; ``None`` = gone."""
        return self._track.state

    @property
    def busy(self) -> bool:
        """A call has it."""
        return self._taken

    @property
    def kept(self) -> bool:
        """It idles, and has to stay ready for a call."""
        return self._queue.keeps(self)

    @property
    def channel(self) -> Channel:
        """The way to its function; only while it is ready."""
        assert self._sandbox.channel is not None
        return self._sandbox.channel

    # --- what calls and the evictor do with it; all but one synchronous ---

    def take(self, now: float) -> None:
        """A call has it from ``now`` on; it must call `give_back`."""
        self._taken = True
        self.share.taken(worth_seconds=self._queue.worth_seconds)
        self._track.move(ContainerState.BUSY, now)
        if self.idle_since < math.inf:
            self._queue.recent_gap.note(now - self.idle_since, now)
            self._keeping.taken(self, now)
            self.idle_since = math.inf
        self.ahead = False
        if self._frozen:
            self._usable = trio.Event()
            self._nap.end()

    def begin(self, call: PendingCall, now: float) -> None:
        """Its function works on ``call`` from ``now`` on."""
        self._began_at = now
        self._output.begin(call)

    @property
    def usable(self) -> bool:
        """It runs, so that there is nothing to wait for."""
        return self._usable is None and not self._leaving

    async def wait_usable(self) -> bool:
        """Wait until a container that was taken runs; false if it ends instead."""
        if self._usable is not None and not self._leaving:
            await self._usable.wait()
        return not self._leaving

    def give_back(self, *, reusable: bool, now: float | None = None, ran: bool = True) -> None:
        """The call is done with it, at ``now`` if that is known. Not ``reusable`` = it must not
        serve another call. Not ``ran`` = the time says nothing of how long calls run."""
        assert self._taken
        self._taken = self.fresh = False
        if self._released is not None:
            self._released.set()
            self._released = None
        self._output.end("call")
        if not reusable:
            self.leave("failed call")
        now = trio.current_time() if now is None else now
        if self._began_at < math.inf:
            if ran:
                self._queue.ran(now - self._began_at, now)
            self._began_at = math.inf
        if not self._leaving and not self._queue.offer(self):
            self._became_idle(now)

    def let_end(self, rest: Callable[[], Awaitable[bool]], until: float) -> bool:
        """Whether ``rest`` may run instead of the call that has it, which is over but for its
        function: for as long as that may go on (`SlotQueue.spare_seconds`), and not after
        ``until``. Then the container is given back; ``rest`` tells whether it is reusable."""
        seconds, now = 0.0, trio.current_time()
        if self._serving and not self._leaving:
            seconds = self._queue.spare_seconds(now - self._began_at)
        if seconds > 0:
            until = min(until, now + seconds)
            self._tasks.start_soon(self._end_alone, rest, until)
        return seconds > 0

    async def _end_alone(self, rest: Callable[[], Awaitable[bool]], until: float) -> None:
        reusable = False
        try:
            with trio.move_on_at(until):
                reusable = await rest()
        finally:
            self.give_back(reusable=reusable)

    def reconsider(self) -> None:
        """Plan again what to do while it idles: something has changed."""
        self._nap.end()

    def evict(self) -> None:
        """Make room for another function."""
        self._track.evicted()
        self.leave("eviction")

    def leave(self, reason: str) -> None:
        """Take it out of service and have it removed, without waiting for that. Idempotent.

        If a call has it, that call fails: its function is killed.
        """
        if self._leaving:
            return
        self._leaving = reason
        self._keeping.left(self, early=reason != IDLE_TIMEOUT)
        self.share.leave()
        self._track.move(ContainerState.DONE, trio.current_time())
        self._life.cancel()
        if self._usable is not None:
            self._usable.set()
        if self._ready:
            self._queue.gone(self)

    # --- its task ---

    async def run(self) -> None:
        """Live. Raises only `trio.Cancelled`; troubles go to the calls that they concern."""
        self._track.move(ContainerState.START, trio.current_time())
        error: Exception | None = None
        try:
            with self._life:
                await self._live()
        except Exception as caught:  # noqa: BLE001  (reported to a call, or logged)
            error = caught
        finally:
            self.leave("trouble" if error else "end")
            self._report(error)
            try:
                await self._remove()
            finally:
                self._track.move(None, trio.current_time())
                self._output.end("container")
                log.debug("container removed", reason=self._leaving, **self._names())

    async def _remove(self) -> None:
        async with trio.open_nursery() as nursery:
            if self._running is not None:
                nursery.start_soon(self._give_room_back, self._running)
            await self._sandbox.remove(removed=self._removed, released=self._wait_released)
            nursery.cancel_scope.cancel()

    async def _give_room_back(self, running: RunningContainer) -> None:
        """As soon as nothing of it runs any more: what is left to be removed is on the disk, and
        takes an engine longer than to end it."""
        try:
            await running.wait_stopped()
        except Exception:  # a driver's; the removal gives it back
            log.warning("driver can't tell when it stopped", exc_info=True, **self._names())
        else:
            self.share.release()

    async def _live(self) -> None:
        running = self._running = await self._sandbox.start(self._launch.timings, self._is_needed)
        error: Exception | None = None
        async with trio.open_nursery() as self._tasks:
            self._tasks.start_soon(self._watch_end, running)
            try:
                await self._connect()
                self._become_ready()
                await self._serve()
            except Exception as caught:  # noqa: BLE001  (raised below, not in a group)
                error = caught
            finally:
                self._serving = False
            self._tasks.cancel_scope.cancel()
        if error is not None:
            raise error

    def _is_needed(self) -> bool:
        if needed := self._queue.confirm(self._launch):
            self._count()
        return needed

    def _count(self) -> None:
        if not self._counted:
            self._counted = True
            self._events.launched()

    async def _watch_end(self, running: RunningContainer) -> None:
        try:
            self.result = await running.wait()
        except Exception:  # whatever it is, we have lost the container
            log.warning("lost sight of a container", exc_info=True, **self._names())
        else:
            log.info(
                "container ended by itself",
                status=self.result.status,
                exit_code=self.result.exit_code,
                **self._names(),
            )
        self.ended.set()
        self.leave("exit")

    async def _connect(self) -> None:
        started = trio.current_time()
        outcome: ReadyOutcome = "canceled"
        try:
            await self._sandbox.connect(self._launch.timings)
            outcome = "initialized"
        except ContainerInitTimeout:
            outcome = "timedout"
            raise
        finally:
            self._track.awaited(outcome, trio.current_time() - started)

    def _become_ready(self) -> None:
        self._ready = self._serving = True
        self.started(self._launch.timings)
        if not self._queue.launched(self._launch, self):
            self._became_idle(trio.current_time())
        self._on_ready()

    async def _serve(self) -> None:
        """Freeze, thaw and wait until it is time to go."""
        while True:
            plan = self._plan()
            if plan.step == "retire":
                # Its removal takes as much of the engine's time as a launch.
                until = trio.current_time() + LAUNCHES_FIRST
                while self._plan().step == "retire" and not self._freezer.launches.is_near(until):
                    await self._nap.take(until, self._freezer.launches.wait)
                if self._plan().step == "retire":
                    self.leave(IDLE_TIMEOUT)
                    return
            elif plan.step == "thaw":
                await self._thaw()
            elif plan.step == "freeze":
                await self._freeze_in_turn(plan.at)
            else:
                await self._nap.take(plan.at, trio.sleep_forever)

    def _plan(self) -> Plan:
        if self.busy:
            return Plan("thaw" if self._frozen else "rest")
        now = trio.current_time()
        self._grace = self._freezer.grace(self._queue.recent_gap, now)
        return plan_idle(
            now,
            self.idle_since,
            frozen=self._frozen,
            kept=self.kept,
            freeze_after=self._grace,
            retire_at=self._keeping.keep_until(self, now),
        )

    async def _freeze_in_turn(self, retire_at: float) -> None:
        allowed = False
        with trio.CancelScope(deadline=retire_at):
            allowed = await self._freezer.turn(lambda: self._plan().step == "freeze")
        if allowed:
            await self._freeze()

    async def _freeze(self) -> None:
        # From here on it counts as frozen: who takes it now has to wait for the thaw.
        self._frozen = True
        started = trio.current_time()
        await self._sandbox.freeze()
        self._freezer.paused(trio.current_time() - started)
        self._track.froze()
        if not self.busy and not self._leaving:
            self._track.move(ContainerState.PAUSED, trio.current_time())

    async def _thaw(self) -> None:
        started = trio.current_time()
        await self._sandbox.unfreeze()
        now = trio.current_time()
        self._freezer.resumed(now - started)
        self._track.thawed()
        self._frozen = False
        if self._usable is not None:
            self._usable.set()
            self._usable = None
        if not self.busy and not self._leaving:
            self._track.move(ContainerState.IDLE, now)

    def _became_idle(self, now: float) -> None:
        self.idle_since, self.fresh = now, False
        queue = self._queue
        self.share.became_idle(now, now + min(queue.worth_seconds, MAX_SECONDS))
        self.level = queue.alive - queue.idle_count + 1
        look_at = min(now + self._grace, self._keeping.became_idle(self, now))
        # It may have been given back before its thaw.
        self._track.move(ContainerState.PAUSED if self._frozen else ContainerState.IDLE, now)
        if look_at < self._nap.until:  # to set it costs more than the rest of this
            self._nap.end_at(look_at)
        self._on_idle()

    def _removed(self) -> None:
        """Its room is free, though a call may still use the connection."""
        self.share.release()
        self._on_removed()

    async def _wait_released(self) -> None:
        if self._taken:
            if self._released is None:
                self._released = trio.Event()
            await self._released.wait()

    def _report(self, error: Exception | None) -> None:
        """Tell the call that waited for this launch, or whoever reads the log."""
        if self._ready:
            if error is not None:
                log.warning("container is given up", exc_info=error, **self._names())
            return
        if isinstance(error, NotNeeded):
            self._queue.launch_dropped(self._launch)
            return
        self._count()
        error = error or why_not_ready(self.result)
        if lacks_descriptors(error):
            log.warning("no file descriptor is left for a container", **self._names())
            error = ServerBusy()  # nothing of the call has reached anybody
        wait = self._patient or not isinstance(error, ServerBusy)
        concerned = self._queue.launch_failed(self._launch, error, wait=wait)
        if self._leaving == CLOSING:
            return
        self._events.launch_failed()
        log.warning("launch failed", reason=repr(error), **self._names())
        if not concerned and not isinstance(error, APIError):
            log.error("launch failed inside the runner", exc_info=error, **self._names())
