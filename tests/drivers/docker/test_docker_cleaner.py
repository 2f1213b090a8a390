"""The image cleaner on virtual time, over an engine that is a dict."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import attrs
import trio

from hostler.drivers.docker.image_cleaner import (
    PAUSE,
    RECHECK,
    REFUSED_LAST,
    ImageCleaner,
    StoredImage,
)
from hostler.drivers.docker.images import Images

from ...conftest import Logs
from .dict_engine import HALF, MB, DictEngine


@attrs.define
class Bench:
    engine: DictEngine
    images: Images
    cleaner: ImageCleaner

    async def hold(self, name: str) -> Callable[[], None]:
        """Use an image as a container does; returns what ends that."""
        lease = await self.images.lease(name)
        assert lease is not None
        return lease.release


@asynccontextmanager
async def open_bench(
    *images: str, limit: int = MB, exempt: Sequence[str] = ()
) -> AsyncIterator[Bench]:
    """A cleaner at work on ``images``, the oldest first, after it has had time for a round."""
    engine = DictEngine()
    for name in images:
        engine.add(name)
    shared = Images(engine)
    bench = Bench(engine, shared, ImageCleaner(engine, shared, limit, exempt))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.cleaner.run)
        await trio.sleep(PAUSE)
        yield bench
        nursery.cancel_scope.cancel()


async def test_the_oldest_go_until_there_is_room(autojump_clock: object) -> None:
    """Reference 07 §8: one exempt and three of 512 KB, at most 1 MB."""
    async with open_bench("busybox", "a", "b", "c", exempt=["busybox"]) as bench:
        assert bench.engine.removed() == ["a", "b"]
        found = bench.cleaner.statistics()
        assert (found.idle, found.idle_size, found.disk_size, found.removed) == (1, HALF, HALF, 2)


async def test_no_round_without_a_reason(autojump_clock: object) -> None:
    async with open_bench("a") as bench:
        await trio.sleep(80_000)
        assert (bench.engine.measured, bench.engine.asked_to_remove) == (1, [])


async def test_an_image_that_nobody_knew_is_a_reason(autojump_clock: object) -> None:
    async with open_bench("a") as bench:
        bench.engine.add("b")
        bench.engine.add("c")
        release = await bench.hold("c")
        await trio.sleep(PAUSE)
        assert bench.engine.removed() == ["a", "b"]
        release()


async def test_busy_images_stay_until_they_are_idle(autojump_clock: object) -> None:
    async with open_bench("a", "b", limit=1) as bench:
        bench.engine.add("c")
        first, second = await bench.hold("c"), await bench.hold("c")
        await trio.sleep(PAUSE)
        assert bench.engine.removed() == ["a", "b"]
        found = bench.cleaner.statistics()
        assert (found.busy, found.busy_size, found.idle) == (1, HALF, 0)
        first()
        await trio.sleep(2 * PAUSE)
        assert bench.engine.removed() == ["a", "b"]
        second()
        await trio.sleep(2 * PAUSE)
        assert bench.engine.removed() == ["a", "b", "c"]


async def test_idleness_is_no_reason_while_there_is_room(autojump_clock: object) -> None:
    async with open_bench("a") as bench:
        for _ in range(5):
            (await bench.hold("a"))()
            await trio.sleep(PAUSE)
        assert bench.engine.measured == 1


async def test_the_image_of_a_pull_stays_until_it_was_looked_at(autojump_clock: object) -> None:
    async with open_bench("a", limit=1) as bench:
        unpin = bench.images.cache.pin("new:latest")
        bench.engine.add("new")
        bench.cleaner.wake()
        await trio.sleep(2 * PAUSE)
        release = await bench.hold("new")
        unpin()
        await trio.sleep(2 * PAUSE)
        assert bench.engine.removed() == ["a"]
        release()
        await trio.sleep(2 * PAUSE)
        assert bench.engine.removed() == ["a", "new"]


async def test_an_image_that_cannot_be_removed_is_not_tried_for_ever(
    autojump_clock: object, logs: Logs
) -> None:
    """Weakness 04/9: the others go instead, and the pauses grow."""
    async with open_bench(limit=1) as bench:
        bench.engine.refuses.add("stuck")
        bench.engine.add("stuck")
        bench.engine.add("b")
        bench.cleaner.wake()
        await trio.sleep(2 * PAUSE)
        assert bench.engine.removed() == ["b"]
        await trio.sleep(24 * 3600)
        times = bench.engine.times("stuck")
        pauses = [later - sooner for sooner, later in pairwise(times)]
        assert pauses[0] >= 60
        assert pauses[-1] >= REFUSED_LAST
        assert pauses == sorted(pauses)
        assert len(times) < 32
        assert len(logs.with_event("image not removed")) == len(times)
        # As soon as it can be removed, it is.
        bench.engine.refuses.clear()
        await trio.sleep(REFUSED_LAST + RECHECK)
        assert bench.engine.stored == {}


async def test_containers_of_others_end_without_a_word(autojump_clock: object) -> None:
    async with open_bench("a", limit=1) as bench:
        bench.engine.stored["b"] = StoredImage(id="b", size=HALF, own_size=HALF, containers=1)
        bench.cleaner.wake()
        await trio.sleep(RECHECK / 2)
        assert "b" in bench.engine.stored
        bench.engine.stored["b"] = attrs.evolve(bench.engine.stored["b"], containers=0)
        await trio.sleep(RECHECK)
        assert "b" not in bench.engine.stored


async def test_an_outage_is_told_once_and_sat_out(autojump_clock: object, logs: Logs) -> None:
    async with open_bench("a", "b", "c", limit=10 * MB) as bench:
        bench.engine.fails = True
        bench.cleaner.wake()
        await trio.sleep(10)
        assert len(logs.with_event("images not measured")) == 1
        assert 10 < bench.engine.measured < 30
        bench.engine.fails = False
        await trio.sleep(10)
        assert bench.engine.measured < 32


async def test_nobody_gets_an_image_on_its_way_out(autojump_clock: object) -> None:
    async with open_bench("a", "b", limit=2 * MB) as bench:
        bench.engine.gate = trio.Event()
        bench.engine.add("c")
        bench.engine.add("d")
        bench.cleaner.wake()
        await trio.sleep(PAUSE)  # "a" is being removed now
        found: list[object] = []

        async def ask() -> None:
            found.append(await bench.images.lease("a"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(1)
            assert found == []
            bench.engine.gate.set()
        assert found == [None]  # needs a pull
        assert bench.engine.removed() == ["a"]


async def test_an_image_whose_removal_was_refused_can_be_used(autojump_clock: object) -> None:
    async with open_bench("a", "b", limit=2 * MB) as bench:
        bench.engine.refuses.add("a")
        bench.engine.gate = trio.Event()
        bench.engine.add("c")
        bench.engine.add("d")
        bench.cleaner.wake()
        await trio.sleep(PAUSE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.hold, "a")
            await trio.sleep(1)
            bench.engine.gate.set()
        assert bench.images.cache.is_busy("a")


async def test_an_image_that_somebody_else_removed_is_no_trouble(
    autojump_clock: object, logs: Logs
) -> None:
    async with open_bench("a", "b", limit=2 * MB) as bench:
        bench.engine.gate = trio.Event()
        bench.engine.add("c")
        bench.engine.add("d")
        bench.cleaner.wake()
        await trio.sleep(PAUSE)
        del bench.engine.stored["a"]
        bench.engine.gate.set()
        await trio.sleep(PAUSE)
        assert not logs.with_event("image not removed")
        assert list(bench.engine.stored) == ["b", "c", "d"]
