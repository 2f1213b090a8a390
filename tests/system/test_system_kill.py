"""A runner that is killed under load takes with it only what was committed to it, and returns."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import docker
import pytest
import trio

from tests.cli._process import NodeProcess
from tests.functions.build import docker_image

from .http import Reply, call, until_metric
from .load import Load, at, began_at, latest
from .nodes import (
    LIMIT,
    Functions,
    Runner,
    ends,
    errors_of,
    lines_of,
    open_lb,
    open_runner,
    processes_with,
)
from .places import Place, free_address

MEMORY = 16
"""MiB of a function."""
AWAY = 2.0
"""Seconds that the victim is away at least: longer than the longest pause between two looks."""
RETURNED = 10.0
"""Seconds within which a runner that is back must have its first call on a machine that has much
else to do; an idle one takes less than 1."""


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
    """What there is of the victim's functions."""

    @property
    def clients(self) -> int:
        return 5 * self.places // 2

    def opener(self, folder: Path, **more: Any) -> Callable[..., Any]:
        room = {"FN_MAX_TOTAL_MEMORY_BYTES": str((self.places * MEMORY + MEMORY // 2) * 2**20)}
        return partial(self.open, folder, env={**room, **more.pop("env", {})}, **more)


@attrs.define(eq=False)
class Seen:
    """What happened; times are those of ``time.time``."""

    kind: Kind
    lb: NodeProcess
    victim: Place
    load: Load
    killed_at: float = 0
    back_at: float = 0
    used_at: float = 0
    left: set[str] = attrs.Factory(set)
    """What the dead runner has left, by a name of the driver's."""


@asynccontextmanager
async def opened(folder: Path, kind: Kind) -> AsyncIterator[tuple[Seen, trio.Nursery, Runner]]:
    address = free_address()
    sockets = folder / "v"
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
            yield Seen(kind, lb, victim, Load(lb, kind.do)), processes, survivor
            await victim.end()
            assert kind.things() == set()


async def kill_and_return(seen: Seen, processes: trio.Nursery) -> None:
    """Under load: kill the victim, let it be away for a while, and start it again."""
    kind, load, victim = seen.kind, seen.load, seen.victim
    await load.until_answers(2 * kind.clients)
    await until_metric(victim.node, "fn_running", kind.places // 2)
    seen.left = kind.things()
    seen.killed_at = time.time()
    victim.node.process.kill()
    await victim.node.process.wait()
    await trio.sleep(AWAY)
    await load.until_answers(kind.clients)
    await processes.start(victim.occupy)
    seen.back_at = time.time()
    still = seen.left & kind.things()
    assert seen.left
    assert not still, f"left by the dead runner, and there when it is back: {still}"
    await until_metric(victim.node, "fn_calls", 1)
    seen.used_at = time.time()
    await load.until_answers(kind.clients)


async def run(folder: Path, kind: Kind) -> None:
    async with opened(folder, kind) as (seen, processes, survivor):
        with trio.fail_after(3 * LIMIT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(seen.load.run_clients, kind.clients)
                await kill_and_return(seen, processes)
                seen.load.stop.set()
        assert (await call(seen.lb, content=b"later")).body == b"later"
        assert await ends(seen.lb) == 0
        check_times(seen)
        check_calls(seen, survivor.address)
        await survivor.drain()


def check_calls(seen: Seen, survivor: str) -> None:
    """Each failure is of a call that the victim had, is one line at the LB, and a clear answer."""
    ended = {line["call_id"]: line for line in lines_of(seen.lb, "call finished")}
    used = set()
    for answer in seen.load.answers:
        assert isinstance(answer.reply, Reply), answer
        line = ended[answer.reply.headers["fn-call-id"]]
        assert line["code"] == answer.reply.status
        used.add((line["runner"], line["code"]))
        if not answer.ok:
            assert "gRPC status 14: connection" in line["error"], line["error"]
            assert answer.reply.headers["content-type"].startswith("application/json")
            assert answer.reply.json() == {"message": "internal server error"}
    victim = seen.victim.address
    assert used == {(victim, 200), (survivor, 200), (victim, 500)}, used
    failed = len(seen.load.failed())
    # Beside those that run, some are on their way: to a container, or back with their answer.
    assert 1 <= failed < seen.kind.clients
    assert [line["event"] for line in errors_of(seen.lb)] == ["internal error in a call"] * failed


def check_times(seen: Seen) -> None:
    failed = lines_of(seen.lb, "call finished", runner=seen.victim.address, code=500)
    (ejected,) = lines_of(seen.lb, "runner ejected", runner=seen.victim.address)
    last = latest([began_at(line) for line in failed])
    told = latest([at(line) for line in failed])
    report(seen, len(failed), last, told, at(ejected))
    assert last <= at(ejected), "a new call went to a runner that was known to be away"
    assert seen.killed_at <= told < seen.back_at
    assert seen.killed_at <= at(ejected) < seen.back_at
    assert seen.used_at - seen.back_at < RETURNED


def report(seen: Seen, failed: int, last: float, told: float, ejected: float) -> None:
    def after(since: float, until: float) -> str:
        return f"{(until - since) * 1e3:.0f} ms"

    before = seen.load.rate(seen.killed_at - 1, seen.killed_at)
    print(  # noqa: T201  (for whoever measures, with -s)
        f"\n{before:.0f} calls/s before the kill; {failed} calls failed, all told after"
        f" {after(seen.killed_at, told)}; the last of them came {after(seen.killed_at, last)}"
        f" after the kill, ejected after {after(seen.killed_at, ejected)}; away for"
        f" {seen.back_at - seen.killed_at:.1f} s, used again {after(seen.back_at, seen.used_at)}"
        f" after it was ready; {len(seen.left)} things left by the dead one were gone by then"
    )


async def test_killed_runner_fails_only_the_calls_committed_to_it(folder: Path) -> None:
    sockets = folder / "v"

    def things() -> set[str]:
        return {p.name for p in sockets.iterdir()} | set(map(str, processes_with(f"{sockets}/")))

    await run(folder, Kind(open_runner, {}, {}, 40, "sleep=150", things))


@pytest.mark.docker
async def test_killed_runners_containers_are_gone_when_it_is_back(
    folder: Path, docker_host: str
) -> None:
    image = await trio.to_thread.run_sync(docker_image, docker_host)
    await trio.Path(folder).chmod(0o755)
    tag = f"hostler-test-{uuid.uuid4().hex}"
    client = docker.APIClient(base_url=docker_host, version="auto")

    def things() -> set[str]:
        label = f"fn-agent-classifier={tag}"
        ids = {str(found["Id"]) for found in client.containers(all=True, filters={"label": label})}
        return ids | {path.name for path in (folder / "v").iterdir()}

    def opener(folder: Path, *, env: dict[str, str], **more: Any) -> Any:
        engine = {"DOCKER_HOST": docker_host, "FN_DOCKER_NETWORKS": "none"}
        return open_runner(folder, driver="docker", env={**engine, **env}, **more)

    victims_env = {"FN_CONTAINER_LABEL_TAG": tag}
    try:
        await run(folder, Kind(opener, victims_env, {"image": image}, 4, "sleep=100", things))
    finally:
        client.close()
