"""Killing containers behind an agent's back, and telling which calls that explains.

A container is found by what only a benchmark's own containers have: the label of this process on an
engine, and descent from this process without one.
"""

from __future__ import annotations

import os
import random
import signal
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator

import attrs
import docker
from docker.errors import APIError, NotFound

from ._target import docker_host
from ._usage import descendants

FUNCTION = "BENCH_FUNCTION"
"""Environment variable of a container that names its function."""
NOTICE = 5.0
"""Seconds until an agent has heard of the end of an idle container, at most; a call may still be
sent to it meanwhile."""
_NOT_RUNNING = 409
PAUSE = "hostler-pause:1"
"""The image of the driver's own containers."""


class Killer(ABC):
    """Finds and kills containers of this process. Everything may block."""

    @abstractmethod
    def containers(self) -> list[str]:
        """Those that exist."""

    @abstractmethod
    def kill(self, container: str) -> str | None:
        """Kill one, and return its function; ``None`` if it had ended already."""

    def strike(self, dice: random.Random) -> str | None:
        """Kill any one; as `kill`."""
        found = self.containers()
        return self.kill(dice.choice(found)) if found else None

    def close(self) -> None:  # noqa: B027  (killers without state need none)
        """Free what it needs itself."""


class EngineKiller(Killer):
    """By the engine's own kill."""

    def __init__(self, label: str) -> None:
        self._client = docker.APIClient(base_url=docker_host(), version="auto")
        self._filter = {"label": f"fn-agent-classifier={label}"}

    def containers(self) -> list[str]:
        found = self._client.containers(all=True, filters=self._filter)
        # Not those that only hold a network name space.
        return sorted(one["Id"] for one in found if one["Image"] != PAUSE)

    def kill(self, container: str) -> str | None:
        try:
            env = self._client.inspect_container(container)["Config"]["Env"]
            self._client.kill(container)
        except NotFound:
            return None
        except APIError as error:
            if error.status_code != _NOT_RUNNING:
                raise
            return None
        return function_of(env)

    def close(self) -> None:
        self._client.close()


class ProcessKiller(Killer):
    """By signal 9."""

    def containers(self) -> list[str]:
        pids = map(str, descendants(os.getpid()))
        return [pid for pid in pids if function_of(_environment(pid))]

    def kill(self, container: str) -> str | None:
        function = function_of(_environment(container))
        if function:
            try:
                os.kill(int(container), signal.SIGKILL)
            except ProcessLookupError:
                return None
        return function or None


def _environment(pid: str) -> list[str]:
    try:
        # Not by `pathlib`, which keeps each part of a name for a while: that would be measured.
        with open(f"/proc/{pid}/environ", errors="replace") as file:
            return file.read().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def function_of(environment: Iterable[str]) -> str:
    """Of a container, by its environment; "" if it is none of ours."""
    values = dict(line.partition("=")[::2] for line in environment)
    return values.get(FUNCTION, "")


@attrs.frozen
class Kill:
    """A container of ``function`` was killed; ``at`` is just before that, seconds."""

    function: str
    at: float


@attrs.frozen
class Failure:
    """A call that failed, from ``begin`` to ``end``, seconds."""

    function: str
    begin: float
    end: float
    text: str

    def fits(self, kill: Kill) -> bool:
        return kill.function == self.function and self.begin - NOTICE <= kill.at <= self.end


class Kills(Iterable[Kill]):
    """Those so far, in 8 bytes each: the memory of the process that keeps them is watched."""

    def __init__(self) -> None:
        self._times: dict[str, array[float]] = {}

    def add(self, function: str, at: float) -> None:
        self._times.setdefault(function, array("d")).append(at)

    def __iter__(self) -> Iterator[Kill]:
        for function, times in self._times.items():
            for at in times:
                yield Kill(function, at)

    def __len__(self) -> int:
        return sum(map(len, self._times.values()))


def unexplained(failures: Iterable[Failure], kills: Iterable[Kill]) -> list[Failure]:
    """The failures that are left when each has been given a kill of its own.

    A kill hits at most one call: containers run one at a time. Each kill goes to the failure that
    is over first, which leaves no failure without one that could have had it.
    """
    left = sorted(failures, key=lambda failure: failure.end)
    for kill in sorted(kills, key=lambda kill: kill.at):
        hit = next((failure for failure in left if failure.fits(kill)), None)
        if hit is not None:
            left.remove(hit)
    return left
