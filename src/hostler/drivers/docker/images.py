"""Image references, leases and use order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import docker
import msgspec
import trio
from docker.errors import DockerException

from .engine import NOT_FOUND, Engine, EngineError, EngineOperation


class Images:
    """Finds images and keeps them from being removed while they are used.

    ``on_new`` gets the id of an image that is found and that the cache did not know.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._removals: dict[str, trio.Event] = {}
        self._begun = 0
        self.on_new: Callable[[str], None] = lambda _: None
        self.cache = ImageCache()

    async def lease(self, name: str) -> ImageLease | None:
        """Find the image and make it busy; ``None`` if the engine does not have it.

        An image that is just being removed is waited for and asked for again, so that nobody is
        given an image that is on its way out. Raises `EngineError`.
        """
        while True:
            begun = self._begun
            found = await self._inspect(name)
            if found is None:
                return None
            image_id = str(found["Id"])
            if (removal := self._removals.get(image_id)) is not None:
                await removal.wait()
            elif begun == self._begun:
                if not self.cache.knows(image_id):
                    self.on_new(image_id)
                volumes = (found.get("Config") or {}).get("Volumes")
                return self.cache.lease(image_id, has_volumes=bool(volumes))

    @contextmanager
    def removal(self, image_id: str) -> Iterator[None]:
        """Holds back `lease` from an image that is being removed. It must not be busy."""
        self._begun += 1
        self._removals[image_id] = trio.Event()
        try:
            yield
        finally:
            self._removals.pop(image_id).set()

    async def _inspect(self, name: str) -> dict[str, Any] | None:
        def request(client: docker.APIClient) -> dict[str, Any]:
            image: dict[str, Any] = client.inspect_image(name)  # type: ignore[no-untyped-call]  # the stubs lack its types
            if not image.get("Id"):
                raise DockerException("the engine described an image without an id")
            return image

        try:
            return await self._engine.call(EngineOperation.INSPECT_IMAGE, request)
        except EngineError as error:
            if error.status == NOT_FOUND:
                return None
            raise


class ImagesInUse(msgspec.Struct, frozen=True):
    """What must not be removed: images by their ids, and whatever image has one of the canonical
    names."""

    ids: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()


class ImageLease:
    """One container's hold on its image: until it is released, the image is busy."""

    def __init__(self, cache: ImageCache, image_id: str, *, has_volumes: bool) -> None:
        self.image_id = image_id
        self.has_volumes = has_volumes
        self._cache: ImageCache | None = cache

    def release(self) -> None:
        """Idempotent: a surplus release can't free what somebody else holds."""
        if self._cache is not None:
            self._cache.dereference(self.image_id)
            self._cache = None


class ImageCache:
    """Busy images with their reference counts, idle ones by their last use.

    Images are known by the engine's ids. A pin keeps whatever image has a name: it covers the
    time in which a pull makes an image that nobody could have looked at yet. ``on_idle`` gets the
    id or the name of what nobody holds any more.
    """

    def __init__(self) -> None:
        self._references: Counter[str] = Counter()
        self._pins: Counter[str] = Counter()
        # As ordered set: the least recently used first.
        self._known: dict[str, None] = {}
        self.on_idle: Callable[[str], None] = lambda _: None

    def lease(self, image_id: str, *, has_volumes: bool) -> ImageLease:
        """Make an image busy."""
        self._references[image_id] += 1
        return ImageLease(self, image_id, has_volumes=has_volumes)

    def dereference(self, image_id: str) -> None:
        """One lease of the image less."""
        if self._references[image_id] > 1:
            self._references[image_id] -= 1
            return
        del self._references[image_id]
        self.used(image_id)
        self.on_idle(image_id)

    def used(self, image_id: str) -> None:
        """Of those that are known it was in use last."""
        if image_id in self._known:
            del self._known[image_id]
            self._known[image_id] = None

    def pin(self, name: str) -> Callable[[], None]:
        """Keep whatever image is called ``name``; call the result once to let go of it."""
        key = canonical_name(name)
        self._pins[key] += 1

        def unpin() -> None:
            self._pins[key] -= 1
            if not self._pins[key]:
                del self._pins[key]
            self.on_idle(key)

        return unpin

    def update(self, image_ids: Iterable[str]) -> None:
        """These are the images that exist. New ones count as just used, in the given order; what
        is gone is forgotten."""
        existing = dict.fromkeys(image_ids)
        self._known = {id_: None for id_ in self._known if id_ in existing} | existing

    def knows(self, image_id: str) -> bool:
        return image_id in self._known

    def by_last_use(self) -> list[str]:
        """Ids of all known images, the least recently used first."""
        return list(self._known)

    def busy(self) -> ImagesInUse:
        """All that have a reference or a pin."""
        return ImagesInUse(frozenset(self._references), frozenset(self._pins))

    def is_busy(self, image_id: str, names: Iterable[str] = ()) -> bool:
        """Whether the image has a reference, or one of its canonical ``names`` a pin."""
        return image_id in self._references or any(name in self._pins for name in names)


HUB_HOSTS = ("hub.docker.com", "index.docker.io", "docker.io", "registry-1.docker.io")
"""The names of Docker's own registry, which an image without a registry comes from."""


@attrs.frozen
class ImageReference:
    """``registry`` is "" for the engine's default one; ``tag`` may be a digest."""

    registry: str
    repository: str
    tag: str

    @property
    def name(self) -> str:
        """Registry and repository, as the engine's pull call takes them."""
        return f"{self.registry}/{self.repository}" if self.registry else self.repository


def parse_image(image: str) -> ImageReference:
    """Take ``image`` apart as Fn does.

    A digest wins over a tag, ``latest`` is the default tag, and a name of one part belongs to
    ``library/``. The first of several parts is a registry if it contains a dot or a colon or is
    ``localhost``. Every text gives some reference; whether it makes sense, the engine says.
    """
    name, tag = _split_tag(image)
    first, slash, rest = name.partition("/")
    if not slash:
        return ImageReference("", f"library/{name}", tag)
    if "." in first or ":" in first or first == "localhost":
        return ImageReference(first, rest, tag)
    return ImageReference("", name, tag)


def _split_tag(image: str) -> tuple[str, str]:
    name, _, digest = image.partition("@")
    # A colon in the last part starts a tag; one before that is a registry's port.
    head, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    return head + slash + last, digest or tag or "latest"


def canonical_name(image: str) -> str:
    """One text for all ways to write the same name and tag: ``busybox``, ``busybox:latest`` and
    ``docker.io/library/busybox`` are the same image."""
    found = parse_image(image)
    registry, repository = found.registry.lower(), found.repository
    if registry in ("", *HUB_HOSTS):
        registry = "docker.io"
        if "/" not in repository:
            repository = f"library/{repository}"
    separator = "@" if ":" in found.tag else ":"
    return f"{registry}/{repository}{separator}{found.tag}"
