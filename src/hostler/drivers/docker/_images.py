"""The images of an engine, as the cookies and the cleaner of one driver share them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import docker
import trio
from docker.errors import DockerException

from ._engine import Engine
from ._errors import EngineError
from ._image_cache import ImageCache, ImageLease
from ._limits import Operation

_NOT_FOUND = 404


class Images:
    """Finds images and keeps them from being removed while they are used.

    ``on_new`` gets the id of an image that is found and that the cache did not know, ``on_idle``
    that of one, or the name, that is no longer held by anybody.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._removals: dict[str, trio.Event] = {}
        self._begun = 0
        self.on_new: Callable[[str], None] = lambda _: None
        self.on_idle: Callable[[str], None] = lambda _: None
        self.cache = ImageCache(lambda which: self.on_idle(which))

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
            return await self._engine.call(Operation.INSPECT_IMAGE, request)
        except EngineError as error:
            if error.status == _NOT_FOUND:
                return None
            raise
