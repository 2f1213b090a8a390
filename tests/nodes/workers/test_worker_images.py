"""What the workers of a runner tell each other of an engine's images."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from hostler.drivers.docker import ImagesInUse
from hostler.nodes.workers.docker import CLEANER, WorkerPeerDrivers

from .fleet import open_all


@attrs.define
class Driver:
    """As far as neighbours know it."""

    in_use: ImagesInUse
    heard: list[str] = attrs.Factory(list[str])

    def images_in_use(self) -> ImagesInUse:
        return self.in_use

    def heard_used(self, ids: Iterable[str]) -> None:
        self.heard += ids


def opened(neighbours: WorkerPeerDrivers, *ids: str, name: str) -> Driver:
    driver = Driver(ImagesInUse(frozenset(ids), frozenset([name])))
    neighbours.answer_for(driver)  # type: ignore[arg-type]
    return driver


async def test_the_first_cleans_and_knows_what_the_others_use() -> None:
    async with open_all(3) as peers:
        first, second, third = map(WorkerPeerDrivers, peers)
        assert [each.clean for each in (first, second, third)] == [False, True, True]
        assert peers[CLEANER].place.number == CLEANER
        await third.tell_used(["nobody is there yet"])
        cleaner = opened(first, "a", name="x")
        opened(second, "b", "c", name="y")
        assert await first.images_in_use() == ImagesInUse(frozenset("bc"), frozenset("y"))
        other = opened(third, "c", "d", name="z")
        assert await first.images_in_use() == ImagesInUse(frozenset("bcd"), frozenset("yz"))
        await second.tell_used(["b", "c"])
        await third.tell_used(["d"])
        assert cleaner.heard == ["b", "c", "d"]
        assert other.heard == []
