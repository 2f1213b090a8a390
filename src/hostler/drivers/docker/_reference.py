"""Image references: which registry, which repository, which tag."""

from __future__ import annotations

import attrs

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
