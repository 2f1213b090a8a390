"""A runner that is killed under load, while another one is there, and comes back."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import docker
import trio

from tests.cli._process import NodeProcess
from tests.functions.build import docker_image

from .http import until_metric
from .load import Answer, Load, at, began_at
from .nodes import Functions, Runner, lines_of, open_lb, open_runner, processes_with
from .places import Place, free_address

MEMORY = 16
"""MiB of a function."""
AWAY = 2.0
"""Seconds that the victim is away at least: longer than the longest pause between two looks."""


@attrs.frozen
class Kind:
    """A driver, how much of it a runner gets, and how to see what a runner has left."""

    open: Callable[..., Any]
    victims_env: dict[str, str]
    fields: dict[str, Any]
    places: int
    """Containers for which one runner has room. There are more clients, so that both runners are
    needed."""
    do: str
    things: Callable[[], set[str]]
    """What there is of the victim's functions, by names of the driver's."""

    @property
    def clients(self) -> int:
        return 5 * self.places // 2

    def opener(self, folder: Path, **more: Any) -> Callable[..., Any]:
        room = {"FN_MAX_TOTAL_MEMORY_BYTES": str((self.places * MEMORY + MEMORY // 2) * 2**20)}
        return partial(self.open, folder, env={**room, **more.pop("env", {})}, **more)


def process_kind(folder: Path, places: int, do: str) -> Kind:
    """Functions as plain processes."""
    sockets = _sockets(folder)

    def things() -> set[str]:
        return set(os.listdir(sockets)) | set(map(str, processes_with(f"{sockets}/")))

    return Kind(open_runner, {}, {}, places, do, things)


@contextmanager
def docker_kind(folder: Path, host: str, places: int, do: str) -> Iterator[Kind]:
    """Functions in containers of the engine at ``host``. ``folder`` is opened for them."""
    folder.chmod(0o755)
    tag = f"hostler-test-{uuid.uuid4().hex}"
    client = docker.APIClient(base_url=host, version="auto")

    def things() -> set[str]:
        label = f"fn-agent-classifier={tag}"
        found = client.containers(all=True, filters={"label": label})
        return {str(one["Id"]) for one in found} | set(os.listdir(_sockets(folder)))

    def opener(folder: Path, *, env: dict[str, str], **more: Any) -> Any:
        engine = {"DOCKER_HOST": host, "FN_DOCKER_NETWORKS": "none"}
        return open_runner(folder, driver="docker", env={**engine, **env}, **more)

    victims_env = {"FN_CONTAINER_LABEL_TAG": tag}
    try:
        yield Kind(opener, victims_env, {"image": docker_image(host)}, places, do, things)
    finally:
        client.close()


def _sockets(folder: Path) -> Path:
    """Where the victim has its containers' socket directories."""
    return folder / "v"


@attrs.define(eq=False)
class Seen:
    """What happened; times are those of ``time.time``."""

    kind: Kind
    lb: NodeProcess
    victim: Place
    load: Load
    processes: trio.Nursery
    killed_at: float = 0
    restarted_at: float = 0
    back_at: float = 0
    """When it was ready again."""
    used_at: float = 0
    left: set[str] = attrs.Factory(set)
    """What the dead runner has left."""
    still: set[str] = attrs.Factory(set)
    """What of that was there when it was back."""

    async def kill_and_return(self, *, rounds: int = 2) -> None:
        """Under load: kill the victim after ``rounds`` calls of each client, let it be away for a
        while, and start it again."""
        kind, load, victim = self.kind, self.load, self.victim
        await load.until_answers(rounds * kind.clients)
        await until_metric(victim.node, "fn_running", kind.places // 2)
        self.left = await trio.to_thread.run_sync(kind.things)
        self.killed_at = time.time()
        victim.node.process.kill()
        await victim.node.process.wait()
        await trio.sleep(AWAY)
        await load.until_answers(kind.clients)
        self.restarted_at = time.time()
        await self.processes.start(victim.occupy)
        self.back_at = time.time()
        self.still = self.left & await trio.to_thread.run_sync(kind.things)
        await until_metric(victim.node, "fn_calls", 1)
        self.used_at = time.time()
        await load.until_answers(kind.clients)

    async def until_gone(self) -> None:
        """Wait until nothing is there any more of what the dead runner has left."""
        while self.left & await trio.to_thread.run_sync(self.kind.things):  # noqa: ASYNC110
            await trio.sleep(0.05)

    async def stop(self) -> list[Answer]:
        """Under load: tell the victim to stop, and see it end. The calls that failed since."""
        before = len(self.load.failed())
        await until_metric(self.victim.node, "fn_running", self.kind.places // 2)
        await self.victim.end()
        await self.load.until_answers(2 * self.kind.clients)
        return self.load.failed()[before:]

    def figures(self) -> dict[str, float]:
        """To be read when the nodes have ended."""
        failed = lines_of(self.lb, "call finished", runner=self.victim.address, code=500)
        ejected = lines_of(self.lb, "runner ejected", runner=self.victim.address)

        def after_kill(times: list[float]) -> float:
            """Milliseconds until the last of them; 0 if there is none."""
            return (max(times, default=self.killed_at) - self.killed_at) * 1e3

        return {
            "calls_per_s_before": self.load.rate(self.killed_at - 1, self.killed_at),
            "failed": len(failed),
            "failed_last_came_ms_after_kill": after_kill([began_at(x) for x in failed]),
            "failed_last_told_ms_after_kill": after_kill([at(x) for x in failed]),
            "ejected_ms_after_kill": after_kill([at(x) for x in ejected[:1]]),
            "away_s": self.restarted_at - self.killed_at,
            "start_ms": (self.back_at - self.restarted_at) * 1e3,
            "used_again_ms_after_ready": (self.used_at - self.back_at) * 1e3,
            "left_by_the_dead": len(self.left),
            "still_there_when_ready": len(self.still),
        }


@asynccontextmanager
async def opened(folder: Path, kind: Kind) -> AsyncIterator[tuple[Seen, Runner]]:
    """A load balancer over the runner that will be killed and one that survives."""
    address = free_address()
    sockets = _sockets(folder)
    sockets.mkdir(mode=0o755)
    functions: Functions = {"fnt": {"memory": MEMORY, **kind.fields}}
    async with trio.open_nursery() as processes:
        opener = kind.opener(folder, bind=address, sockets=sockets, env=kind.victims_env)
        victim = Place(address, opener)
        await processes.start(victim.occupy)
        async with (
            kind.opener(folder)() as survivor,
            open_lb(folder, [address, survivor.address], functions=functions) as lb,
        ):
            yield Seen(kind, lb, victim, Load(lb, kind.do), processes), survivor
            await victim.end()
            assert kind.things() == set()
