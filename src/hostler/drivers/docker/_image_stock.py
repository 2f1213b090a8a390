"""The images that an engine has and how much of its disk they take, and which of them should go."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import attrs
import docker
from docker.errors import DockerException

from ._engine import Engine
from ._image_cache import ImageCache
from ._limits import Operation
from ._reference import canonical_name
from ._streams import raise_for_status

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
class Stock:
    """All images of an engine. ``disk_size`` counts each shared layer once."""

    images: tuple[StoredImage, ...]
    disk_size: int

    def size_without(self, exempt: Collection[str]) -> int:
        """Bytes on disk, less what only images with ``exempt`` canonical names have."""
        own = sum(i.own_size for i in self.images if not i.canonical_names().isdisjoint(exempt))
        return max(self.disk_size - own, 0)


def choose_victim(
    stock: Stock, cache: ImageCache, exempt: Collection[str], refused: Collection[str]
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


async def take_stock(engine: Engine) -> Stock:
    """Ask the engine. It adds up what it knows of its layers and does not walk through files.

    Raises `EngineError`.
    """
    return await engine.call(Operation.MEASURE_IMAGES, _take_stock)


def _take_stock(client: docker.APIClient) -> Stock:
    usage = _get(client, "/system/df", {"type": "image"})
    listed = usage.get("Images") if isinstance(usage, Mapping) else None
    if not isinstance(listed, list):
        # API versions from 1.52 on leave the list out of the usage.
        listed = _get(client, "/images/json", {"shared-size": "1"})
    try:
        images = tuple(sorted(map(_stored_image, listed), key=lambda image: image.created))
        return Stock(images, _disk_size(usage, images))
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
