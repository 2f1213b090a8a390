"""Launching containers: resources first, then the container's own task."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import trio

from ..calls import PendingCall
from ..config import AUTO
from ..errors import ServerBusy
from ..metrics import LoadGauges
from .admission import FairAdmission
from .container import CLOSING, Container, ContainerDeps
from .keep_alive import Keeping
from .resources import (
    NoResources,
    Resources,
    ResourceToken,
    ResourceTracker,
    needed_resources,
)
from .slots import Launch, SlotQueue, SlotQueues, SlotWaiter
from .statistics import AgentStatistics, ContainerState, ContainerTrack
from .template import ContainerTemplate, min_warm
from .warm import WarmHold, WarmPool


class Launcher:
    """Starts the containers of an agent, each in a task of ``nursery``, and knows them all.

    It is the `QueueOwner`, the `ContainerOwner`, the `TemplateLauncher` and the
    `EvictionCandidates` of its agent.
    """

    def __init__(self, nursery: trio.Nursery, deps: ContainerDeps, total: Resources) -> None:
        self.deps = deps
        self.max_wait = deps.config.max_wait
        self._nack = deps.config.enable_nb_resource_tracker
        self.queues: SlotQueues[Container] = SlotQueues(self)
        self.resources = ResourceTracker(total, self, may_wait=self._nack is not True)
        self.warm = WarmPool(self.queues, self)
        self.keeping = Keeping(deps.keep_alive, deps.events.metrics, self.queues, self)
        self.admission = FairAdmission()
        self._nursery = nursery
        self._containers: set[Container] = set()
        self.closing = False

    def __repr__(self) -> str:
        return f"<Launcher containers={len(self._containers)} queues={len(self.queues)}>"

    @property
    def containers(self) -> Iterable[Container]:
        """The living containers, in no order."""
        return tuple(self._containers)

    def close(self) -> None:
        """Refuse calls that wait for a slot. Let go of the containers that no call uses now, and of
        the others as soon as their calls are over. Idempotent."""
        self.closing = True
        self.warm.close()
        for queue in self.queues:
            queue.refuse_all()
        for container in tuple(self._containers):
            if not container.busy:
                container.leave(CLOSING)

    def shown_load(self) -> LoadGauges:
        """The figures for the metrics."""
        resources, launch_slots = self.resources, self.deps.launch_slots
        return LoadGauges(
            mem_used=resources.used.memory,
            mem_total=resources.total.memory,
            cpu_used=resources.used.cpus,
            cpu_total=resources.total.cpus,
            launches_running=int(launch_slots.borrowed_tokens),
            launches_waiting=launch_slots.statistics().tasks_waiting,
        )

    def statistics(self) -> AgentStatistics:
        """A snapshot."""
        events, resources = self.deps.events, self.resources
        containers = {state: count for state, count in events.containers.items() if count}
        leaving = containers.pop(ContainerState.DONE, 0)
        return AgentStatistics(
            calls=events.calls,
            **events.ended,
            evictions=resources.evictions,
            launches=events.launches,
            launch_failures=events.launch_failures,
            freezes=events.freezes,
            thaws=events.thaws,
            queued=events.queued,
            running=events.running,
            holding=events.holding,
            containers=containers,
            leaving=leaving,
            slot_queues=len(self.queues),
            waiting_for_room=resources.waiting,
            used=resources.used,
            total=resources.total,
        )

    # --- containers without a call ---

    def hold(self, key: Hashable, call: PendingCall, count: int) -> WarmHold:
        """Keep ``count`` containers ready for calls like ``call``, whose registry token may serve
        these launches' pulls."""
        return self.warm.hold(key, ContainerTemplate.of(call, self.deps.config), count)

    def expect(self, key: Hashable, call: PendingCall) -> None:
        """Keep ready what the function of ``call`` asks for in its annotation."""
        if not self.closing:
            self.warm.expect(key, min_warm(call.model.annotations), call)

    def template_of(self, call: PendingCall) -> ContainerTemplate:
        template = ContainerTemplate.of(call, self.deps.config)
        template.task.registry_token = ""
        template.task.docker_auth = None
        return template

    def launch_spare(
        self, key: Hashable, template: ContainerTemplate, *, ahead: bool = False
    ) -> bool:
        token = None if self.closing else self.resources.try_acquire(template.size)
        if token is None:
            return False
        launch = self.queues.get(key).add_spare(ahead=ahead)
        track = self.deps.events.track(template.task)
        self._nursery.start_soon(self._live, launch, template, token, track)
        return True

    # --- what slot queues ask ---

    def now(self) -> float:
        return trio.current_time()

    def launch(self, launch: Launch[Container], call: PendingCall) -> None:
        # Only what the launch needs of the call is kept.
        self.keeping.missed(launch.queue.key, call)
        template = ContainerTemplate.of(call, self.deps.config)
        self._nursery.start_soon(
            self._run, launch, template, call.spare_warm, self.waits_for_room(call)
        )

    def has_room(self, call: PendingCall) -> bool:
        size = needed_resources(call.model)
        return self.resources.in_reach(size, call.slot_hash_id, spare_warm=call.spare_warm)

    def waits_for_room(self, call: PendingCall) -> bool:
        return not (call.refusable if self._nack == AUTO else self._nack)

    def is_contended(self) -> bool:
        return not self.admission.places(1, trio.current_time())

    def may_be_next(self, queue: SlotQueue[Container], waiter: SlotWaiter[Container]) -> bool:
        """See `QueueOwner`. The call may not wait for longer than its load balancer allows."""
        call, admission, now = waiter.call, self.admission, trio.current_time()
        if waiter.launch is not None or not self.has_room(call):
            admission.found_no_room(queue.key, now)
        if self.closing:
            return False
        others = queue.waiting_without_launch - (waiter.launch_error is not None)
        if call.queue_seconds <= 0 or not admission.may_wait(
            queue.key, call.client, queue.alive, others, now
        ):
            admission.refused(queue.key, call.client, now)
            return False
        until = now + call.queue_seconds
        waiter.wait_scope.deadline = min(waiter.wait_scope.deadline, until)
        return True

    # --- a launch ---

    async def _run(
        self,
        launch: Launch[Container],
        template: ContainerTemplate,
        spare_warm: bool,
        waits_for_room: bool,
    ) -> None:
        """Wait for resources, unless no call needs the launch any more; then for the container's
        end."""
        track = self.deps.events.track(template.task)
        queue = launch.queue
        token: ResourceToken | None = None
        try:
            with launch.scope:
                token = await self.resources.acquire(
                    template.size, queue.key, spare_warm=spare_warm, waits_for_room=waits_for_room
                )
            if token is not None and launch.waiter is not None:
                launch.begin(trio.current_time())
            else:
                if token is not None:
                    token.release()
                queue.launch_dropped(launch)
        except NoResources:
            waiter = launch.waiter
            wait = waiter is not None and self.may_be_next(queue, waiter)
            queue.launch_failed(launch, ServerBusy(), wait=wait)
        except BaseException:  # the agent is being cancelled
            queue.launch_failed(launch, ServerBusy(), wait=False)
            raise
        finally:
            if not launch.begun:
                track.move(None, trio.current_time())
                self.warm.settle()
        if token is not None and launch.begun:
            await self._live(launch, template, token, track)

    async def _live(
        self,
        launch: Launch[Container],
        template: ContainerTemplate,
        token: ResourceToken,
        track: ContainerTrack,
    ) -> None:
        container = Container(launch, template, token, track, self)
        self._containers.add(container)
        try:
            await container.run()
        finally:
            self._containers.discard(container)
            self.warm.settle()

    # --- what containers tell ---

    def container_ready(self) -> None:
        self.warm.note_ready()

    def container_removed(self) -> None:
        self.warm.settle()

    # --- candidates of eviction ---

    def idle(self) -> Iterable[Container]:
        """Surplus containers first, then in the order of the `KeepAlive`, containers to be kept
        last."""
        rank, now = self.keeping.rank, trio.current_time()
        idle = [container for queue in self.queues for container in queue.idle()]
        idle.sort(
            key=lambda container: (
                container.kept,
                container.token.protected_until > container.idle_since,
                rank(container, now),
                container.idle_since,
            )
        )
        return idle

    def unprotected(self) -> Iterable[Container]:
        now = trio.current_time()
        return [container for container in self.idle() if container.token.protected_until <= now]
