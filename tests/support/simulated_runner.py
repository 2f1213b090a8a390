"""A simulated runner in NACK mode: memory, hot containers, cold starts, evictions.

A call that finds no idle container has one started, as on Fn's runners (hostler's ask their launch
policy), and takes whatever comes first: that one, or another of its function that becomes free.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import attrs
import trio

from hostler._concurrency.signal import Signal
from hostler._launch_policy import LaunchPolicy
from hostler.abc import NotPlaced, Outcome, Placed, Runner, RunnerCall
from hostler.agent.admission import FairAdmission
from hostler.agent.resources import EXPENDABLE_SECONDS, MAX_SECONDS, worth_seconds
from hostler.calls import Timings
from hostler.errors import ServerBusy
from hostler.keep_alive import FixedKeepAlive
from hostler.protocol import (
    MAX_WARM_KEYS,
    UNOBSERVED,
    WARM_KEY_SECONDS,
    AttemptObserver,
    LoadHint,
    RunnerStatus,
)
from hostler.runner.load_feed import LoadFeed

COLD_SECONDS = 0.5
"""From nothing to a container that takes its call."""
IDLE_SECONDS = 30.0
"""After which an idle container goes (Fn's default)."""
ROUND_TRIP = 0.001
COMPLETE_SECONDS = 0.1
"""At most so often a hint tells of all hot containers, as a real runner does it."""
MIB = 2**20
MANY_CPUS = 10**6
"""Milli-CPUs of a runner, whose memory alone is scarce here."""


@attrs.frozen(eq=False)
class _Idle:
    """A `KeptContainer`."""

    key: str
    memory: int
    idle_since: float
    protected_until: float
    level: int
    start_seconds: float = COLD_SECONDS
    idle_timeout: float = IDLE_SECONDS
    ahead: bool = False


@attrs.define(eq=False)
class _Waiter:
    scope: trio.CancelScope
    served: trio.Event = attrs.Factory(trio.Event)


@attrs.define(eq=False)
class _Queue:
    """The containers of one function. The first waiter has the launch that is ``ready`` first,
    and so on; when one is served otherwise, all move up."""

    memory: int
    idle: list[_Idle] = attrs.Factory(list)
    waiters: deque[_Waiter] = attrs.Factory(deque)
    ready: deque[float] = attrs.Factory(deque)
    policy: LaunchPolicy = attrs.Factory(LaunchPolicy)
    busy: int = 0

    @property
    def worth_seconds(self) -> float:
        if not self.policy.run_seconds:
            return math.inf
        return worth_seconds(self.policy.start_seconds, self.policy.run_seconds)

    def schedule_check(self) -> None:
        for waiter, at in zip(self.waiters, self.ready, strict=False):
            waiter.scope.deadline = at


class SimRunner(Runner):
    """``memory`` in MB. Counts its ``cold`` starts, ``nacks`` and ``evictions``."""

    def __init__(self, address: str, memory: int) -> None:
        self._address = address
        self._free = memory
        self._idle: OrderedDict[_Idle, None] = OrderedDict()
        """Those first that have idled for longest."""
        self._idle_memory = 0
        self._passing = 0
        """Calls whose containers will not be worth keeping."""
        self._keep_alive = FixedKeepAlive()
        self._queues: dict[str, _Queue] = {}
        self._spare: set[str] = set()
        """Functions with launches that no call waits for."""
        self._active = 0
        self._complete_at = 0.0
        self._change = Signal()
        self._feed = LoadFeed(self)
        self._rule = FairAdmission()
        self.cold = self.nacks = self.evictions = 0

    @property
    def address(self) -> str:
        return self._address

    async def try_exec(self, call: RunnerCall, observer: AttemptObserver = UNOBSERVED) -> Outcome:
        observer.committed()
        await trio.sleep(ROUND_TRIP / 2)
        name, lb = call.model.fn_id, call.extensions.get("lb", "")
        self._settle()
        arrived = trio.current_time()
        call.timings = Timings()
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _Queue(call.model.memory)
        self._rule.came(name, lb)
        if queue.idle:
            self._remove(queue.idle[-1])
        elif not await self._wait(queue, call):
            self.nacks += 1
            self._rule.left(name, lb)
            self._rule.refused(name, lb, trio.current_time())
            hint = self._hint(name)
            await trio.sleep(ROUND_TRIP / 2)
            return NotPlaced(ServerBusy(), load=hint)
        self._active += 1
        expendable = queue.worth_seconds < EXPENDABLE_SECONDS
        self._passing += expendable
        queue.busy += 1
        started = trio.current_time()
        call.timings.scheduler_ns = round((started - arrived) * 1e9)
        await trio.sleep(float(call.extensions["seconds"]))
        self._active -= 1
        self._passing -= expendable
        queue.busy -= 1
        self._rule.left(name, lb)
        self._change.note()
        call.timings.execution_ns = round((trio.current_time() - started) * 1e9)
        queue.policy.ran(trio.current_time() - started, trio.current_time())
        self._settle()
        if queue.waiters:
            queue.waiters.popleft().served.set()
            queue.schedule_check()
            self._spare.add(name)
        else:
            self._add(name, queue, trio.current_time())
        if call.timings.ctr_create_ns:
            self._rule.started(COLD_SECONDS, started)
        leave = self._rule.leaves(name, lb, trio.current_time())
        return Placed(load=self._hint(name, leave=leave))

    async def _wait(self, queue: _Queue, call: RunnerCall) -> bool:
        """Wait for a container; false if there is no room for one."""
        now = trio.current_time()
        if len(queue.ready) <= len(queue.waiters):
            if not self._make_room(queue.memory, spare_warm=call.spare_warm):
                return False
            self.cold += 1
            queue.ready.append(now + COLD_SECONDS)
        with trio.CancelScope() as scope:
            waiter = _Waiter(scope)
            queue.waiters.append(waiter)
            queue.schedule_check()
            await waiter.served.wait()
        if not waiter.served.is_set():
            queue.waiters.remove(waiter)
            queue.ready.popleft()
            call.timings.ctr_create_ns = round(COLD_SECONDS * 1e9)
            queue.policy.started(COLD_SECONDS)
        return True

    def _settle(self) -> None:
        """What has happened meanwhile: launches without a call are ready, idle ones are gone."""
        now = trio.current_time()
        for name in tuple(self._spare):
            queue = self._queues[name]
            while len(queue.ready) > len(queue.waiters) and queue.ready[0] <= now:
                self._add(name, queue, queue.ready.popleft())
            if len(queue.ready) == len(queue.waiters):
                self._spare.remove(name)
        while self._idle:
            oldest = next(iter(self._idle))
            if oldest.idle_since >= now - IDLE_SECONDS:
                return
            self._remove(oldest)
            self._free += oldest.memory

    def _add(self, name: str, queue: _Queue, since: float) -> None:
        protected_until = since + min(queue.worth_seconds, MAX_SECONDS)
        container = _Idle(name, queue.memory, since, protected_until, queue.busy + 1)
        self._keep_alive.became_idle(container, since)
        queue.idle.append(container)
        self._idle[container] = None
        self._idle_memory += queue.memory

    def _remove(self, container: _Idle) -> None:
        del self._idle[container]
        self._queues[container.key].idle.remove(container)
        self._idle_memory -= container.memory

    def _make_room(self, memory: int, *, spare_warm: bool) -> bool:
        """Take ``memory``, from idle containers if need be, in the order of a runner's default
        policy, and not those that are worth keeping if ``spare_warm``."""
        spared = self._protected() if spare_warm else 0
        if self._free + self._idle_memory - spared < memory:
            return False
        while self._free < memory:
            self.evictions += 1
            spare = spare_warm and spared
            now = trio.current_time()
            candidates = (one for one in self._idle if not spare or one.protected_until <= now)
            victim = min(
                candidates, key=lambda one: (self._keep_alive.rank(one, now), one.idle_since)
            )
            self._remove(victim)
            self._free += victim.memory
        self._free -= memory
        self._change.note()
        return True

    def _protected(self) -> int:
        """Memory of idle containers that are worth keeping, if it is worth to wait for others."""
        if not self._passing:
            return 0
        now = trio.current_time()
        return sum(one.memory for one in self._idle if one.protected_until > now)

    def load(self) -> LoadHint:
        self._settle()
        return LoadHint(
            active=self._active,
            free_memory=self._free * MIB,
            reclaimable_memory=self._idle_memory * MIB,
            protected_memory=self._protected() * MIB,
            free_cpus=MANY_CPUS,
            warm=self._warm(),
            complete=True,
        )

    async def wait_load_change(self) -> None:
        await self._change.wait()

    async def watch_load(self) -> AsyncGenerator[LoadHint, None]:
        async with aclosing(self._feed.watch()) as hints:
            async for hint in hints:
                await trio.sleep(ROUND_TRIP / 2)
                yield hint

    def _warm(self) -> dict[bytes, int]:
        warm: dict[bytes, int] = {}
        for container in reversed(self._idle):
            key = container.key.encode()
            if key in warm or len(warm) < MAX_WARM_KEYS:
                warm[key] = warm.get(key, 0) + 1
        return warm

    def _hint(self, name: str, *, leave: bool = False) -> LoadHint:
        now = trio.current_time()
        complete = now >= self._complete_at
        warm: dict[bytes, int] = {}
        if complete:
            warm = self._warm()
            self._complete_at = now + max(COMPLETE_SECONDS, len(warm) * WARM_KEY_SECONDS)
        elif self._queues[name].idle:
            warm[name.encode()] = len(self._queues[name].idle)
        return LoadHint(
            active=self._active,
            free_memory=self._free * MIB,
            reclaimable_memory=self._idle_memory * MIB,
            protected_memory=self._protected() * MIB,
            free_cpus=MANY_CPUS,
            slot=name.encode(),
            warm=warm,
            complete=complete,
            leave=leave,
        )

    async def status(self, payload: Mapping[str, Any] | None = None) -> RunnerStatus:
        await trio.lowlevel.checkpoint()
        return RunnerStatus(active=self._active)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
