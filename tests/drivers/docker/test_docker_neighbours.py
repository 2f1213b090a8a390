"""Drivers of one node whose images one of them cleans, on virtual time, over an engine that is a
dict."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from hostler.drivers.docker import ImagesInUse, PeerDrivers
from hostler.drivers.docker.image_cleaner import NEWS_PAUSE as TELL_PAUSE
from hostler.drivers.docker.image_cleaner import PAUSE, ImageCleaner, ImageUseBroadcast
from hostler.drivers.docker.images import Images

from .dict_engine import HALF, MB, DictEngine


@attrs.define
class Other(PeerDrivers):
    """The one neighbour that a driver has: ``images`` are those of the other one."""

    images: Images
    clean: bool = False
    cleaner: ImageCleaner | None = None
    told: list[tuple[float, list[str]]] = attrs.Factory(list[tuple[float, list[str]]])

    async def images_in_use(self) -> ImagesInUse:
        await trio.lowlevel.checkpoint()
        return self.images.cache.busy()

    async def tell_used(self, ids: Sequence[str]) -> None:
        await trio.lowlevel.checkpoint()
        self.told.append((trio.current_time(), list(ids)))
        if self.cleaner is not None:
            self.cleaner.heard(ids)


@attrs.define
class Pair:
    engine: DictEngine
    cleaner: ImageCleaner
    own: Images
    """Of the driver that cleans."""
    theirs: Images
    news: Other


@asynccontextmanager
async def open_pair(*images: str, limit: int = MB) -> AsyncIterator[Pair]:
    engine = DictEngine()
    for name in images:
        engine.add(name)
    own, theirs = Images(engine), Images(engine)
    cleaner = ImageCleaner(engine, own, limit, [], Other(theirs))
    news = Other(own, clean=True, cleaner=cleaner)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cleaner.run)
        nursery.start_soon(ImageUseBroadcast(theirs, news).run)
        await trio.sleep(PAUSE)
        yield Pair(engine, cleaner, own, theirs, news)
        nursery.cancel_scope.cancel()


async def use(images: Images, name: str) -> None:
    lease = await images.lease(name)
    assert lease is not None
    lease.release()


async def test_what_a_neighbour_holds_stays_until_it_lets_go(autojump_clock: object) -> None:
    async with open_pair("a") as pair:
        pair.engine.add("b")
        lease = await pair.theirs.lease("b")  # of an image that is new, which is a reason
        assert lease is not None
        await trio.sleep(2 * PAUSE)
        assert pair.engine.removed() == ["a"]
        pair.engine.add("c")
        await use(pair.own, "c")
        await trio.sleep(2 * PAUSE)
        assert pair.engine.removed() == ["a", "c"]
        found = pair.cleaner.statistics()
        assert (found.busy, found.busy_size, found.idle) == (1, HALF, 0)
        pair.engine.add("d")
        lease.release()
        await trio.sleep(2 * PAUSE)
        assert len(pair.engine.stored) == 1


async def test_an_image_that_a_neighbour_pulls_stays(autojump_clock: object) -> None:
    async with open_pair("a", limit=1) as pair:
        unpin = pair.theirs.cache.pin("new:latest")
        pair.engine.add("new")
        pair.cleaner.wake()
        await trio.sleep(2 * PAUSE)
        assert pair.engine.removed() == ["a"]
        unpin()
        await trio.sleep(2 * PAUSE)
        assert pair.engine.removed() == ["a", "new"]


async def test_the_least_recently_used_is_that_of_all(autojump_clock: object) -> None:
    async with open_pair("a", "b", "c", limit=2 * MB) as pair:
        await use(pair.theirs, "a")
        await use(pair.own, "b")
        await trio.sleep(2 * PAUSE)
        pair.engine.add("d")
        await use(pair.theirs, "d")
        await trio.sleep(2 * PAUSE)
        # "a" was used before "b", but is told of a moment later.
        assert pair.engine.removed()[0] == "c"
        assert "d" in pair.engine.stored


async def test_news_are_few(autojump_clock: object) -> None:
    async with open_pair("a", "b", limit=2 * MB) as pair:
        pair.news.cleaner = None
        began = trio.current_time()
        for _ in range(100):
            await use(pair.theirs, "a")
            await use(pair.theirs, "b")
        await trio.sleep(10 * TELL_PAUSE)
        assert [(time - began, sorted(ids)) for time, ids in pair.news.told] in (
            [(0, ["a"]), (TELL_PAUSE, ["a", "b"])],
            [(0, ["a", "b"]), (TELL_PAUSE, ["a", "b"])],
        )
        pair.news.told.clear()
        lease = await pair.theirs.lease("a")  # known
        await trio.sleep(10 * TELL_PAUSE)
        assert lease is not None
        assert pair.news.told == []
