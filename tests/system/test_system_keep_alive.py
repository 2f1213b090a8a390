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


async def ids(node: NodeProcess, calls: int) -> list[str]:
    """Call every `PERIOD` seconds; the function process of each call."""
    found = []
    began = trio.current_time()
    for number in range(calls):
        await trio.sleep_until(began + number * PERIOD)
        reply = await call(node, "who")
        found.append(json.loads(reply.body)["id"])
    return found


@pytest.mark.parametrize(("policy", "ahead"), [("predictive", True), ("fixed", False)])
async def test_a_container_is_started_ahead_of_a_regular_call(
    folder: Path, policy: str, *, ahead: bool
) -> None:
    env = {"FN_KEEP_ALIVE_PERCENT": "200"}
    functions = {"fnt": {"idle_timeout": IDLE_TIMEOUT}}
    with trio.fail_after(LIMIT):
        async with open_single(
            folder, "--keep-alive", policy, functions=functions, env=env
        ) as single:
            found = await ids(single.node, 6)
            cold = await metric(single.node, "fn_container_cold_starts")
            used = await metric(single.node, "fn_container_starts_ahead_used")
            assert cold + used == len(set(found))
            if ahead:  # or kept until the next call, where the price of memory has fallen enough
                assert used >= 1
            else:
                assert (cold, used) == (6, 0)
            await single.drain()
