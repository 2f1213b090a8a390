"""Which images are in use, and in which order the others were. Pure bookkeeping."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from ._reference import canonical_name


class ImagesInUse(msgspec.Struct, frozen=True):
    """What must not be removed: images by their ids, and whatever image has one of the canonical
    names."""

    ids: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()


class ImageLease:
    """One container's hold on its image: until it is released, the image is busy."""

    def __init__(self, image_id: str, *, has_volumes: bool, release: Callable[[], None]) -> None:
        self.image_id = image_id
        self.has_volumes = has_volumes
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        """Idempotent: a surplus release can't free what somebody else holds."""
        if self._release is not None:
            release, self._release = self._release, None
            release()


class ImageCache:
    """Busy images with their reference counts, idle ones by their last use.

    Images are known by the engine's ids. A pin keeps whatever image has a name: it covers the
    time in which a pull makes an image that nobody could have looked at yet. ``on_idle`` gets the
    id or the name of what nobody holds any more.
    """

    def __init__(self, on_idle: Callable[[str], None] = lambda _: None) -> None:
        self._references: Counter[str] = Counter()
        self._pins: Counter[str] = Counter()
        # As ordered set: the least recently used first.
        self._known: dict[str, None] = {}
        self._on_idle = on_idle

    def lease(self, image_id: str, *, has_volumes: bool) -> ImageLease:
        """Make an image busy."""
        self._references[image_id] += 1
        return ImageLease(
            image_id, has_volumes=has_volumes, release=lambda: self._dereference(image_id)
        )

    def _dereference(self, image_id: str) -> None:
        if self._references[image_id] > 1:
            self._references[image_id] -= 1
            return
        del self._references[image_id]
        self.used(image_id)
        self._on_idle(image_id)

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
            self._on_idle(key)

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
