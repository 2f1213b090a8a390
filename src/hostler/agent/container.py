"""Hot container: its states, its task from socket directory to removal, and its use by calls.

Calls take and give back the container synchronously. The container's task sleeps meanwhile. While
the container is in use, it wakes up now and then to see whether it should freeze, not at every
call.
"""

from __future__ import annotations

import errno
import math
import socket
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Literal, Protocol

import attrs
import structlog
import trio

from .._concurrency.alarm import Alarm
from .._concurrency.directory_watch import DirectoryWatch, DirectoryWatcher
from .._descriptors import lacks_descriptors
from ..abc import ContainerTask, Cookie, Driver, KeepAlive, OutputSink, RunningContainer, RunResult
from ..calls import PendingCall, Timings, stopwatch
from ..config import AgentConfig
from ..errors import (
    APIError,
    ContainerInitFailed,
    ContainerInitTimeout,
    ContainerOutOfMemory,
    FunctionError,
    HostlerError,
    ImagePullTimeout,
    ServerBusy,
)
from ..metrics import ReadyOutcome
from .freezing import LAUNCHES_FIRST, Freezer
from .keep_alive import Keeping
from .output import ContainerOutput, Samples
from .resources import MAX_SECONDS, Resources, ResourceToken
from .slots import Launch
from .socket_directory import (
    SOCKET_NAME,
    BadSocket,
    Channel,
    FunctionSocket,
    SocketDirectory,
    make_socket_directory,
)
from .statistics import READY, AgentEvents, ContainerState, ContainerTrack
from .template import ContainerTemplate, names_of

log = structlog.get_logger(__name__)

IDLE_TIMEOUT = "idle timeout"

CLOSING = "closing"
"""Why containers leave when their agent closes."""


class ContainerOwner(Protocol):
    """Has the containers of an agent."""

    deps: ContainerDeps
    keeping: Keeping
    closing: bool
    """Whether a container has to leave as soon as no call has it."""

    def container_ready(self) -> None:
        """A container can take calls."""

    def container_removed(self) -> None:
        """A container does not exist any more, and its resources are free."""


class LeftCall(Protocol):
    """A call whose client has left, while its function goes on."""

    async def finish(self) -> bool:
        """Let the function end. Returns whether the container may serve other calls."""


class Container:
    """A container from its launch to its removal; while it is ready, a slot of its queue, and a
    `KeptContainer`.

    Its ``track`` says where it is in its life (`ContainerState`); statistics, metrics and its
    resources follow from that. ``ended`` is set when the container has ended by itself, with
    ``result`` if the driver knows.
    """

    def __init__(
        self,
        launch: Launch[Container],
        template: ContainerTemplate,
        token: ResourceToken,
        track: ContainerTrack,
        owner: ContainerOwner,
    ) -> None:
        deps, task = owner.deps, template.task
        self.task = task
        self.samples = Samples(task)
        self.ended = trio.Event()
        self.result: RunResult | None = None
        self.token = token
        self.memory = token.size.memory
        self.idle_timeout = template.idle_timeout
        self.ahead = launch.ahead
        self.idle_since = math.inf
        self.start_seconds = 0.0
        self.level = 1
        self.policy_knows = False
        self._launch = launch
        self._queue = launch.queue
        self._owner = owner
        self._keeping = owner.keeping
        self._names = partial(names_of, task)
        self._freezer = deps.freezer
        self._grace = deps.freezer.grace(self._queue.recent_gap.value(trio.current_time()))
        self._waits_for_room = deps.config.enable_nb_resource_tracker is False
        self._sandbox = Sandbox(deps, task)
        self._events = deps.events
        self._track = track
        self._output: ContainerOutput | None = None
        """``None`` = nobody wants it."""
        if deps.captures_output:
            self._output = ContainerOutput(
                task,
                sink=deps.output,
                limit=deps.config.max_log_size_bytes,
                keep=deps.keep_logs,
                debug=deps.debug_logs,
            )
        self._life = trio.CancelScope()
        self._running: RunningContainer | None = None
        self._tasks: trio.Nursery
        """The container's own task, and others beside it while it is there for calls."""
        self._trouble: Exception | None = None
        """What its task raised."""
        self._alarm = Alarm()
        self._reason = ""
        """Why it leaves."""
        self._was_ready = False
        """It was ready when it left."""
        self.fresh = True
        """It has neither served a call nor idled: it was started for the call that has it."""
        self._counted = False
        self._began_at = math.inf
        """When its function began to work on the call that has it."""
        self._thawed: trio.Event | None = None
        """Only while it is frozen, or about to be: set when it runs again, or leaves."""
        self.busy = False
        """A call has it, perhaps although it leaves."""
        self._released: trio.Event | None = None
        """Set when the call that has it is over. Made when the removal waits for that."""

    def __repr__(self) -> str:
        leaving = f" ({self._reason})" if self._reason else ""
        state = self._track.state.value if self._track.state else "gone"
        return f"<Container {self.task.id} {self.task.image} {state}{leaving}>"

    @property
    def key(self) -> Hashable:
        """The slot key."""
        return self._queue.key

    @property
    def size(self) -> Resources:
        """What its end frees."""
        return self.token.size

    @property
    def state(self) -> ContainerState | None:
        """Where it is in its life; ``None`` = gone."""
        return self._track.state

    @property
    def leaving(self) -> bool:
        """It is on its way out, or gone."""
        return self.state is ContainerState.DONE or self.state is None

    @property
    def kept(self) -> bool:
        """It idles, and has to stay ready for a call."""
        return self._queue.keeps(self)

    @property
    def channel(self) -> Channel:
        """The connections to its function; only while it is ready."""
        assert self._sandbox.channel is not None
        return self._sandbox.channel

    # --- what calls and the evictor do with it; all but one synchronous ---

    def take(self, now: float) -> None:
        """A call has it from ``now`` on. The call must `give_back`."""
        self.busy = True
        self.token.taken(worth_seconds=self._queue.worth_seconds(idle=False))
        self._track.move(ContainerState.BUSY, now)
        if self.idle_since < math.inf:
            self._queue.recent_gap.note(now - self.idle_since, now)
            self._keeping.taken(self, now)
            self.idle_since = math.inf
        self.ahead = False
        if self._thawed is not None:
            self._alarm.end()

    def begin(self, call: PendingCall, now: float) -> None:
        """Its function works on ``call`` from ``now`` on."""
        self._began_at = now
        if call.surplus:
            self._queue.note_surplus()
        if self._output is not None:
            self._output.begin(call)

    @property
    def usable(self) -> bool:
        """It runs, so that there is nothing to wait for."""
        return self._thawed is None and not self.leaving

    async def wait_usable(self) -> bool:
        """Wait until a container that was taken runs; false if it ends instead."""
        if self._thawed is not None:
            await self._thawed.wait()
        return not self.leaving

    def give_back(self, *, reusable: bool, now: float | None = None, ran: bool = True) -> None:
        """The call is done with it, at ``now`` if that is known. Not ``reusable`` = it must not
        serve another call. Not ``ran`` = the time says nothing about how long calls run."""
        assert self.busy
        self.busy = self.fresh = False
        if self._released is not None:
            self._released.set()
            self._released = None
        if self._output is not None:
            self._output.end("call")
        if not reusable:
            self.leave("failed call")
        now = trio.current_time() if now is None else now
        if self._began_at < math.inf:
            if ran:
                self._queue.ran(now - self._began_at, now)
            self._began_at = math.inf
        if not self.leaving and not self._queue.offer(self):
            self._became_idle(now)

    def let_end(self, call: LeftCall, until: float) -> bool:
        """Whether the function that works on ``call`` may end by itself, for as long as
        `SlotQueue.spare_seconds` says and not after ``until``. If so, the container is given back
        then."""
        seconds, now = 0.0, trio.current_time()
        if not self.leaving:
            seconds = self._queue.spare_seconds(now - self._began_at)
        if seconds > 0:
            self._tasks.start_soon(self._end_alone, call, min(until, now + seconds))
        return seconds > 0

    async def _end_alone(self, call: LeftCall, until: float) -> None:
        reusable = False
        try:
            with trio.move_on_at(until):
                reusable = await call.finish()
        finally:
            self.give_back(reusable=reusable)

    def reconsider(self) -> None:
        """Plan again what to do while it idles: something has changed."""
        self._alarm.end()

    def evict(self) -> None:
        """Leave to make room for another container."""
        self._track.evicted()
        self.leave("eviction")

    def leave(self, reason: str) -> None:
        """Take it out of service and have it removed, without waiting for that. Idempotent.

        If a call has it, that call fails: its function is killed.
        """
        if self.leaving:
            return
        self._reason = reason
        self._was_ready = self.state in READY
        self._keeping.left(self, early=reason != IDLE_TIMEOUT)
        self.token.leave()
        self._track.move(ContainerState.DONE, trio.current_time())
        self._life.cancel()
        if self._thawed is not None:
            self._thawed.set()
        if self._was_ready:
            self._queue.gone(self)

    # --- its task ---

    async def run(self) -> None:
        """Live. Raises only `trio.Cancelled`; other errors go to the calls that they concern."""
        self._track.move(ContainerState.START, trio.current_time())
        try:
            with self._life:
                await self._live()
        except Exception as caught:  # noqa: BLE001  (reported to a call, or logged)
            self._trouble = caught
        finally:
            self.leave("trouble" if self._trouble else "end")
            self._report(self._trouble)
            try:
                await self._remove()
            finally:
                self._track.move(None, trio.current_time())
                if self._output is not None:
                    self._output.end("container")
                log.debug("container removed", reason=self._reason, **self._names())

    async def _remove(self) -> None:
        """Remove everything that there is of it. Errors are logged. Raises only `trio.Cancelled`,
        and that after all steps are done, each of which has a deadline."""
        async with trio.open_nursery() as nursery:
            if self._running is not None:
                nursery.start_soon(self._give_room_back, self._running)
            await self._sandbox.remove_container()
            # The resources are free, though a call may still be taking what the function has sent.
            self.token.release()
            self._owner.container_removed()
            try:
                await self._wait_released()
            finally:
                # Where this is cancelled, the calls were cancelled before.
                with self._owner.deps.removals.step():
                    await self._wait_released()
                await self._sandbox.clean_up()
            nursery.cancel_scope.cancel()

    async def _give_room_back(self, running: RunningContainer) -> None:
        """Give the resources back as soon as nothing of the container runs. The rest of its removal
        is on the disk, and takes an engine longer than ending it."""
        try:
            await running.wait_stopped()
        except Exception:  # of the driver; the removal gives the resources back
            log.warning("driver can't tell when it stopped", exc_info=True, **self._names())
        else:
            self.token.release()

    async def _live(self) -> None:
        timings = self._launch.timings
        cookie = await self._sandbox.prepare(timings)
        running = self._running = await self._create_and_run(cookie)
        async with trio.open_nursery() as self._tasks:
            self._tasks.start_soon(self._watch_end, running)
            try:
                await self._connect()
                self._become_ready()
                await self._serve()
            except Exception as caught:  # noqa: BLE001  (reported to a call, or logged)
                self._trouble = caught
            finally:
                self.leave("trouble" if self._trouble else "end")

    async def _create_and_run(self, cookie: Cookie) -> RunningContainer:
        """Create and start the container, when it is its turn. Raises what the driver raises, and
        `LaunchObsolete` if no call needs it then."""
        deps = self._owner.deps
        with deps.freezer.launches.disturbed():
            async with deps.launch_slots:
                if not self._queue.confirm(self._launch):
                    raise LaunchObsolete
                self._count()
                with stopwatch(self._launch.timings, "ctr_create_ns"):
                    await cookie.create_container()
                    return await cookie.run()

    def _count(self) -> None:
        if not self._counted:
            self._counted = True
            self._events.launched()

    async def _watch_end(self, running: RunningContainer) -> None:
        try:
            self.result = await running.wait()
        except Exception:  # of the driver: nothing more is known of the container
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
        if self.leaving:  # it has ended, or its agent has closed, at this moment
            return
        self.start_seconds = self._launch.timings.start_seconds
        if not self._queue.launched(self._launch, self):
            self._became_idle(trio.current_time())
        self._owner.container_ready()

    async def _serve(self) -> None:
        """Freeze, thaw and wait until it is time to leave."""
        while True:
            plan = self._plan()
            if plan.step == "retire":
                # Its removal takes as much of the engine's time as a launch.
                until = trio.current_time() + LAUNCHES_FIRST
                while self._plan().step == "retire" and not self._freezer.launches.is_near(until):
                    await self._alarm.take(until, self._freezer.launches.wait)
                if self._plan().step == "retire":
                    self.leave(IDLE_TIMEOUT)
                    return
            elif plan.step == "thaw":
                await self._thaw()
            elif plan.step == "freeze":
                await self._freeze_in_turn(plan.at)
            else:
                await self._alarm.take(plan.at, trio.sleep_forever)

    def _plan(self) -> IdlePlan:
        if self.busy:
            return IdlePlan("rest" if self._thawed is None else "thaw")
        now = trio.current_time()
        self._grace = self._freezer.grace(self._queue.recent_gap.value(now))
        return plan_idle(
            now,
            frozen=self._thawed is not None,
            kept=self.kept,
            freeze_at=self.idle_since + self._grace,
            retire_at=self._keeping.keep_until(self, now),
        )

    def may_freeze(self) -> bool:
        """Whether it is to be frozen, now that it is its turn."""
        return self._plan().step == "freeze"

    async def _freeze_in_turn(self, retire_at: float) -> None:
        allowed = False
        with trio.CancelScope(deadline=retire_at):
            allowed = await self._freezer.turn(self)
        if allowed:
            await self._freeze()

    async def _freeze(self) -> None:
        # From here on it counts as frozen: a call that takes it has to wait for the thaw.
        self._thawed = trio.Event()
        started = trio.current_time()
        await self._sandbox.freeze()
        self._freezer.paused(trio.current_time() - started)
        self._events.froze()
        if not self.busy and not self.leaving:
            self._track.move(ContainerState.PAUSED, trio.current_time())

    async def _thaw(self) -> None:
        started = trio.current_time()
        await self._sandbox.unfreeze()
        now = trio.current_time()
        self._freezer.resumed(now - started)
        self._events.thawed()
        if self._thawed is not None:
            self._thawed.set()
            self._thawed = None
        if not self.busy and not self.leaving:
            self._track.move(ContainerState.IDLE, now)

    def _became_idle(self, now: float) -> None:
        self.idle_since, self.fresh = now, False
        queue = self._queue
        self.level = queue.alive - queue.idle_count + 1
        check_at = min(now + self._grace, self._keeping.became_idle(self, now))
        # The call may have given it back before its thaw.
        frozen = self._thawed is not None
        self._track.move(ContainerState.PAUSED if frozen else ContainerState.IDLE, now)
        if check_at < self._alarm.until:  # setting the alarm costs more than the rest of this
            self._alarm.end_at(check_at)
        self.token.became_idle(now, now + min(queue.worth_seconds(idle=True), MAX_SECONDS))
        if self._owner.closing:
            self.leave(CLOSING)

    async def _wait_released(self) -> None:
        if self.busy:
            if self._released is None:
                self._released = trio.Event()
            await self._released.wait()

    def _report(self, error: Exception | None) -> None:
        """Tell the call that waited for this launch, or the log."""
        if self._was_ready:
            if error is not None:
                log.warning("container is given up", exc_info=error, **self._names())
            return
        if isinstance(error, LaunchObsolete):
            self._queue.launch_dropped(self._launch)
            return
        self._count()
        error = error or why_not_ready(self.result)
        if lacks_descriptors(error):
            log.warning("no file descriptor is left for a container", **self._names())
            error = ServerBusy()  # nothing of the call has been sent
        elif isinstance(error, DirectoryFull):
            log.warning("no room for a container", reason=str(error), **self._names())
            error = ServerBusy()  # another runner may have room on its disk
        wait = self._waits_for_room or not isinstance(error, ServerBusy)
        concerned = self._queue.launch_failed(self._launch, error, wait=wait)
        if self._reason == CLOSING:
            return
        self._events.launch_failed()
        log.warning("launch failed", reason=repr(error), **self._names())
        if not concerned and not isinstance(error, APIError):
            log.error("launch failed inside the runner", exc_info=error, **self._names())


FREEZE_LIMIT = 5.0
"""Seconds that freezing or thawing may take (Fn's value)."""


class NoDirectory(HostlerError):
    """The place for sockets (FN_IOFS_PATH) is full, read-only or gone. It was usable at the start,
    when it was tried."""


class DirectoryFull(NoDirectory):
    """It is full, of files or of bytes: calls end there, and others make room again."""


class Sandbox:
    """A container with its socket directory and its connection. Used by one task."""

    def __init__(self, deps: ContainerDeps, task: ContainerTask) -> None:
        self.task = task
        self.channel: Channel | None = None
        self._deps = deps
        self._cookie: Cookie | None = None
        self._directory: SocketDirectory | None = None
        self._watch: DirectoryWatch | None = None
        self._watching = ExitStack()

    async def prepare(self, timings: Timings) -> Cookie:
        """Do everything before the creation of the container. Raises what the steps raise; see
        `pull`."""
        with stopwatch(timings, "ctr_prep_ns"):
            directory = self._directory = self._make_directory()
            self.task.iofs_agent_path = directory.path
            self.task.iofs_docker_path = directory.docker_path
            # Watch before the start, or a quick function's socket would be missed.
            watch = self._deps.watcher.watch(directory.path)
            self._watch = self._watching.enter_context(watch)
            cookie = self._cookie = await self._deps.driver.create_cookie(self.task)
            to_be_pulled = await cookie.validate_image()
        if to_be_pulled:
            await pull(self._deps, cookie, timings)
        return cookie

    def _make_directory(self) -> SocketDirectory:
        """Raises `NoDirectory`."""
        config = self._deps.config
        try:
            return make_socket_directory(config)
        except OSError as error:
            where = config.iofs_path or "the system's directory for temporary files"
            kind = DirectoryFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else NoDirectory
            raise kind(f"no socket directory can be made in {where}: {error}") from error

    async def connect(self, timings: Timings) -> Channel:
        """Wait until the started function accepts connections. Raises as `wait_ready` does."""
        assert self._directory is not None
        assert self._watch is not None
        ready = await wait_ready(self._deps, self._directory, self._watch, timings)
        self._watching.close()
        self.channel = Channel(*ready, self._deps.config.max_hdr_response_size)
        return self.channel

    async def freeze(self) -> None:
        """Raises `trio.TooSlowError`, or what the driver raises."""
        assert self._cookie is not None
        with trio.fail_after(FREEZE_LIMIT):
            await self._cookie.freeze()

    async def unfreeze(self) -> None:
        """Raises `trio.TooSlowError`, or what the driver raises."""
        assert self._cookie is not None
        with trio.fail_after(FREEZE_LIMIT):
            await self._cookie.unfreeze()

    async def remove_container(self) -> None:
        """Remove the container. As in each step of the removal, errors are logged."""
        self._watching.close()
        if self._cookie is not None:
            await self._step("remove container", self._cookie.aclose)

    async def clean_up(self) -> None:
        """Remove the rest, which no call uses any more."""
        if self.channel is not None:
            self.channel.close()
        await self._step("close hook", self.task.close)
        if self._directory is not None:
            await self._step("remove socket directory", self._directory.remove)

    async def _step(self, name: str, action: Callable[[], Awaitable[None]]) -> None:
        removals = self._deps.removals
        with removals.step() as scope:
            try:
                await action()
            # The other steps have to be done anyway.
            except HostlerError as error:  # the engine's
                names = {"step": name, "container_id": self.task.id}
                log.warning("removal failed", reason=str(error), **names)
            except Exception:
                log.exception("removal failed", step=name, container_id=self.task.id)
        if scope.cancelled_caught and removals.over:
            removals.left.append(self.task.id)
        elif scope.cancelled_caught:
            log.error("removal takes too long", step=name, container_id=self.task.id)


_FIRST_RETRY = 0.001

_LAST_RETRY = 0.05
"""Seconds between attempts to connect to a socket that exists but does not listen yet."""


REMOVE_LIMIT = 30.0
"""Seconds that each step of a removal may take. A step that takes longer is reported and given
up."""


class RemovalDeadlines:
    """The time that the removals of one agent have."""

    def __init__(self) -> None:
        self._until = math.inf
        self._steps: set[trio.CancelScope] = set()
        self.left: list[str] = []
        """Containers with removal steps that were given up at the end."""

    def __repr__(self) -> str:
        return f"<RemovalDeadlines until={self._until:g} steps={len(self._steps)}>"

    @property
    def over(self) -> bool:
        """The time for removals is over."""
        return trio.current_time() >= self._until

    def end_at(self, until: float) -> None:
        """All removals, including the ones under way, have to be over by ``until``."""
        self._until = until
        for step in self._steps:
            step.deadline = min(step.deadline, until)

    @contextmanager
    def step(self) -> Iterator[trio.CancelScope]:
        """The block is a step of a removal: it is shielded, and has a deadline."""
        until = min(trio.current_time() + REMOVE_LIMIT, self._until)
        scope = trio.CancelScope(shield=True, deadline=until)
        self._steps.add(scope)
        try:
            with scope:
                yield scope
        finally:
            self._steps.discard(scope)


@attrs.frozen(kw_only=True)
class ContainerDeps:
    """What all containers of an agent share."""

    driver: Driver
    config: AgentConfig
    watcher: DirectoryWatcher
    launch_slots: trio.CapacityLimiter
    """Bounds how many containers are created and started at a time."""
    freezer: Freezer
    keep_alive: KeepAlive
    events: AgentEvents
    removals: RemovalDeadlines = attrs.Factory(RemovalDeadlines)
    output: OutputSink | None = None
    """Gets what functions print."""
    keep_logs: bool = False
    """Whether each call gets what was printed for it."""
    debug_logs: bool = False
    """Whether the node's log gets it."""

    @property
    def captures_output(self) -> bool:
        """Whether anybody wants what functions print."""
        return self.output is not None or self.keep_logs or self.debug_logs


async def pull(deps: ContainerDeps, cookie: Cookie, timings: Timings) -> None:
    """Pull the image. Raises what the driver raises; `ImagePullTimeout`; and `ServerBusy` if the
    image has vanished again at once, so that the call may be tried elsewhere."""
    limit = _seconds(deps.config.hot_pull_timeout_msecs)
    with stopwatch(timings, "image_pull_wait_ns"), trio.move_on_after(limit) as scope:
        await cookie.pull_image()
    if scope.cancelled_caught:
        raise ImagePullTimeout
    if await cookie.validate_image():
        raise ServerBusy


class LaunchObsolete(Exception):
    """No call needs a container any more when the turn of its launch has come."""


async def wait_ready(
    deps: ContainerDeps, directory: SocketDirectory, watch: DirectoryWatch, timings: Timings
) -> tuple[FunctionSocket, socket.socket]:
    """Wait until the function accepts a connection, and keep that connection for its first call.

    Raises `ContainerInitTimeout`, and `ContainerInitFailed` for a bad socket.
    """
    limit = _seconds(deps.config.hot_start_timeout_msecs)
    with stopwatch(timings, "init_start_ns"), trio.move_on_after(limit):
        while not directory.offered():
            await watch.wait_changed()
        try:
            function_socket = directory.open_socket()
        except BadSocket as error:
            raise ContainerInitFailed.because(str(error)) from error
        try:
            return function_socket, await _connect(function_socket, watch)
        except BaseException:
            function_socket.close()
            raise
    raise ContainerInitTimeout


async def _connect(function_socket: FunctionSocket, watch: DirectoryWatch) -> socket.socket:
    """Connect, however long the function takes until it listens.

    A function that binds ``lsnr.sock`` directly shows it before it listens, and before it has the
    right mode. The change of the mode is an event, but the begin of listening is not. So here, and
    only here, the agent has to try again and again.
    """
    delay = _FIRST_RETRY
    while True:
        try:
            return function_socket.connect()
        except (ConnectionRefusedError, PermissionError, BlockingIOError):
            with trio.move_on_after(delay):
                await watch.wait_changed()
            delay = min(2 * delay, _LAST_RETRY)
        except OSError as error:
            reason = f"can't connect to {SOCKET_NAME}: {error.strerror}"
            raise ContainerInitFailed.because(reason) from error


def _seconds(msecs: float) -> float:
    return msecs / 1000 if msecs < math.inf else math.inf


def explain_end(error: FunctionError, result: RunResult | None) -> APIError:
    """``error``, of a call whose container has ended, with the reason for that end.

    If the driver has lost the container (``result`` is ``None`` or without a reason), code and text
    stay, but the author of the function is not blamed.
    """
    if result is None or not result.reason:
        return APIError(error.code, error.message)
    if result.status == "killed":
        return ContainerOutOfMemory()
    # Fn's own text comes first: its clients know it.
    return type(error)(message=f"{error}: the container {result.reason}")


def why_not_ready(result: RunResult | None) -> APIError:
    """Why a launch without an error of its own has no container."""
    error = explain_end(ContainerInitFailed(), result)
    # Nothing of the call was sent: unless the function is to blame, it may go elsewhere.
    return error if error.blame == "user" else ServerBusy()


@attrs.frozen
class IdlePlan:
    """What an idle container does next: ``step`` now; or rest until ``at`` (seconds). A container
    that waits for its turn to freeze is retired at ``at``."""

    step: Literal["freeze", "thaw", "retire", "rest"]
    at: float = math.inf


def plan_idle(
    now: float, *, frozen: bool, kept: bool, freeze_at: float, retire_at: float
) -> IdlePlan:
    """Decide what an idle container does. All times in seconds.

    ``kept``: it has to stay ready for a call, however long that takes. Otherwise it leaves at
    ``retire_at``.
    """
    if kept:
        return IdlePlan("thaw" if frozen else "rest")
    if now >= retire_at:
        return IdlePlan("retire")
    if frozen:
        return IdlePlan("rest", retire_at)
    if now >= freeze_at:
        return IdlePlan("freeze", retire_at)
    return IdlePlan("rest", min(freeze_at, retire_at))
