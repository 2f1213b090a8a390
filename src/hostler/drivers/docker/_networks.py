"""Which of the configured networks the next container joins."""

from __future__ import annotations

from collections.abc import Iterable


class Networks:
    """Counts the containers of each network, so that the emptiest can be chosen."""

    def __init__(self, names: Iterable[str]) -> None:
        self._in_use = dict.fromkeys(names, 0)

    def allocate(self) -> str | None:
        """The network with the fewest containers (the first of equals), now with one more.
        ``None`` if no networks are configured."""
        if not self._in_use:
            return None
        name = min(self._in_use, key=self._in_use.__getitem__)
        self._in_use[name] += 1
        return name

    def free(self, name: str) -> None:
        """Give back what ``allocate`` returned, once."""
        assert self._in_use[name] > 0
        self._in_use[name] -= 1

    def in_use(self) -> dict[str, int]:
        """Containers by network."""
        return dict(self._in_use)
