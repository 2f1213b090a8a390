"""An engine whose images are entries of a dictionary, on virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import docker
import trio

from hostler.drivers.docker import EngineError, EngineOperation
from hostler.drivers.docker.engine import Engine
from hostler.drivers.docker.image_cleaner import ImageUsage, StoredImage

T = TypeVar("T")
HALF = 512 * 1024
MB = 1024 * 1024


class DictEngine(Engine):
    """Answers at once and on no thread. It is its own client."""

    def __init__(self) -> None:
        self.stored: dict[str, StoredImage] = {}
        self.asked_to_remove: list[tuple[str, float]] = []
        self.refuses: set[str] = set()
        self.fails = False
        self.measured = 0
        self.gate = trio.Event()
        self.gate.set()

    def add(self, name: str, size: int = HALF) -> None:
        self.stored[name] = StoredImage(
            id=name, tags=(f"{name}:latest",), size=size, own_size=size, created=len(self.stored)
        )

    def removed(self) -> list[str]:
        return [name for name, _ in self.asked_to_remove if name not in self.refuses]

    def times(self, name: str) -> list[float]:
        """When it was asked to remove the image."""
        return [time for asked, time in self.asked_to_remove if asked == name]

    async def call(self, operation: EngineOperation, request: Callable[[docker.APIClient], T]) -> T:
        await trio.lowlevel.checkpoint()
        if operation is EngineOperation.REMOVE_IMAGE:
            await self.gate.wait()
        if operation is EngineOperation.MEASURE_IMAGES:
            self.measured += 1
            if self.fails:
                raise EngineError(operation.value, "not now")
            total = sum(image.size for image in self.stored.values())
            return ImageUsage(tuple(self.stored.values()), total)  # type: ignore[return-value]
        return request(self)  # type: ignore[arg-type]

    def remove_image(self, tag: str) -> None:
        name = tag.removesuffix(":latest")
        self.asked_to_remove.append((name, trio.current_time()))
        if name in self.refuses:
            raise EngineError("remove image", "conflict: it is being used", 409)
        if self.stored.pop(name, None) is None:
            raise EngineError("remove image", "no such image", 404)

    def inspect_image(self, name: str) -> dict[str, object]:
        if name not in self.stored:
            raise EngineError("inspect image", "no such image", 404)
        return {"Id": name, "Config": {}}
