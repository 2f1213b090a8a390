"""Observers of attempts that tests give."""

from __future__ import annotations

from collections.abc import Callable

from hostler.protocol import AttemptObserver


class OnCommit(AttemptObserver):
    """Calls ``call`` when the attempt is committed."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def committed(self) -> None:
        self._call()


class RecordingObserver(AttemptObserver):
    """Records what it is told in ``events``; claims a slot if ``claims``."""

    def __init__(self, *, claims: bool = True) -> None:
        self.events: list[str] = []
        self.claims = claims

    def asked(self) -> None:
        self.events.append("asked")

    def claim(self) -> bool:
        self.events.append("claim")
        return self.claims

    def committed(self) -> None:
        self.events.append("commit")
