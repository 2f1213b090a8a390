"""The list of a pool as placers look at it: by address, and as each function prefers it.

A pool gives the same list until it changes, so what is found out about one is kept. Otherwise a
call would cost as much as there are runners.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from ..abc import Runner
from ._rendezvous import favourites, name_hashes

NEAR = 16
"""Runners that a function prefers to all others, which are remembered for `MAX_NEAR` functions."""
MAX_NEAR = 8192
MAX_WHOLE = 256
"""Functions for which the order of all runners is remembered."""
MAX_FLEETS = 8
"""Lists that are remembered. One pool may give several in turn, while it spares some runners."""


class Fleet:
    """One list of runners. It never changes."""

    def __init__(self, runners: tuple[Runner, ...]) -> None:
        self.runners = runners
        self._by_address = {runner.address: runner for runner in reversed(runners)}
        self.addresses = frozenset(self._by_address)
        self._hashes = name_hashes(runner.address for runner in runners)
        self.all_tell_since: int | None = None
        """State of `LoadBook.tellers` in which all of these tell their load by themselves."""
        self._near: OrderedDict[str, tuple[Runner, ...]] = OrderedDict()
        self._whole: OrderedDict[str, tuple[Runner, ...]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Fleet runners={len(self.runners)} functions={len(self._near)}>"

    def __len__(self) -> int:
        return len(self.runners)

    def find(self, address: str) -> Runner | None:
        return self._by_address.get(address)

    def near(self, key: str) -> tuple[Runner, ...]:
        """The first of `preferred`."""
        return self._recall(self._near, key, NEAR, MAX_NEAR)

    def preferred(self, key: str) -> Iterator[Runner]:
        """All, those first that ``key`` prefers by rendezvous hashing over their addresses."""
        near = self.near(key)
        yield from near
        if len(near) < len(self.runners):
            yield from self._recall(self._whole, key, len(self), MAX_WHOLE)[len(near) :]

    def _recall(
        self, known: OrderedDict[str, tuple[Runner, ...]], key: str, count: int, limit: int
    ) -> tuple[Runner, ...]:
        found = known.get(key)
        if found is not None:
            known.move_to_end(key)
            return found
        indices = favourites(key, self._hashes, count)
        known[key] = found = tuple(self.runners[index] for index in indices)
        if len(known) > limit:
            known.popitem(last=False)
        return found


class Fleets:
    """The lists that were seen last."""

    def __init__(self) -> None:
        self._fleets: OrderedDict[tuple[Runner, ...], Fleet] = OrderedDict()
        self._latest = Fleet(())

    def __repr__(self) -> str:
        return f"<Fleets latest={self._latest!r} lists={len(self._fleets)}>"

    def of(self, runners: Sequence[Runner]) -> Fleet:
        """The fleet of that list. Costs nothing if it is the same tuple as the last time."""
        if runners is self._latest.runners:
            return self._latest
        held = tuple(runners)
        fleet = self._fleets.get(held)
        if fleet is None:
            fleet = self._fleets[held] = Fleet(held)
            if len(self._fleets) > MAX_FLEETS:
                self._fleets.popitem(last=False)
        else:
            self._fleets.move_to_end(held)
        self._latest = fleet
        return fleet
