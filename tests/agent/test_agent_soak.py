"""Many calls of 50 functions while containers are killed at random: nothing is left.

HOSTLER_SOAK_CALLS sets how many (the default, 20 000, takes 40 s). `scripts/bench soak` does it
with containers.
"""

from __future__ import annotations

import gc
import os
import random
from pathlib import Path
from typing import Any

import pytest
import trio

from hostler.drivers.process import open_process_driver
from hostler.drivers.sim import SimDriver, SimRequest, SimResponse, open_sim_driver
from tests.functions.build import fnt_path

from .nodes import open_node
from .soak import Soak

CALLS = int(os.environ.get("HOSTLER_SOAK_CALLS", "20000"))
FUNCTIONS = 50
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of this process's resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def work(request: SimRequest) -> SimResponse:
    body = await request.read()
    await trio.sleep(0.005 + int(body) % 13 / 1000)
    return SimResponse(body=body)


async def kill_at_random(driver: SimDriver, dice: random.Random) -> None:
    """One container every 100 ms (of virtual time), whatever it is doing."""
    while True:
        await trio.sleep(0.1)
        if containers := driver.containers():
            dice.choice(containers).exit(137, out_of_memory=False)
        driver.events.clear()  # or the test's own record would grow


def sim_fields(dice: random.Random, number: int) -> dict[str, Any]:
    function = int(dice.triangular(0, FUNCTIONS, 0))  # some are called much, some seldom
    return {"image": "work", "fn_id": f"fn-{function}", "idle_timeout": 1 + function % 3}


@pytest.mark.slow
@pytest.mark.timeout(1200)  # of virtual time: how long it takes is the processor's business
async def test_soak_of_calls_over_50_functions(autojump_clock: object, tmp_path: Path) -> None:
    memory: list[int] = []

    def sample(number: int) -> None:
        if number % (CALLS // 20) == 0:
            gc.collect()
            memory.append(resident())

    async with open_sim_driver() as driver:
        driver.add_image(
            "work", work, start_time=0.1, init_time=0.02, freeze_time=0.02, remove_time=0.05
        )
        tasks, open_files = trio.lowlevel.current_statistics().tasks_living, descriptors()
        async with (
            open_node(driver, tmp_path, memory=40 * 128) as node,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(kill_at_random, driver, random.Random(2))
            soak = Soak(node, CALLS, clients=20, fields=sim_fields, on_progress=sample)
            await soak.run()
            nursery.cancel_scope.cancel()
        statistics = node.agent.statistics()
        assert sum(soak.outcomes.values()) == statistics.calls == CALLS
        assert soak.outcomes["success"] > 0.75 * CALLS
        assert set(soak.outcomes) > {"success"}  # some were hit
        assert statistics.evictions > 0
        left = driver.statistics()
        assert (left.containers, left.cookies, left.connections) == (0, 0, 0)
        assert left.created == left.removed > FUNCTIONS
        assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert descriptors() <= open_files
    assert memory[-1] - memory[len(memory) // 4] < 8 * 2**20


def fnt_fields(dice: random.Random, number: int) -> dict[str, Any]:
    """Functions that are killed some time after they have started, and some calls that crash."""
    function = dice.randrange(10)
    crash = dice.random() < 0.02
    return {
        "image": "fnt",
        "fn_id": f"fn-{function}",
        "config": {"FNT_START": f"die={100 + 70 * function};exit=137"},
        "headers": {"Fnt-Do": ["crash" if crash else f"sleep={function}"]},
        "idle_timeout": 1,
    }


def function_processes(iofs: Path) -> int:
    """Function processes whose socket is, or was, under ``iofs``."""
    found = 0
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                environ = Path(f"/proc/{entry}/environ").read_bytes()
            except OSError:
                continue
            found += b"FN_LISTENER=unix:" + bytes(iofs) in environ
    return found


@pytest.mark.process
async def test_soak_of_real_processes(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with open_process_driver(images={"fnt": [str(fnt_path())]}) as driver:
            tasks, open_files = trio.lowlevel.current_statistics().tasks_living, descriptors()
            async with open_node(driver, tmp_path, memory=12 * 128) as node:
                soak = Soak(node, 1_000, clients=8, fields=fnt_fields)
                await soak.run()
                await node.run("fnt", fn_id="lives")  # longer than the others, if nobody looks
                assert function_processes(tmp_path) > 0
            assert function_processes(tmp_path) == 0
            assert trio.lowlevel.current_statistics().tasks_living == tasks
            assert descriptors() <= open_files
    assert sum(soak.outcomes.values()) == 1_000
    assert soak.outcomes["success"] > 800
    assert soak.outcomes["FunctionResponseError"] > 0
