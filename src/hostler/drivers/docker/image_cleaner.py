"""Removing unused images above a size limit, together with peer drivers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import attrs
import docker
import structlog
import trio
from docker.errors import DockerException

from .engine import NOT_FOUND, Engine, EngineError, EngineOperation, raise_for_status
from .images import ImageCache, Images, ImagesInUse, canonical_name

log = structlog.get_logger(__name__)

PAUSE = 0.5
"""Seconds between two rounds at least (Fn's limit of twice a second)."""

RECHECK = 60.0
"""Seconds after which a cleaner that found nothing to remove looks again: the containers of
others, whose images it leaves alone, end without a word to us."""

REFUSED_FIRST = 60.0
"""Seconds after which an image that could not be removed is tried again; doubled each time."""

REFUSED_LAST = 3600.0
"""Seconds up to which that is doubled."""


@attrs.frozen(kw_only=True)
class ImageStatistics:
    """The images at the last round of the cleaner: numbers, and bytes in which shared layers are
    counted for each image. ``disk_size`` counts them once and is what ``limit`` applies to."""

    busy: int = 0
    busy_size: int = 0
    idle: int = 0
    idle_size: int = 0
    disk_size: int = 0
    limit: int = 0
    removed: int = 0
    """Images removed so far."""


@attrs.define
class _Refusal:
    """An image that the engine did not remove."""

    delay: float = REFUSED_FIRST / 2
    until: float = 0.0

    def again(self) -> None:
        self.delay = min(self.delay * 2, REFUSED_LAST)
        self.until = trio.current_time() + self.delay


class ImageCleaner:
    """Keeps the images of an engine below ``limit`` bytes as far as idle ones allow it.

    Works when something has changed (a pull, a new image, an image that became idle while there
    was too much) and asks the engine each time what there is: nothing is lost or counted twice,
    whoever else pulls and removes images. Images with ``exempt`` names are left alone and not
    counted; a name without a tag means ``latest``. What ``neighbours`` use is as busy as what is
    used here.
    """

    def __init__(
        self,
        engine: Engine,
        images: Images,
        limit: int,
        exempt: Iterable[str],
        neighbours: PeerDrivers | None = None,
    ) -> None:
        self._engine = engine
        self._images = images
        self._limit = limit
        self._exempt = frozenset(map(canonical_name, exempt))
        self._neighbours = neighbours
        self._refusals: dict[str, _Refusal] = {}
        self._changed = trio.Event()
        self._stuck = False
        self._healthy = True
        self._removed = 0
        self._statistics = ImageStatistics(limit=limit)
        images.on_new = lambda _: self.wake()
        images.cache.on_idle = self._became_idle

    def statistics(self) -> ImageStatistics:
        return self._statistics

    def wake(self) -> None:
        """Have a round soon: the engine may have more images now."""
        self._changed.set()

    def heard(self, used: Iterable[str]) -> None:
        """These images are new to a neighbour, or were used last by it."""
        for image_id in used:
            self._images.cache.used(image_id)
        self.wake()

    def _became_idle(self, _: str) -> None:
        if self._stuck:
            self._changed.set()

    async def run(self) -> None:
        """Clean until cancelled. An engine's outage is logged once and sat out."""
        while True:
            started = trio.current_time()
            self._changed = trio.Event()
            try:
                again_at = await self._clean()
                self._healthy = True
            except EngineError as error:
                if self._healthy:
                    log.warning("images not measured, will try again", error=str(error))
                self._healthy = False
                again_at = 0.0
            await trio.sleep_until(started + PAUSE)
            with trio.move_on_at(again_at):
                await self._changed.wait()

    async def _clean(self) -> float:
        """Remove until there is room. Returns when to look again even if nothing changes."""
        while True:
            stock = await take_stock(self._engine)
            elsewhere = await self._elsewhere()
            self._note(stock, elsewhere)
            if self._statistics.disk_size < self._limit:
                self._stuck = False
                return math.inf
            now = trio.current_time()
            refused = {id_ for id_, refusal in self._refusals.items() if refusal.until > now}
            victim = choose_victim(
                stock,
                self._images.cache,
                self._exempt | elsewhere.names,
                refused | elsewhere.ids,
            )
            if victim is None:
                self._stuck = True
                return now + RECHECK
            await self._remove(victim)

    async def _elsewhere(self) -> ImagesInUse:
        return ImagesInUse() if self._neighbours is None else await self._neighbours.images_in_use()

    def _note(self, stock: ImageUsage, elsewhere: ImagesInUse) -> None:
        cache = self._images.cache
        cache.update(image.id for image in stock.images)
        self._refusals = {
            id_: refusal for id_, refusal in self._refusals.items() if cache.knows(id_)
        }
        busy: list[int] = []
        idle: list[int] = []
        for image in stock.images:
            names = image.canonical_names()
            if names.isdisjoint(self._exempt):
                held = image.id in elsewhere.ids or not names.isdisjoint(elsewhere.names)
                (busy if held or cache.is_busy(image.id, names) else idle).append(image.size)
        self._statistics = ImageStatistics(
            busy=len(busy),
            busy_size=sum(busy),
            idle=len(idle),
            idle_size=sum(idle),
            disk_size=stock.size_without(self._exempt),
            limit=self._limit,
            removed=self._removed,
        )

    async def _remove(self, image: StoredImage) -> None:
        with self._images.removal(image.id):
            try:
                # Without its last name the image goes too. By its id, an image with names of
                # several repositories could only be removed by force.
                for name in (*image.tags, *image.digests) or (image.id,):
                    await self._remove_name(name)
            except EngineError as error:
                refusal = self._refusals.setdefault(image.id, _Refusal())
                refusal.again()
                log.warning(
                    "image not removed",
                    image=image.id,
                    names=image.tags,
                    error=str(error),
                    again_in_s=refusal.delay,
                )
                return
        self._removed += 1
        log.info("image removed", image=image.id, names=image.tags, size=image.size)

    async def _remove_name(self, name: str) -> None:
        try:
            await self._engine.call(
                EngineOperation.REMOVE_IMAGE, lambda client: client.remove_image(name)
            )
        except EngineError as error:
            if error.status != NOT_FOUND:
                raise


_NO_NAMES = ("<none>:<none>", "<none>@<none>")


@attrs.frozen(kw_only=True)
class StoredImage:
    """One image. Bytes; ``own_size`` leaves out the layers that other images have too."""

    id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    size: int = 0
    own_size: int = 0
    created: int = 0
    """Unix seconds."""
    containers: int = 0
    """How many containers use it, if the engine has counted them."""

    def canonical_names(self) -> frozenset[str]:
        return frozenset(map(canonical_name, (*self.tags, *self.digests)))


@attrs.frozen
class ImageUsage:
    """All images of an engine. ``disk_size`` counts each shared layer once."""

    images: tuple[StoredImage, ...]
    disk_size: int

    def size_without(self, exempt: Collection[str]) -> int:
        """Bytes on disk, less what only images with ``exempt`` canonical names have."""
        own = sum(i.own_size for i in self.images if not i.canonical_names().isdisjoint(exempt))
        return max(self.disk_size - own, 0)


def choose_victim(
    stock: ImageUsage, cache: ImageCache, exempt: Collection[str], refused: Collection[str]
) -> StoredImage | None:
    """The least recently used image that may be removed: neither busy, nor exempt, nor used by
    anybody's container, nor (by id) ``refused`` before. ``None`` if there is none."""
    by_id = {image.id: image for image in stock.images}
    for image_id in cache.by_last_use():
        image = by_id.get(image_id)
        if image is None or image.containers > 0 or image_id in refused:
            continue
        names = image.canonical_names()
        if names.isdisjoint(exempt) and not cache.is_busy(image_id, names):
            return image
    return None


async def take_stock(engine: Engine) -> ImageUsage:
    """Ask the engine. It adds up what it knows of its layers and does not walk through files.

    Raises `EngineError`.
    """
    return await engine.call(EngineOperation.MEASURE_IMAGES, _take_stock)


def _take_stock(client: docker.APIClient) -> ImageUsage:
    usage = _get(client, "/system/df", {"type": "image"})
    listed = usage.get("Images") if isinstance(usage, Mapping) else None
    if not isinstance(listed, list):
        # API versions from 1.52 on leave the list out of the usage.
        listed = _get(client, "/images/json", {"shared-size": "1"})
    try:
        images = tuple(sorted(map(_stored_image, listed), key=lambda image: image.created))
        return ImageUsage(images, _disk_size(usage, images))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise DockerException(f"the engine's list of images is strange: {error!r}") from error


def _get(client: docker.APIClient, path: str, params: Mapping[str, str]) -> Any:
    url = f"{client.base_url}/v{client.api_version}{path}"
    response = client.get(url, params=dict(params))
    raise_for_status(response)
    return response.json()


def _disk_size(usage: Mapping[str, Any], images: Collection[StoredImage]) -> int:
    size = usage.get("LayersSize", (usage.get("ImageUsage") or {}).get("TotalSize"))
    # If the engine does not tell, shared layers are counted once for each image.
    return sum(image.size for image in images) if size is None else int(size)


def _stored_image(found: Mapping[str, Any]) -> StoredImage:
    size = int(found["Size"])
    return StoredImage(
        id=str(found["Id"]),
        tags=_names(found.get("RepoTags")),
        digests=_names(found.get("RepoDigests")),
        size=size,
        own_size=size - max(int(found.get("SharedSize", 0)), 0),
        created=int(found["Created"]),
        containers=int(found.get("Containers", 0)),
    )


def _names(found: list[str] | None) -> tuple[str, ...]:
    return tuple(name for name in found or () if name not in _NO_NAMES)


NEWS_PAUSE = 0.5
"""Seconds between two messages at least, as between two rounds of a cleaner."""


class PeerDrivers(ABC):
    """The others, as one of the drivers reaches them. Nothing is raised: who does not answer is
    left out. The engine itself refuses to remove the image of a container."""

    @property
    @abstractmethod
    def clean(self) -> bool:
        """Whether it is one of them that cleans."""

    @abstractmethod
    async def images_in_use(self) -> ImagesInUse:
        """Of them all; only the one that cleans asks."""

    @abstractmethod
    async def tell_used(self, ids: Sequence[str]) -> None:
        """Let the one that cleans know that these images are new here or were used last."""


class ImageUseBroadcast:
    """Tells the one that cleans what becomes of the images here, not too often."""

    def __init__(self, images: Images, neighbours: PeerDrivers) -> None:
        self._neighbours = neighbours
        self._known: set[str] = set()
        self._used: dict[str, None] = {}
        self._changed = trio.Event()
        images.on_new = self._new
        images.cache.on_idle = self._note

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            used, self._used = self._used, {}
            await self._neighbours.tell_used(list(used))
            await trio.sleep(NEWS_PAUSE)

    def _new(self, image_id: str) -> None:
        if image_id not in self._known:
            self._known.add(image_id)
            self._note(image_id)

    def _note(self, image_id: str) -> None:
        self._used.pop(image_id, None)
        self._used[image_id] = None
        self._changed.set()
