"""What a container uses while a call runs on it."""

from __future__ import annotations

import time
from collections.abc import Mapping

from hostler.abc import ContainerTask
from hostler.models import Call, CallStats


class Samples:
    """Takes what is measured of one container, as its task's ``on_sample``."""

    def __init__(self, task: ContainerTask) -> None:
        self._running = False
        self._stats: CallStats | None = None
        """Of the call that runs, if there are any."""
        task.on_sample = self.take

    def begin(self) -> None:
        """What is measured from here on is the call's that runs now."""
        self._running = True

    def end(self, model: Call) -> None:
        """It was the one of ``model``, and is over."""
        self._running = False
        if self._stats is not None:
            model.stats.extend(self._stats.result())
            self._stats = None

    def take(self, metrics: Mapping[str, int]) -> None:
        if self._running:
            if self._stats is None:
                self._stats = CallStats()
            self._stats.add(time.time_ns(), metrics)
