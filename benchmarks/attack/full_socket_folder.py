"""A function that fills the directory of its socket, which is on the machine's disk or memory."""

from __future__ import annotations

import trio

from tests.cli._process import ends
from tests.functions.build import docker_image
from tests.system.http import call
from tests.system.nodes import open_lb, open_runner

from .._target import docker_host
from ._row import Outcome
from ._world import LIMIT, World, engine, tagged

ABOUT = "a function fills the directory of its socket with bytes, and with files (Docker)"
FOLDER = "/tmp/iofs"
MUCH = bytes(2 * 2**20)
FILES = 200


def run(world: World) -> Outcome:
    with engine() as client:
        if client is None:
            return Outcome(
                tried="a function that fills its socket's directory",
                happened="skipped: no engine; the process driver has plain directories, which are "
                "bounded by the disk only",
                held=None,
            )
        with tagged(client) as tag:
            return trio.run(_run, world, tag)


async def _run(world: World, tag: str) -> Outcome:
    folder = world.subfolder()
    env = {
        "FN_DOCKER_NETWORKS": "none",
        "FN_CONTAINER_LABEL_TAG": tag,
        "DOCKER_HOST": docker_host(),
    }
    image = await trio.to_thread.run_sync(docker_image, docker_host())
    # A container for each kind.
    functions = {name: {"image": image} for name in ("fnt", "files")}
    with trio.fail_after(LIMIT):
        async with (
            open_runner(folder, driver="docker", env=env) as runner,
            open_lb(folder, [runner.address], functions=functions) as lb,
        ):
            large = [await call(lb, f"write={FOLDER}/large{n}", MUCH) for n in range(3)]
            small = [await call(lb, f"write={FOLDER}/{n}", b"x", "files") for n in range(FILES)]
            after = [await call(lb, "", b"next", fn) for fn in functions for _ in range(5)]
            await ends(lb)
            await ends(runner.node)
    stopped = sum(b"error" in reply.body for reply in large)
    files = sum(reply.body == b"ok" for reply in small)
    good = sum(reply.status == 200 and reply.body == b"next" for reply in after)
    return Outcome(
        tried=f"{len(large)} files of {len(MUCH) >> 20} MB and {FILES} small ones",
        happened=f"{stopped} large ones had no room, {files} small ones had some; then {good} of "
        f"{len(after)} calls were answered",
        held=stopped == len(large) and files < FILES and good == len(after),
    )
