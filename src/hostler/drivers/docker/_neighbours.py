"""Several drivers of one node on one engine, whose images one of them cleans for all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import trio

from ._image_cache import ImagesInUse
from ._images import Images

PAUSE = 0.5
"""Seconds between two messages at least, as between two rounds of a cleaner."""


class Neighbours(ABC):
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


class ImageNews:
    """Tells the one that cleans what becomes of the images here, not too often."""

    def __init__(self, images: Images, neighbours: Neighbours) -> None:
        self._neighbours = neighbours
        self._known: set[str] = set()
        self._used: dict[str, None] = {}
        self._changed = trio.Event()
        images.on_new = self._new
        images.on_idle = self._note

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            used, self._used = self._used, {}
            await self._neighbours.tell_used(list(used))
            await trio.sleep(PAUSE)

    def _new(self, image_id: str) -> None:
        if image_id not in self._known:
            self._known.add(image_id)
            self._note(image_id)

    def _note(self, image_id: str) -> None:
        self._used.pop(image_id, None)
        self._used[image_id] = None
        self._changed.set()
