"""Whole fleets as processes: runners and a load balancer, and what they leave on the machine."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from tests.cli._process import NodeProcess, ends, open_node
from tests.functions.build import fnt_path

Functions = Mapping[str, Mapping[str, Any]]
"""What to declare: fields of a function by its name, which is its id too."""

FNT: Functions = {"fnt": {}}
LIMIT = 60
"""Seconds after which whatever a test waits for has failed."""
FREED = 20.0
"""Seconds within which all that a client had is free, on a machine that has much else to do: fewer
than the function would need. How long it takes on an idle one is measured by a benchmark."""


@attrs.define(eq=False)
class Runner:
    """A runner process. ``folder`` has its containers' socket directories and nothing else."""

    node: NodeProcess
    folder: Path

    @property
    def address(self) -> str:
        return str(self.node.ready["grpc"])

    def functions(self) -> list[int]:
        """Its function processes (of the process driver), also those of a dead runner."""
        return processes_with(f"{self.folder}/")

    async def until_no_function(self) -> None:
        while self.functions():  # noqa: ASYNC110  (nothing tells when another's process ends)
            await trio.sleep(0.01)

    async def drain(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, cleanly, and see that nothing is left of it."""
        assert await ends(self.node, number) == 0, self.node.log.decode()
        assert self.functions() == []
        assert os.listdir(self.folder) == []
        assert errors_of(self.node) == []


@attrs.define(eq=False)
class Fleet:
    """One load balancer over runners."""

    lb: NodeProcess
    runners: list[Runner]

    async def drain(self) -> None:
        """End all, cleanly, front first, and see that nothing is left and nothing went wrong."""
        assert await ends(self.lb) == 0, self.lb.log.decode()
        assert errors_of(self.lb) == []
        for runner in self.runners:
            await runner.drain()


@asynccontextmanager
async def open_runner(
    folder: Path,
    *args: str,
    driver: str = "process",
    env: Mapping[str, str] | None = None,
    bind: str = "127.0.0.1:0",
    sockets: Path | None = None,
) -> AsyncIterator[Runner]:
    """``args`` are further options; ``env`` is laid over the environment. ``sockets`` is the folder
    of a runner that ran before; else it gets one of its own."""
    sockets = sockets or Path(tempfile.mkdtemp(prefix="r", dir=folder))
    settings = {"FN_IOFS_PATH": str(sockets), **(env or {})}
    options = ("--driver", driver, "--bind", bind, "--http-bind", "127.0.0.1:0")
    async with open_node("runner", *options, *args, env=settings) as node:
        yield Runner(node, sockets)


@asynccontextmanager
async def open_lb(
    folder: Path,
    runners: Sequence[str],
    *args: str,
    functions: Functions = FNT,
    env: Mapping[str, str] | None = None,
    bind: str = "127.0.0.1:0",
) -> AsyncIterator[NodeProcess]:
    declared = declare(folder / "functions.yaml", functions)
    options = ("--bind", bind, "--runners", ",".join(runners))
    async with open_node("lb", *options, "--functions", str(declared), *args, env=env) as node:
        yield node


@asynccontextmanager
async def open_fleet(
    folder: Path,
    *,
    runners: int = 2,
    functions: Functions = FNT,
    runner_env: Mapping[str, str] | None = None,
    lb_env: Mapping[str, str] | None = None,
) -> AsyncIterator[Fleet]:
    """A load balancer over runners with the process driver, all ready."""
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(open_runner(folder, env=runner_env))
            for _ in range(runners)
        ]
        addresses = [runner.address for runner in opened]
        lb = await stack.enter_async_context(
            open_lb(folder, addresses, functions=functions, env=lb_env)
        )
        yield Fleet(lb, opened)


@asynccontextmanager
async def open_single(
    folder: Path,
    *args: str,
    functions: Functions = FNT,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Runner]:
    """``hostler serve`` with the process driver: front end and agent in one process."""
    sockets = Path(tempfile.mkdtemp(prefix="s", dir=folder))
    declared = declare(folder / "functions.yaml", functions)
    options = ("--driver", "process", "--bind", "127.0.0.1:0", "--functions", str(declared))
    settings = {"FN_IOFS_PATH": str(sockets), **(env or {})}
    async with open_node("serve", *options, *args, env=settings) as node:
        yield Runner(node, sockets)


def declare(path: Path, functions: Functions, **app: Any) -> Path:
    """Write a functions file with one app, whose fields are ``app``."""
    import yaml

    fns = [
        {"name": name, "id": name, "image": str(fnt_path()), "memory": 16, **fields}
        for name, fields in functions.items()
    ]
    path.write_text(yaml.safe_dump({"apps": [{"name": "app", **app, "fns": fns}]}))
    return path


def processes_with(text: str) -> list[int]:
    """Processes with ``text`` in the environment that they were started with."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path("/proc", entry, "environ").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if text.encode() in environment:
            found.append(int(entry))
    return found


def errors_of(node: NodeProcess) -> list[dict[str, Any]]:
    """Its log lines at error level. Anything else than JSON on its stderr is a failure."""
    strange = [line for line in node.log.splitlines() if not line.startswith(b"{")]
    assert not strange, node.log.decode()
    return [line for line in node.lines() if line["level"] in ("error", "critical")]


def lines_of(node: NodeProcess, event: str, **details: object) -> list[dict[str, Any]]:
    """The log lines with this event and these details."""
    return [
        line for line in node.lines() if line["event"] == event and details.items() <= line.items()
    ]


async def wait_line(node: NodeProcess, event: str, **details: object) -> dict[str, Any]:
    """The first such log line, waited for."""
    while not (found := lines_of(node, event, **details)):  # noqa: ASYNC110  (another's log)
        await trio.sleep(0.01)
    return found[0]


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
