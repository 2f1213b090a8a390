"""Image references: which registry, which repository, which tag."""

from __future__ import annotations

import attrs


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
