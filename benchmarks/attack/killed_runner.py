"""A runner with many containers that is killed, and started again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import attrs
import docker
import trio

from tests.cli._process import ends
from tests.functions.build import docker_image
from tests.system.http import call
from tests.system.nodes import Functions, Runner, lives, open_lb, open_runner

from .._target import docker_host
from ._row import Outcome
from ._world import LIMIT, World, containers_of, engine, tagged

ABOUT = "kill -9 of a runner with 40 containers, until the first call on the next one"
CONTAINERS = 40
BACK_S = 1.0
"""Seconds from the new runner's port until a call is answered, at most."""
READY_S = 3.0
"""Seconds from the new runner's command until its port is open, at most. Most of it is Python."""


@attrs.frozen
class _Left:
    """What a killed runner leaves: how many containers, and whether some are there still."""

    count: int
    there: Callable[[], bool]


def run(world: World) -> Outcome:
    outcomes = [trio.run(_processes, world)]
    with engine() as client:
        if client is not None:
            outcomes.append(trio.run(_docker, world, client))
    return Outcome(
        tried="; ".join(outcome.tried for outcome in outcomes),
        happened="; ".join(outcome.happened for outcome in outcomes),
        held=all(outcome.held for outcome in outcomes),
    )


async def _processes(world: World) -> Outcome:
    def left_by(runner: Runner) -> _Left:
        pids = runner.functions()
        return _Left(len(pids), lambda: any(map(lives, pids)))

    return await _kill(world, "process", {}, {"fnt": {"memory": 16}}, left_by)


async def _docker(world: World, client: docker.APIClient) -> Outcome:
    image = await trio.to_thread.run_sync(docker_image, docker_host())
    image_id = client.inspect_image(image)["Id"]  # type: ignore[no-untyped-call]
    with tagged(client) as tag:

        def ids() -> set[str]:
            """Of the containers of functions, not of those that hold name spaces."""
            return {x["Id"] for x in containers_of(client, tag) if x["ImageID"] == image_id}

        def left_by(runner: Runner) -> _Left:
            before = ids()
            return _Left(len(before), lambda: bool(before & ids()))

        env = {
            "FN_DOCKER_NETWORKS": "none",
            "FN_CONTAINER_LABEL_TAG": tag,
            "DOCKER_HOST": docker_host(),
        }
        return await _kill(world, "docker", env, {"fnt": {"memory": 16, "image": image}}, left_by)


async def _kill(
    world: World,
    driver: str,
    env: Mapping[str, str],
    functions: Functions,
    left_by: Callable[[Runner], _Left],
) -> Outcome:
    folder = world.subfolder()
    env = {"FN_MAX_TOTAL_MEMORY_BYTES": str(16 * (CONTAINERS + 1) * 2**20), **env}
    with trio.fail_after(LIMIT):
        async with (
            open_runner(folder, driver=driver, env=env) as victim,
            open_lb(folder, [victim.address], functions=functions) as lb,
        ):
            async with trio.open_nursery() as nursery:
                for _ in range(CONTAINERS):
                    nursery.start_soon(call, lb, "sleep=8000")
            left = left_by(victim)
            victim.node.process.kill()
            await victim.node.process.wait()
            began = time.monotonic()
            async with open_runner(
                folder, driver=driver, env=env, bind=victim.address, sockets=victim.folder
            ) as again:
                ready = time.monotonic() - began
                reply = await call(lb)
                back = time.monotonic() - began
                still = left.there()
                while left.there():  # noqa: ASYNC110  (another's containers)
                    await trio.sleep(0.02)
                gone = time.monotonic() - began
                await ends(lb)
                await ends(again.node)
    return Outcome(
        tried=f"a runner with {left.count} containers ({driver}) is killed and started again",
        happened=f"{driver}: ready after {ready:.2f} s, first call ({reply.status}) after "
        f"{back:.2f} s{' while some were there' if still else ''}, what the dead one had left is "
        f"gone after {gone:.2f} s",
        held=reply.status == 200
        and ready <= READY_S
        and back - ready <= BACK_S
        and left.count >= CONTAINERS,
    )
