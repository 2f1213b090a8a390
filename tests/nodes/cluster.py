"""A load balancer as a process, with one runner whose agent a test scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from hostler.abc import CallListener, RunnerAgent
from hostler.calls import PendingCall
from hostler.functions import load_functions
from hostler.runner import open_pure_runner
from tests.cli._process import END_SECONDS, NodeProcess, open_node
from tests.front._agent import ScriptedAgent
from tests.support.ids import fn_by_name

LONG_GRACE = ("--grace", str(2 * END_SECONDS))
"""Of a node that ends for another reason, or not in time."""
FUNCTIONS = "apps:\n- name: app\n  fns:\n  - {name: echo, image: 'echo:1'}\n"


class PlayedAgent(ScriptedAgent, RunnerAgent):
    """A scripted agent that a pure runner can use."""

    def add_listener(self, listener: CallListener) -> None:
        self.listener = listener

    def close_admission(self) -> None:
        self.closed = True


async def hang(call: PendingCall) -> None:
    await trio.sleep_forever()


@asynccontextmanager
async def open_cluster(
    functions: Path, *args: str, agent: PlayedAgent | None = None, cwd: Path | None = None
) -> AsyncIterator[tuple[NodeProcess, PlayedAgent, str]]:
    """An LB process with one runner; also the path of the function."""
    agent = agent or PlayedAgent()
    path = f"/invoke/{fn_by_name(load_functions(functions), 'app', 'echo').id}"
    async with (
        open_pure_runner(agent, "127.0.0.1:0", grace=0.1) as runner,
        open_node(
            "lb",
            "--runners",
            runner.address,
            "--functions",
            str(functions),
            "--bind",
            "127.0.0.1:0",
            *args,
            cwd=cwd,
        ) as node,
    ):
        yield node, agent, path
