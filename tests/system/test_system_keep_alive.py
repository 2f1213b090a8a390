"""A node with the predictive policy has a container ready when a regular call comes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from tests.cli._process import NodeProcess

from .http import call, metric
from .nodes import LIMIT, open_single

PERIOD = 3.0
"""Seconds between two calls; a start takes some 0.05."""
IDLE_TIMEOUT = 1


async def regular_calls(node: NodeProcess, most: int) -> tuple[int, int]:
    """Call every `PERIOD` seconds until one finds a container, ``most`` times; how many calls there
    were, and how many of them were cold."""
    began, cold = trio.current_time(), 0
    found = set[str]()
    for number in range(most):
        await trio.sleep_until(began + number * PERIOD)
        found.add(json.loads((await call(node, "who")).body)["id"])
        cold = round(await metric(node, "fn_container_cold_starts"))
        used = round(await metric(node, "fn_container_starts_ahead_used"))
        assert cold + used == len(found)
        if cold < number + 1:
            return number + 1, cold
    return most, cold


@pytest.mark.parametrize(("policy", "most"), [("predictive", 15), ("fixed", 5)])
async def test_a_regular_call_finds_a_container(folder: Path, policy: str, most: int) -> None:
    """One that was started ahead of it, or was kept until then where the price of memory had
    fallen enough."""
    env = {"FN_KEEP_ALIVE_PERCENT": "200"}
    functions = {"fnt": {"idle_timeout": IDLE_TIMEOUT}}
    with trio.fail_after(3 * LIMIT):
        async with open_single(
            folder, "--keep-alive", policy, functions=functions, env=env
        ) as single:
            calls, cold = await regular_calls(single.node, most)
            assert cold < calls if policy == "predictive" else (calls, cold) == (most, most)
            await single.drain()
