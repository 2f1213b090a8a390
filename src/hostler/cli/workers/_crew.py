"""What the workers of a kind of node have in common, for the supervisor that keeps them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ._part import RunnerPart

Told = Mapping[str, Any]
"""The document with which a worker says that it is ready."""


class Crew(ABC):
    """One kind of node. Times are seconds."""

    node: str
    """Its name in the ready line."""
    first_alone: bool
    """Whether the others are started once the first is ready, which does what is done once."""
    drain_margin: float
    """Beyond the grace, for workers to close everything."""
    abort_seconds: float
    """For a worker to end that was told to do so at once; then it is killed."""

    @property
    @abstractmethod
    def binds(self) -> Mapping[str, str]:
        """The addresses on which all listen, by the options that name them."""

    @abstractmethod
    def part(self, number: int) -> RunnerPart | None:
        """What a worker that is about to start has of its own."""

    @abstractmethod
    def joined(self, number: int, told: Told) -> None:
        """It is ready, for the first time or again."""

    @abstractmethod
    def announcement(self, addresses: Sequence[str]) -> dict[str, object]:
        """What the node's ready line tells, once all have joined; ``addresses`` are those on which
        all listen."""


@attrs.frozen
class LBCrew(Crew):
    """Load balancers on one port."""

    bind: str
    runners: Sequence[str]

    node = "lb"
    first_alone = False
    drain_margin = 20.0
    abort_seconds = 5.0

    @property
    def binds(self) -> Mapping[str, str]:
        return {"--bind": self.bind}

    def part(self, number: int) -> None:
        return None

    def joined(self, number: int, told: Told) -> None:
        pass

    def announcement(self, addresses: Sequence[str]) -> dict[str, object]:
        return {"http": list(addresses), "runners": list(self.runners)}
