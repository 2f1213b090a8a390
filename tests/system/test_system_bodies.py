"""What a load balancer keeps of bodies in files is gone with it, however it ends."""

from __future__ import annotations

import os
from pathlib import Path

import trio

from .http import call, metric
from .nodes import LIMIT, open_fleet

BODY = bytes(200_000)


def kept_files(pid: int, folder: Path) -> list[str]:
    """Names of the open files of a process in ``folder``."""
    links = Path(f"/proc/{pid}/fd").iterdir()
    return [name for link in links if (name := os.readlink(link)).startswith(f"{folder}/")]


async def test_a_kept_body_has_no_name_and_is_gone_with_a_killed_node(folder: Path) -> None:
    bodies = folder / "bodies"
    bodies.mkdir()
    env = {"FN_BODY_DIR": str(bodies), "FN_BODY_SPILL_SIZE": "1000"}
    with trio.fail_after(LIMIT):
        async with open_fleet(folder, runners=1, lb_env=env) as fleet:
            lb = fleet.lb
            reply = await call(lb, "sleep=30000", BODY, Fn_Invoke_Type="detached")
            assert reply.status == 202
            assert await metric(lb, "fn_body_disk_bytes") == len(BODY)
            (name,) = kept_files(lb.process.pid, bodies)
            assert name.endswith("(deleted)")
            assert os.listdir(bodies) == []
            lb.process.kill()
            await lb.process.wait()
            assert os.listdir(bodies) == []
