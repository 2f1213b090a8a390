"""Passes on to placers what the runners of a pool tell of their load."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from ..protocol import LoadHint

if TYPE_CHECKING:
    from ..abc import LoadListener, Runner, RunnerPool


class LoadNews:
    """Of one pool. Placers are not kept alive by it."""

    def __init__(self, pool: RunnerPool) -> None:
        self._pool = pool
        self._listeners: weakref.WeakSet[LoadListener] = weakref.WeakSet()
        self._latest: dict[Runner, LoadHint] = {}

    def __repr__(self) -> str:
        return f"<LoadNews listeners={len(self._listeners)} runners={len(self._latest)}>"

    def add(self, listener: LoadListener) -> None:
        """Tell ``listener`` what is known, and what is heard from now on. Idempotent."""
        if listener in self._listeners:
            return
        self._listeners.add(listener)
        for runner, hint in self._latest.items():
            listener.note_load(self._pool, runner, hint)

    def tell(self, runner: Runner, hint: LoadHint | None) -> None:
        """``runner`` has told its load; ``None`` = it can't be heard any more."""
        if hint is None:
            if self._latest.pop(runner, None) is None:
                return
        else:
            self._latest[runner] = hint
        for listener in tuple(self._listeners):
            listener.note_load(self._pool, runner, hint)
