"""Launching containers: room for them first, then the container's own task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable
from functools import partial

import structlog
import trio

from ..abc import ContainerTask
from ..call import PendingCall
from ..config import AUTO
from ..errors import ServerBusy
from ..metrics import LoadGauges
from .admission import FairAdmission
from .container import CLOSING, Container, ContainerDeps
from .keep_alive import Keeping
from .resources import NoResources, Resources, ResourceToken, ResourceTracker
from .slots import Launch, SlotQueue, SlotQueues, SlotWaiter
from .statistics import AgentEvents, ContainerTrack
from .template import ContainerTemplate, container_task, min_warm, needed_resources
from .warm import WarmHold, WarmPool

log = structlog.get_logger(__name__)


class Launcher:
    """Starts the containers of an agent, each in a task of ``nursery``, and knows them all."""

    def __init__(
        self, nursery: trio.Nursery, kit: ContainerDeps, total: Resources, events: AgentEvents
    ) -> None:
        self._nack = kit.config.enable_nb_resource_tracker
        self.queues: SlotQueues[Container] = SlotQueues(
            self._launch,
            has_room=self._has_room,
            patient=self.patient,
            may_be_next=self._may_be_next,
            contended=lambda: not self.next_in_line.places(1, trio.current_time()),
            max_wait=kit.config.max_wait,
        )
        self.room = ResourceTracker(
            total, may_wait=self._nack is not True, idle=self._idle, unworthy=self._unworthy
        )
        self.warm = WarmPool(
            alive=self._alive,
            starting=self._starting,
            keep=self.queues.keep,
            launch=self._launch_spare,
        )
        self.keeping = Keeping(
            kit.keep_alive, events, hot=self._hot, launch=partial(self._launch_spare, ahead=True)
        )
        self.next_in_line = FairAdmission()
        self._nursery = nursery
        self.launch_slots = kit.launch_slots
        self._kit = kit
        self._events = events
        self._containers: set[Container] = set()
        self._closing = False

    def __repr__(self) -> str:
        return f"<Launcher containers={len(self._containers)} queues={len(self.queues)}>"

    @property
    def containers(self) -> Iterable[Container]:
        """Those that live, in no order."""
        return tuple(self._containers)

    def close(self) -> None:
        """Refuse who waits for a slot; let go of the containers that no call uses, and of the
        others as soon as their calls are over. Idempotent."""
        self._closing = True
        self.warm.close()
        for queue in self.queues:
            queue.refuse_all(ServerBusy)
        for container in tuple(self._containers):
            if not container.busy:
                container.leave(CLOSING)

    def shown_load(self) -> LoadGauges:
        """What the metrics show."""
        room, launch_slots = self.room, self.launch_slots
        return LoadGauges(
            mem_used=room.used.memory,
            mem_total=room.total.memory,
            cpu_used=room.used.cpus,
            cpu_total=room.total.cpus,
            launches_running=int(launch_slots.borrowed_tokens),
            launches_waiting=launch_slots.statistics().tasks_waiting,
        )

    def hold(self, key: Hashable, call: PendingCall, count: int) -> WarmHold:
        """Keep ``count`` containers ready for calls like ``call``."""
        recipe = ContainerTemplate.of(call, self._kit.config, with_token=True)
        return self.warm.hold(key, recipe, count)

    def expect(self, key: Hashable, call: PendingCall) -> None:
        """Heed what the function of ``call`` wants to be kept ready. The call's registry token
        is its own, so what is launched ahead of calls has none."""
        if self._closing:
            return
        count = min_warm(call.model.annotations)
        config = self._kit.config
        self.warm.expect(key, count, lambda: ContainerTemplate.of(call, config, with_token=False))

    def _launch(self, launch: Launch[Container], call: PendingCall) -> None:
        """Start ``launch`` for ``call``, of which nothing is kept but what the launch needs."""
        config = self._kit.config
        # The call's registry token is not for launches ahead of other calls.
        self.keeping.missed(
            launch.queue.key, lambda: ContainerTemplate.of(call, config, with_token=False)
        )
        self._nursery.start_soon(
            self._run,
            launch,
            container_task(call, config),
            needed_resources(call.model),
            call.model.idle_timeout,
            call.gentle,
            self.patient(call),
        )

    def patient(self, call: PendingCall) -> bool:
        """Whether ``call`` waits for room, and is not refused for want of it."""
        return not (call.refusable if self._nack == AUTO else self._nack)

    def _has_room(self, call: PendingCall) -> bool:
        """Whether there is room for a container of ``call``, or will be without a wait for
        others."""
        size = needed_resources(call.model)
        return self.room.in_reach(size, call.slot_hash_id, gentle=call.gentle)

    async def _run(
        self,
        launch: Launch[Container],
        task: ContainerTask,
        size: Resources,
        idle_timeout: int,
        gentle: bool,
        patient: bool,
    ) -> None:
        track = self._events.track(task.app_id, task.fn_id, task.image)
        try:
            acquire = partial(self.room.acquire, gentle=gentle, patient=patient)
            share = await self._find_room(launch, size, track, acquire)
            if share is not None:
                await self._live(launch, task, share, idle_timeout, track)
        finally:
            self.warm.settle()

    def _launch_spare(
        self, key: Hashable, recipe: ContainerTemplate, *, ahead: bool = False
    ) -> bool:
        """Start a container that is for no call in particular, if there is room. ``ahead``: the
        `KeepAlive` wants it."""
        share = None if self._closing else self.room.try_acquire(recipe.size)
        if share is None:
            return False
        launch = self.queues.get(key).add_spare()
        task = recipe.task()
        track = self._events.track(task.app_id, task.fn_id, task.image)
        self._nursery.start_soon(
            self._run_spare, launch, task, share, recipe.idle_timeout, track, ahead
        )
        return True

    async def _run_spare(
        self,
        launch: Launch[Container],
        task: ContainerTask,
        share: ResourceToken,
        idle_timeout: int,
        track: ContainerTrack,
        ahead: bool,
    ) -> None:
        try:
            await self._live(launch, task, share, idle_timeout, track, ahead=ahead)
        finally:
            self.warm.settle()

    async def _live(
        self,
        launch: Launch[Container],
        task: ContainerTask,
        share: ResourceToken,
        idle_timeout: int,
        track: ContainerTrack,
        *,
        ahead: bool = False,
    ) -> None:
        container = Container(
            launch,
            task,
            share,
            idle_timeout=idle_timeout,
            ahead=ahead,
            kit=self._kit,
            keeping=self.keeping,
            events=self._events,
            track=track,
            on_idle=self._container_idle,
            on_ready=self.warm.note_ready,
            on_removed=self.warm.settle,
        )
        self._containers.add(container)
        try:
            await container.run()
        finally:
            self._containers.discard(container)

    async def _find_room(
        self,
        launch: Launch[Container],
        size: Resources,
        track: ContainerTrack,
        acquire: Callable[[Resources, Hashable], Awaitable[ResourceToken]],
    ) -> ResourceToken | None:
        """Wait for room until nobody needs the launch any more."""
        share: ResourceToken | None = None
        try:
            with launch.scope:
                share = await acquire(size, launch.queue.key)
        except NoResources:
            waiter = launch.waiter
            wait = waiter is not None and self._may_be_next(launch.queue, waiter)
            launch.queue.launch_failed(launch, ServerBusy(), wait=wait)
        except BaseException:  # the agent is being cancelled
            launch.queue.launch_failed(launch, ServerBusy(), wait=False)
            raise
        else:
            if share is not None and launch.waiter is not None:
                launch.begun = True
                launch.begun_at = trio.current_time()
                return share
            if share is not None:
                share.release()
            launch.queue.launch_dropped(launch)
        finally:
            if not launch.begun:
                track.move(None, trio.current_time())
        return None

    def _may_be_next(self, queue: SlotQueue[Container], waiter: SlotWaiter[Container]) -> bool:
        """Whether the call of ``waiter``, for which no container is launched, may wait for one that
        another call has, and not for longer than its load balancer allows."""
        call, rule, now = waiter.call, self.next_in_line, trio.current_time()
        if waiter.launch is not None or not self._has_room(call):
            rule.found_no_room(queue.key, now)
        if self._closing:
            return False
        others = queue.setbacks - (waiter.setback is not None)
        if call.queue_seconds <= 0 or not rule.may_wait(
            queue.key, call.client, queue.alive, others, now
        ):
            rule.refused(queue.key, call.client, now)
            return False
        until = now + call.queue_seconds
        waiter.patience.deadline = min(waiter.patience.deadline, until)
        return True

    def _container_idle(self) -> None:
        if self._closing:
            for container in tuple(self._containers):
                if not container.busy:
                    container.leave(CLOSING)
        else:
            self.room.settle()

    def _idle(self) -> Iterable[Container]:
        """The idle containers, surplus ones first, in the order of the `KeepAlive`, those to be
        kept last."""
        rank, now = self.keeping.rank, trio.current_time()
        idle = [container for queue in self.queues for container in queue.idle()]
        idle.sort(
            key=lambda container: (
                container.kept,
                container.share.worthy_until > container.idle_since,
                rank(container, now),
                container.idle_since,
            )
        )
        return idle

    def _unworthy(self) -> Iterable[Container]:
        """Those of them that are not worth keeping now."""
        now = trio.current_time()
        return [container for container in self._idle() if container.share.worthy_until <= now]

    def _alive(self, key: Hashable) -> int:
        queue = self.queues.find(key)
        return queue.alive if queue is not None else 0

    def _hot(self, key: Hashable) -> bool:
        queue = self.queues.find(key)
        return queue is not None and bool(queue.idle_count or queue.starting)

    def _starting(self, key: Hashable) -> int:
        queue = self.queues.find(key)
        return queue.starting if queue is not None else 0
