"""Load report: the load hints that a runner's agent gives to load balancers."""

from __future__ import annotations

import functools
import hashlib
import heapq
import math

import trio

from ..calls import PendingCall
from ..protocol import MAX_WARM_KEYS, SLOT_DIGEST, WARM_KEY_SECONDS, LoadHint
from ..slot_key import SlotExtensions
from .capacity import IdleCpus
from .container import Container
from .launcher import Launcher
from .slots import SlotQueue

COMPLETE_SECONDS = 0.1
"""Minimum time between hints that name all hot containers; longer if there are many functions
(`WARM_KEY_SECONDS`)."""
FEW = round(COMPLETE_SECONDS / WARM_KEY_SECONDS)
"""Up to so many functions all containers are always named."""
MAX_RETRY_SECONDS = 1.0
"""No longer wait is advised, because calls of other load balancers may end any time."""
WEIGHT = 1 / 8
"""Weight of the latest call in the mean run time, as in TCP's round-trip estimate (RFC 6298)."""


class LoadReporter:
    """Makes the hints of one agent."""

    def __init__(self, launcher: Launcher, slot_extensions: SlotExtensions) -> None:
        self._launcher = launcher
        self._events = launcher.deps.events
        self._reserves = launcher.deps.config.reservation_msecs > 0
        self._slot_extensions = slot_extensions
        self._complete_at = -math.inf
        self._mean_seconds = 0.0
        self._idle_cpus = IdleCpus()

    def ran(self, seconds: float) -> None:
        """A call has had a container for ``seconds``."""
        mean = self._mean_seconds
        self._mean_seconds = mean + WEIGHT * (seconds - mean) if mean else seconds

    def load(self) -> LoadHint:
        """A hint for no call in particular, with all hot containers."""
        return self._hint(None, trio.current_time(), complete=True)

    def load_figures(self) -> LoadHint:
        """The same, without the containers if they are of more than `FEW` functions."""
        return self._hint(None, trio.current_time(), complete=len(self._launcher.queues) <= FEW)

    def hint(self, call: PendingCall) -> LoadHint:
        """The hint for the answer to ``call``, which is over, or was refused."""
        now = trio.current_time()
        return self._hint(call, now, complete=now >= self._complete_at)

    def _hint(self, call: PendingCall | None, now: float, *, complete: bool) -> LoadHint:
        launcher, events = self._launcher, self._events
        resources, admission = launcher.resources, launcher.admission
        warm = self._all_warm() if complete else {}
        slot, slots, share, starting, leave = b"", 0, 0, 0, False
        if call is not None:
            if complete:
                self._complete_at = now + max(COMPLETE_SECONDS, len(warm) * WARM_KEY_SECONDS)
            key, timings = call.slot_hash_id, call.timings
            queue = None
            if key is not None:
                slot = _digest(key)
                queue = launcher.queues.find(key)
            if queue is not None:
                starting = queue.starting
                slots = admission.places(queue.alive, now)
                if slots:
                    share = admission.share(key, call.client, queue.alive, now)
                if queue.idle_count:
                    warm[slot] = queue.idle_count
            if timings.execution_ns > 0:  # it ran
                if timings.init_start_ns:
                    admission.started(timings.start_seconds, now - timings.execution_ns / 1e9)
                leave = admission.leaves(key, call.client, now)
        reclaimable, protected = resources.reclaimable, resources.protected(now)
        total, used = resources.total, resources.used
        return LoadHint(
            active=events.running + events.queued,
            free_memory=max(0, total.memory - used.memory),
            reclaimable_memory=reclaimable.memory,
            free_cpus=max(0, total.cpus - used.cpus),
            reclaimable_cpus=reclaimable.cpus,
            retry_after_ms=self._retry_after_ms(),
            slot=slot,
            warm=warm,
            complete=complete,
            reserves=self._reserves,
            slots=slots,
            share=share,
            leave=leave,
            protected_memory=protected.memory,
            protected_cpus=protected.cpus,
            refused=events.ended["server_busy"] % 2**32,
            idle_cpus=self._idle_cpus.milli_cpus(now) if complete else None,
            starting=starting,
            slot_extensions=self._slot_extensions.names if complete else (),
        )

    def _all_warm(self) -> dict[bytes, int]:
        """The slot keys with idle containers, the most recently used ones if there are many."""
        queues = [queue for queue in self._launcher.queues if queue.idle_count]
        if len(queues) > MAX_WARM_KEYS:
            queues = heapq.nlargest(MAX_WARM_KEYS, queues, key=_last_used)
        return {_digest(queue.key): queue.idle_count for queue in queues}

    def _retry_after_ms(self) -> int:
        """The mean time until one of the running calls is over."""
        running = self._events.running
        if not running or not self._mean_seconds:
            return 0
        return max(1, round(min(self._mean_seconds / running, MAX_RETRY_SECONDS) * 1000))


def _last_used(queue: SlotQueue[Container]) -> float:
    return max(container.idle_since for container in queue.idle())


@functools.lru_cache(maxsize=4096)
def _digest(key: object) -> bytes:
    assert isinstance(key, bytes)
    return hashlib.sha256(key).digest()[:SLOT_DIGEST]
