from __future__ import annotations

from pathlib import Path

from hostler.bodies import BytesBody
from hostler.drivers.sim import echo, open_sim_driver

from .nodes import open_node


async def test_echo_runs_hot(autojump_clock: object, tmp_path: Path) -> None:
    async with open_sim_driver({"echo": echo}) as driver, open_node(driver, tmp_path) as node:
        for text in (b"one", b"two"):
            assert (await node.run(body=BytesBody(text))).body == text
        assert driver.statistics().created == 1
