"""Bodies in memory, and the byte budget of all bodies of a node."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from typing import Literal

import structlog
import trio
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..calls import Body, BodyConsumed, BytesStream
from ..config import BodyConfig
from ..errors import HostlerError
from .disk import Disk


class CountedBody(Body):
    """A body in memory that came whole with its request. It counts until it is closed."""

    def __init__(self, data: bytes, budget: BodyBudget) -> None:
        self._data: bytes | None = data
        self._budget = budget
        budget.memory += len(data)

    def open(self) -> trio.abc.ReceiveStream:
        """Any number of times, until the body is closed; from then on it raises `BodyConsumed`."""
        if self._data is None:
            raise BodyConsumed("the body was closed")
        return BytesStream(self._data)

    @property
    def data(self) -> bytes | None:
        return self._data

    @property
    def replayable(self) -> bool:
        return self._data is not None

    async def aclose(self) -> None:
        data, self._data = self._data, None
        if data is not None:
            self._budget.memory -= len(data)


log = structlog.get_logger(__name__)

NotKeptReason = Literal["too_big", "no_room", "disk_error"]
"""Larger than one body may be, over the limits of all bodies, or a file that can't be written."""

_PASSING = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, None}
)
"""Troubles with files that may be over soon; a disk that hangs has no number."""


class NotKept(HostlerError):
    """There is no room for more of a body. ``lasts``: waiting alone won't make any."""

    def __init__(self, reason: NotKeptReason, *, lasts: bool = False) -> None:
        self.reason: NotKeptReason = reason
        self.lasts = lasts
        super().__init__(f"the body is not kept: {reason}")


class BodyBudget:
    """Counts the bytes of bodies that are kept, in memory and on disk, over all calls.

    One per node, for its front end and its agent. ``memory`` and ``disk`` are what is kept now:
    ``memory`` is over its limit by what is on its way to a file, and by bodies that came whole
    with their request (at most 64 KiB each), which are counted, but needed anyway.

    Belongs to the event loop's thread; may be made outside of it.
    """

    def __init__(self, config: BodyConfig | None = None) -> None:
        self.config = config or BodyConfig()
        self.memory = 0
        self.disk = 0
        self.not_kept: dict[NotKeptReason, int] = {"too_big": 0, "no_room": 0, "disk_error": 0}
        self.files = Disk()
        self._disk_fails = False

    def wants_file(self, held: int) -> bool:
        """Whether a body that has ``held`` bytes in memory should move them to its file."""
        config = self.config
        if self.memory > config.body_memory:
            return True
        return held > config.body_spill_size and config.body_disk > 0

    def take_disk(self, size: int) -> None:
        """Count ``size`` bytes that are about to be written. Raises `NotKept`."""
        if self.disk + size > self.config.body_disk:
            raise NotKept("no_room")
        self.disk += size

    def disk_failed(self, error: OSError) -> NotKept:
        """What that means for the body. Tells of the first failure after a success."""
        lasts = error.errno not in _PASSING
        if not self._disk_fails:
            tell = log.error if lasts else log.warning
            directory = self.config.body_dir or tempfile.tempdir
            tell("bodies can't be written to disk", directory=directory, error=str(error))
        self._disk_fails = True
        return NotKept("disk_error", lasts=lasts)

    def disk_worked(self) -> None:
        """A write to disk has succeeded, so the next failure is told in the log again.
        Synchronous."""
        if self._disk_fails:
            log.info("bodies can be written to disk again")
        self._disk_fails = False


class BodyMetrics(Collector):
    """Exposes what a `BodyBudget` counts. Fn has no such metrics.

    Raises `ValueError` if ``registry`` has such metrics already.
    """

    def __init__(self, registry: CollectorRegistry, budget: BodyBudget | None = None) -> None:
        self._budget = budget or BodyBudget()
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        budget = self._budget
        yield _gauge("memory", "Bytes of request bodies that are kept in memory", budget.memory)
        yield _gauge("disk", "Bytes of request bodies that are kept in files", budget.disk)
        not_kept = Metric(
            "fn_body_not_kept_count",
            "Bodies of which no more could be kept, so that their calls could not go elsewhere, "
            "or were refused",
            "unknown",
        )
        for reason, count in budget.not_kept.items():
            not_kept.add_sample(not_kept.name, {"reason": reason}, count)
        yield not_kept


def _gauge(name: str, text: str, value: int) -> Metric:
    metric = Metric(f"fn_body_{name}_bytes", text, "gauge")
    metric.add_sample(metric.name, {}, value)
    return metric
