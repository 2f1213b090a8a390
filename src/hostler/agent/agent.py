"""Agent: admits calls, gets each a container, runs it, and accounts for its end."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import structlog
import trio

from .._arguments import all_callable, all_of, check
from .._concurrency.alarm import SharedTimer
from .._concurrency.directory_watch import open_directory_watcher
from .._concurrency.drain import DrainBudget
from .._concurrency.gate import Gate, GateClosed
from .._concurrency.nurseries import as_it_is, is_cancellation
from .._fast import FastAgent
from ..abc import (
    CallListener,
    CallOverrider,
    Driver,
    KeepAlive,
    OutputSink,
    SlotHook,
)
from ..bodies import BodyBudget, keep_whole
from ..calls import AckWriter, CallListeners, CallOption, PendingCall, build_call, check_overrider
from ..config import AgentConfig, LBConfig
from ..errors import (
    APIError,
    CallResourceTooBig,
    CallTimeout,
    ConfigError,
    HostlerError,
    ServerBusy,
)
from ..keep_alive import make_keep_alive
from ..metrics import AgentMetrics, CallStatus, default_agent_metrics
from ..protocol import LoadHint
from ..slot_key import SlotExtensions, SlotKeys
from .capacity import machine_resources
from .container import Container, ContainerDeps
from .dispatch import ContainerAlreadyGone, ExecutionEnded, ExecutionScope, execute
from .freezing import Freezer
from .launcher import Launcher
from .load_report import LoadReporter
from .resources import Resources, needed_resources
from .slots import SlotQueue, is_open_ended
from .socket_directory import choose_tmpfs, remove_leaked_directories
from .statistics import AgentEvents, AgentStatistics, ContainerState
from .template import MIN_WARM_ANNOTATION
from .warm import WarmHold

log = structlog.get_logger(__name__)

_FUNCTION_ENV = {"FN_LISTENER": "unix:/tmp/iofs/lsnr.sock", "FN_FORMAT": "http-stream"}
"""The function contract; part of the slot key, and stronger than what a user or overrider set."""


class Reservations:
    """The reservations of one agent: slots that are held until a call may run. None lasts longer
    than ``limit`` seconds.

    A call with `PendingCall.on_slot` gets its container like any other, and has it while that hook
    waits. Nothing of the call has reached the container then, so whatever ends the wait leaves the
    container as it was, for the next call.
    """

    def __init__(self, limit: float, events: AgentEvents) -> None:
        self._limit = limit
        self._events = events
        self._waiting: set[trio.CancelScope] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Reservations {len(self._waiting)}>"

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, hook: SlotHook) -> None:
        """Wait for ``hook``. Raises what the hook raises, and `ServerBusy` when time is up or the
        agent closes: the call then certainly has not run."""
        deadline = trio.current_time() + self._limit
        committed = False
        self._events.held()
        try:
            with trio.CancelScope(deadline=deadline) as scope:
                self._waiting.add(scope)
                if self._closed:
                    scope.cancel()
                try:
                    await hook()
                    committed = True
                finally:
                    self._waiting.discard(scope)
        finally:
            self._events.released(committed=committed)
        if not committed:
            raise ServerBusy

    def refuse_all(self) -> None:
        """End all waiting with `ServerBusy`, now and later."""
        self._closed = True
        for scope in self._waiting:
            scope.cancel()


MAX_DETACHED_BODY = LBConfig().max_detached_body

STOP_LIMIT = 60.0
"""Seconds after which a closing agent reports cancelled calls that don't end, if it has so long."""


class Agent(FastAgent):
    """Runs calls on hot containers of one driver. Made by `open_agent`."""

    def __init__(
        self,
        launcher: Launcher,
        overrider: CallOverrider | None,
        options: Iterable[CallOption],
        listeners: Iterable[CallListener],
        detached: trio.Nursery,
        bodies: BodyBudget,
        max_detached_body: int,
    ) -> None:
        deps = launcher.deps
        config, events = deps.config, deps.events
        self._config = config
        self._launcher = launcher
        self._reservations = Reservations(config.reservation_msecs / 1000, events)
        self._slot_extensions = SlotExtensions()
        self._reporter = LoadReporter(launcher, self._slot_extensions)
        self._driver = deps.driver
        self._events = events
        self._overrider = overrider
        self._options = tuple(options)
        self._listeners = CallListeners(listeners)
        self._detached = detached
        self._bodies = bodies
        self._max_detached_body = max_detached_body
        self._slot_wait = config.slot_wait_msecs / 1000
        self._keys = SlotKeys()
        self._gate = Gate()
        self._limits: set[ExecutionScope] = set()
        """The scopes of the calls that have a container."""
        self.deadlines = SharedTimer(lambda: self._limits)
        self._stopped = False
        """All calls are cancelled."""

    def __repr__(self) -> str:
        s = self.statistics()
        return f"<Agent queued={s.queued} running={s.running} containers={dict(s.containers)}>"

    def get_call(self, *options: CallOption) -> PendingCall:
        call = build_call((*options, *self._options), self._overrider)
        if not self._launcher.resources.possible(needed_resources(call.model)):
            raise CallResourceTooBig
        if call.logger is not None and not self._launcher.deps.captures_output:
            raise HostlerError("with_logger: the agent captures no output: open it with keep_logs")
        call.model.config = {**call.model.config, **_FUNCTION_ENV}
        return call

    def submit(self, call: PendingCall) -> Coroutine[Any, Any, None]:
        """Beside what `CallAgent` says, raises what a listener or a container's hook raised, and a
        500 if the agent closes and its grace is over before the call is. A detached call is
        acknowledged once it has its container and all listeners have let it pass; later errors are
        logged."""
        if call.model.type == "detached" and not self._gate.closed:
            return self._detached.start(self._run_detached, call)
        return self.run(call)

    async def run(self, call: PendingCall) -> None:
        listeners = self._listeners
        for _, listener in listeners.of_submit:
            listener.note_submit(call)
        try:
            self._gate.admit(limit := ExecutionScope(), call)
        except GateClosed:
            raise self._refused(call) from None
        record = CallRecord(call, self._events)
        error: BaseException | None = None
        try:
            key = call.slot_hash_id = record.key = self._key(call)
            self._launcher.admission.came(key, call.client)
            now = record.submitted_at
            container = self._take_idle(key, now)
            if container is None or not container.usable or call.on_slot is not None:
                container = await limit.run(self._reserve(call, container))
                now = trio.current_time()
            # Only now: this call must not get a launch without its own registry token.
            if MIN_WARM_ANNOTATION in call.model.annotations:
                self._launcher.expect(key, call)
            record.has_slot(now)
            if listeners.of_begin:
                now = await self._tell_begin(listeners, call, record, container, limit)
            record.told = len(listeners.all)
            while True:
                record.starts()
                container.begin(call, now)
                limit.deadline = now + call.run_seconds(now)
                self._limits.add(limit)
                self.deadlines.add(limit.deadline)
                try:
                    await execute(container, call, limit, self._config.max_response_size, now)
                    break
                except ContainerAlreadyGone:
                    self._limits.discard(limit)
                    record.waits_again()
                    had = container.task.id
                    log.info("call goes to another container", call_id=call.model.id, had=had)
                container = self._take_idle(key, now)
                container = await limit.run(self._reserve(call, container))
                now = trio.current_time()
                record.has_slot(now)
        except ExecutionEnded:
            error = self._why_ended()
        except BaseException as caught:
            error = caught
            raise
        finally:
            self._limits.discard(limit)
            self._note_end(call, record, error)
            listeners.note_end(call, error, told=record.told)
            try:
                if listeners.of_after:
                    await listeners.tell_after(call, told=record.told)
            finally:
                self._gate.leave(limit)
        if error is not None:
            raise error

    async def _run_detached(self, call: PendingCall, *, task_status: trio.TaskStatus[None]) -> None:
        """Until the acknowledgement this is part of the submitter's task: errors are raised
        there, and it is cancelled with it. After that no error may leave."""
        # The body has to outlive the request.
        body = await keep_whole(call.body, self._bodies, self._max_detached_body)
        call.body, call.writer = body, (writer := AckWriter(task_status))
        try:
            await self.run(call)
        except Exception as error:
            if not writer.acknowledged:
                raise
            log_late_failure(call.model.id, error)
        finally:
            await body.aclose()

    def refuse(self, call: PendingCall) -> bool:
        if not self._gate.closed and (
            self._launcher.waits_for_room(call) or not self._certainly_no_room(call)
        ):
            return False
        for _, listener in self._listeners.of_submit:
            listener.note_submit(call)
        self._refused(call)
        return True

    def _refused(self, call: PendingCall) -> ServerBusy:
        """End ``call`` as refused. Returns the error."""
        busy = ServerBusy()
        complete(call, busy)
        self._events.refused()
        self._listeners.note_end(call, busy, told=0)
        return busy

    def _certainly_no_room(self, call: PendingCall) -> bool:
        """Whether ``call``, which does not wait for room, would certainly be refused: there is no
        room, no idle container, and none that it may wait for. `FairAdmission` has noted the
        refusal then, as when a launch finds no room."""
        launcher = self._launcher
        key = call.slot_hash_id = self._key(call)
        queue = launcher.queues.find(key)
        if queue is not None and (queue.idle_count or queue.has_spare):
            return False
        if not launcher.resources.refuses(
            needed_resources(call.model), key, spare_warm=call.spare_warm
        ):
            return False
        now = trio.current_time()
        admission, lb = launcher.admission, call.client
        admission.found_no_room(key, now)
        if call.queue_seconds > 0 and queue is not None:
            admission.came(key, lb)
            may_wait = admission.may_wait(key, lb, queue.alive, queue.waiting_without_launch, now)
            admission.left(key, lb)
            if may_wait:
                return False
        admission.refused(key, lb, now)
        return True

    def keep_warm(self, call: PendingCall, count: int = 1) -> WarmHold:
        """Keep ``count`` containers ready for calls like ``call`` (made by `get_call`, it is never
        submitted) until the returned hold is released or the agent closes.

        They are launched in the background, as soon as there is room that nothing else uses or
        waits for. They don't freeze, don't idle out, are evicted last, and are replaced when they
        end. A function's annotation ``hostler/min-warm`` has the same effect from its first call
        until an hour after its last one. Raises `ServerBusy` if the agent is closing, `ValueError`
        for a count below 1.
        """
        if count < 1:
            raise ValueError(f"count={count}: at least 1 container can be kept")
        if self._gate.closed:
            raise ServerBusy
        return self._launcher.hold(self._key(call), call, count)

    def load_hint(self, call: PendingCall) -> LoadHint:
        return self._reporter.hint(call)

    def load(self) -> LoadHint:
        return self._reporter.load()

    def load_figures(self) -> LoadHint:
        return self._reporter.load_figures()

    async def wait_load_change(self) -> None:
        await self._events.change.wait()

    @property
    def reservation_seconds(self) -> float:
        return self._config.reservation_msecs / 1000

    def add_listener(self, listener: CallListener) -> None:
        self._listeners = CallListeners((*self._listeners.all, listener))

    def begin_drain(self) -> None:
        """From now on no call waits for room that is not in sight; waiting calls that do are
        refused with `ServerBusy`. All others go on, and new ones may run. A front end that stops
        calls this and then lets the requests go on that it has accepted. Synchronous.
        Idempotent."""
        self._launcher.resources.stop_waiting()

    def calls(self) -> list[PendingCall]:
        return [call for call in self._gate.purposes if isinstance(call, PendingCall)]

    def close_admission(self) -> None:
        self._gate.close()
        self._reservations.refuse_all()
        self._launcher.close()

    def statistics(self) -> AgentStatistics:
        """A snapshot of the agent. Synchronous."""
        return self._launcher.statistics()

    async def _drain(self, grace: DrainBudget) -> None:
        """Close, and let the running calls finish within ``grace``."""
        self.close_admission()
        with trio.move_on_at(grace.deadline()):
            await self._gate.wait_empty()
        if self._gate.inside:
            log.warning("agent cancels what is left", running=self._events.running)

    async def _stop(self, until: float) -> None:
        """Close, and end all calls. Not cancellable; over at ``until``."""
        self.close_admission()
        self._stopped = True
        self._gate.cancel_all()
        # Listeners and hooks of cancelled calls have deadlines of their own.
        with trio.CancelScope(shield=True, deadline=until) as scope:
            await self._gate.wait_empty()
        if scope.cancelled_caught:
            log.error("calls don't end", running=self._events.running)

    # --- one call ---

    async def _tell_begin(
        self,
        listeners: CallListeners,
        call: PendingCall,
        record: CallRecord,
        container: Container,
        limit: ExecutionScope,
    ) -> float:
        """``call`` has ``container``: tell the listeners. Returns the time afterwards."""
        try:
            for place, listener in listeners.of_begin:
                record.told = place - 1
                if listener.wants_before_call(call):
                    await limit.run(listener.before_call(call))
        except BaseException:
            container.give_back(reusable=True)  # nothing of this call has reached it
            raise
        return trio.current_time()

    def _note_end(self, call: PendingCall, record: CallRecord, error: BaseException | None) -> None:
        if record.key is not None:
            self._launcher.admission.left(record.key, call.client)
        if error is not None and record.waited is not None and is_cancellation(error):
            self._client_left(call, record.waited, trio.current_time() - record.submitted_at)
        seconds = record.end(error)
        if seconds is not None:
            self._reporter.ran(seconds)

    def _client_left(self, call: PendingCall, waited: float, age: float) -> None:
        """The client of ``call`` left before the answer, at the call's ``age``. The call had its
        container after it had ``waited``."""
        queue = self._launcher.queues.find(self._key(call))
        if queue is not None and is_open_ended(call):
            queue.client_left(waited, ran=age - waited)

    def _why_ended(self) -> APIError:
        """The error of a call that was ended."""
        if self._stopped:
            return APIError(500, "The runner was closed during the call")
        return CallTimeout()

    def _take_idle(self, key: bytes, now: float) -> Container | None:
        """An idle container of ``key``, if there is one. It may have to be thawed yet."""
        queue = None if self._gate.closed else self._launcher.queues.find(key)
        return None if queue is None else queue.take(now)

    async def _reserve(self, call: PendingCall, container: Container | None) -> Container:
        """Get a running container for ``call``, perhaps the one that was taken already, and hold it
        until the call may run. The call has to give it back.

        Raises `ServerBusy`, the error of the launch for this call, or what the hook raises.
        """
        while True:
            if container is None or not container.usable:
                container = await self._wait_for_slot(call, container)
            if call.on_slot is None:
                return container
            try:
                await self._reservations.wait(call.on_slot)
                usable = await container.wait_usable()
            except BaseException:
                container.give_back(reusable=True)
                raise
            if usable:
                return container
            # The container ended meanwhile. Nothing of the call has reached it, so another will do.
            container.give_back(reusable=False)
            container = self._take_idle(self._key(call), trio.current_time())

    async def _wait_for_slot(self, call: PendingCall, container: Container | None) -> Container:
        now = trio.current_time()
        with trio.move_on_at(min(now + self._slot_wait, call.deadline)):
            while container is not None or not self._gate.closed:
                if container is None:
                    queue = self._launcher.queues.get(self._key(call))
                    container = queue.take(now) or await self._served(queue, call)
                try:
                    usable = await container.wait_usable()
                except BaseException:
                    container.give_back(reusable=True)
                    raise
                if usable:
                    return container
                # The container ended before it got anything of this call: another will do.
                container.give_back(reusable=False)
                container, now = None, trio.current_time()
        raise ServerBusy

    async def _served(self, queue: SlotQueue[Container], call: PendingCall) -> Container:
        waiter = queue.join(call)
        container = await queue.served(waiter)
        self._events.metrics.observe_wakeup(time.perf_counter_ns() - waiter.served_ns)
        if waiter.timings is not None:
            call.timings = attrs.evolve(waiter.timings)
        return container

    def _key(self, call: PendingCall) -> bytes:
        if call.slot_hash_id:
            return call.slot_hash_id
        extensions: Mapping[str, str] = call.extensions
        if extensions:
            extensions = self._slot_extensions.recording(extensions)
        return self._keys.key(call.model, self._driver.slot_key_extension(extensions))


async def _measure_again(driver: Driver, config: AgentConfig, launcher: Launcher) -> None:
    """Measure the machine again: at the start the containers of dead runners may have had memory of
    it."""
    await driver.wait_clean()
    with suppress(ConfigError):  # this agent's containers may have all memory by now
        launcher.resources.grow(machine_resources(config))


StartupAction = Callable[[Agent], Awaitable[None]]
"""Prepares an agent before its first call: adds listeners, keeps functions warm, ..."""


@asynccontextmanager
async def open_agent(
    driver: Driver,
    *,
    config: AgentConfig | None = None,
    call_overrider: CallOverrider | None = None,
    call_options: Iterable[CallOption] = (),
    listeners: Iterable[CallListener] = (),
    startup: Iterable[StartupAction] = (),
    total: Resources | None = None,
    sharers: int = 1,
    output: OutputSink | None = None,
    keep_logs: bool = False,
    debug_logs: bool = False,
    metrics: AgentMetrics | None = None,
    keep_alive: KeepAlive | None = None,
    bodies: BodyBudget | None = None,
    max_detached_body: int = MAX_DETACHED_BODY,
    grace: float | DrainBudget | None = None,
) -> AsyncIterator[Agent]:
    """Run calls on containers of ``driver`` until the block ends.

    First it removes socket directories that killed agents with the same label tag have left in the
    same place.

    ``config`` is read from the environment by default. ``call_options`` run after the options of
    the caller of ``get_call``, ``call_overrider`` after both. ``startup`` actions run in order
    before the block, on the complete agent; their exceptions are raised from here. ``total``
    replaces what the machine has (Fn's rules, see the reference of the settings) as the resources
    for containers; ``sharers`` is how many agents share the machine's CPUs, for what freezing may
    take of them. ``output`` gets what functions print. ``keep_logs``: each call's ``log`` gets what
    was printed for it, for listeners. ``debug_logs``: the lines are logged at debug, unless
    FN_DISABLE_DEBUG_USER_LOGS. Without any of the three, output is not captured. ``metrics`` are
    the process's own by default. ``keep_alive``, of this agent alone, says how long idle containers
    stay (default: the policy that ``config.keep_alive`` names). The bodies of detached calls count
    as ``bodies``, which a front end shares; each has at most ``max_detached_body`` bytes.

    Leaving the block drains: new and waiting calls are refused with `ServerBusy`, and running
    calls, also detached ones, have ``grace`` seconds (default: ``config.drain_grace_msecs``) to
    finish and are cancelled then; if an exception or a cancellation leaves the block, at once. Then
    all containers are removed, within half of the removal's time of that `DrainBudget`; the rest is
    left to the driver. The driver stays open; the caller closes it.

    Raises `ConfigError` if the machine has no resources to spare, FN_IOFS_PATH can't be used, or
    an argument is of another kind; `OSError` if there is no inotify instance left; and what the
    block raises, unchanged.
    """
    check("open_agent", driver=(driver, Driver))
    check("open_agent", optional=True, config=(config, AgentConfig), total=(total, Resources))
    check("open_agent", optional=True, metrics=(metrics, AgentMetrics))
    check("open_agent", optional=True, keep_alive=(keep_alive, KeepAlive))
    check_overrider(call_overrider)
    call_options = all_callable("open_agent: call_options", call_options)
    startup = all_callable("open_agent: startup", startup)
    listeners = all_of("open_agent: listeners", listeners, CallListener)
    config = AgentConfig.from_env() if config is None else config
    measured = total is None
    total = machine_resources(config) if total is None else total
    keep_alive = make_keep_alive(config) if keep_alive is None else keep_alive
    budget = DrainBudget.of(config.drain_grace_msecs / 1000 if grace is None else grace)
    events = AgentEvents(default_agent_metrics() if metrics is None else metrics)
    await remove_leaked_directories(config)
    config = await choose_tmpfs(config, driver.sees_directory)
    async with open_directory_watcher() as watcher, as_it_is(trio.open_nursery) as containers:
        deps = ContainerDeps(
            driver=driver,
            config=config,
            watcher=watcher,
            launch_slots=trio.CapacityLimiter(config.launch_concurrency),
            freezer=Freezer(config.freeze_idle_msecs / 1000, (os.cpu_count() or 1) / sharers),
            keep_alive=keep_alive,
            events=events,
            output=output,
            keep_logs=keep_logs,
            debug_logs=debug_logs and not config.disable_debug_user_logs,
        )
        launcher = Launcher(containers, deps, total)
        agent = Agent(
            launcher,
            call_overrider,
            call_options,
            listeners,
            containers,
            bodies or BodyBudget(),
            max_detached_body,
        )
        containers.start_soon(launcher.warm.run)
        containers.start_soon(launcher.keeping.run)
        if measured:
            containers.start_soon(_measure_again, driver, config, launcher)
        containers.start_soon(agent.deadlines.watch)
        try:
            with events.metrics.showing(launcher.shown_load):
                for action in startup:
                    await action(agent)
                yield agent
                await agent._drain(budget)
        finally:
            now = trio.current_time()
            deps.removals.end_at(budget.deadline() + budget.removal / 2)
            await agent._stop(min(now + STOP_LIMIT, budget.end()))
            containers.cancel_scope.cancel()
    if deps.removals.left:
        log.info("agent closed before all was removed", containers=deps.removals.left)


def log_late_failure(call_id: str, error: Exception) -> None:
    """The client of a detached call has its 202: nobody else learns of it."""
    if isinstance(error, APIError):
        log.warning("detached call failed", call_id=call_id, reason=str(error))
    else:
        log.error("detached call failed", call_id=call_id, exc_info=error)


CANCELLED_TEXT = "cancelled"


class CallRecord:
    """Follows one call, which waits for a slot from now on."""

    def __init__(self, call: PendingCall, events: AgentEvents) -> None:
        self._call = call
        self._events = events
        self.submitted_at = trio.current_time()
        self.key: bytes | None = None
        """Its slot key, once it is counted under it."""
        self._slot_at = 0.0
        self._started = False
        self.waited: float | None = None
        """Seconds until it had its container."""
        self.told = 0
        """How many listeners know that it has begun."""
        events.submitted()

    def has_slot(self, now: float) -> None:
        """The call has a container since ``now``."""
        self._slot_at = now
        self.waited = now - self.submitted_at
        call = self._call
        call.model.started_at = dt.datetime.now(dt.UTC)
        call.model.status = "running"
        call.timings.scheduler_ns = round((now - self.submitted_at) * 1e9)

    def starts(self) -> None:
        """The function works on the call from here on."""
        self._started = True
        self._events.started()
        call = self._call
        if call.model.type == "detached" and isinstance(call.writer, AckWriter):
            call.writer.acknowledge()

    def waits_again(self) -> None:
        """The container had ended before the function got anything of the call."""
        self._started = False
        self._call.model.status = ""
        self._events.waits_again()

    def end(self, error: BaseException | None) -> float | None:
        """The call is over, however far it came. Returns the seconds that it had its container, if
        its function has worked on it."""
        complete(self._call, error)
        status: CallStatus = "completed"
        if error is not None:
            status = _outcome_of(error, started=self._started)
        if not self._started:
            self._events.ended_waiting(status)
            return None
        seconds = trio.current_time() - self._slot_at
        self._call.timings.execution_ns = round(seconds * 1e9)
        self._events.ended_running(status)
        return seconds


def complete(call: PendingCall, error: BaseException | None) -> None:
    """The call is over, whether or not it had begun: fill in its model."""
    model = call.model
    model.completed_at = dt.datetime.now(dt.UTC)
    if error is None:
        model.status = "success"
    elif isinstance(error, CallTimeout):
        model.status = "timeout"
    else:
        model.status = "error"
        model.error = _text_of(error)


def _text_of(error: BaseException) -> str:
    if is_cancellation(error):
        return CANCELLED_TEXT
    return str(error) or type(error).__name__


def _outcome_of(error: BaseException, *, started: bool) -> CallStatus:
    """The one name under which the call is counted."""
    if is_cancellation(error):
        return "canceled"
    if isinstance(error, CallTimeout) and started:
        return "timeouts"
    if isinstance(error, ServerBusy) and not started:
        return "server_busy"
    return "errors"


@attrs.define(kw_only=True)
class FnContainers:
    """The containers of one function. ``states`` lacks launches that still wait for room."""

    app_id: str
    fn_id: str
    image: str
    states: Counter[ContainerState] = attrs.Factory(Counter)
    memory: int = 0
    """Bytes that the containers hold."""


def container_counts(agent: Agent) -> Mapping[str, FnContainers]:
    """The containers of ``agent`` by the function's id. Synchronous. Takes time for each container,
    so call it for people who look, not for each call."""
    found: dict[str, FnContainers] = {}
    for container in agent._launcher.containers:
        state, task = container.state, container.task
        if state is None or state is ContainerState.DONE:
            continue
        entry = found.get(task.fn_id)
        if entry is None:
            entry = FnContainers(app_id=task.app_id, fn_id=task.fn_id, image=task.image)
            found[task.fn_id] = entry
        entry.states[state] += 1
        entry.memory += container.size.memory
    return found
