"""Slow clients in numbers: what they cost a real node, and that others are served meanwhile."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import trio

from ._process import NodeProcess, open_node

CONNECTIONS = 10_000
BOUND_MIB = 200

FUNCTIONS = "apps: [{name: a, fns: [{name: f, id: f, image: 'true'}]}]"
SLOW_HEAD = b"POST /invoke/f HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", b"x"
SLOW_BODY = b"POST /invoke/f HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n", b"x"
SILENT = b"", b""
OWN = "127.0.1.1", 0
"""So that others keep the ports of 127.0.0.1."""


@pytest.fixture
def many_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = max(before[1], CONNECTIONS + 500)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, enough))
    except ValueError:
        pytest.fail(f"the hard limit of open files is {before[1]}: too few for this test")
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def resident_mib(node: NodeProcess) -> float:
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def open_files(node: NodeProcess) -> int:
    return len(os.listdir(f"/proc/{node.process.pid}/fd"))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.02)


@contextmanager
def slow_clients(node: NodeProcess, count: int, parts: tuple[bytes, bytes]) -> Iterator[None]:
    port = int(node.url.rpartition(":")[2])
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), None, OWN))
            client.sendall(parts[0])
            clients.append(client)
        for client in clients:
            client.sendall(parts[1])
        yield


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts", [SLOW_HEAD, SLOW_BODY, SILENT], ids=["slow head", "slow body", "silent"]
)
async def test_ten_thousand_slow_clients_fit_into_200_mib(
    parts: tuple[bytes, bytes], tmp_path: Path, many_files: None
) -> None:
    functions = tmp_path / "functions.yaml"
    functions.write_text(FUNCTIONS)
    no_limits = {"FN_REQUEST_HEADER_READ_TIMEOUT": "0", "FN_HTTP_IDLE_TIMEOUT": "0"}
    args = ("serve", "--functions", str(functions), "--driver", "process", "--bind", "127.0.0.1:0")
    with trio.fail_after(150):
        async with open_node(*args, env=no_limits) as node:
            async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
                await client.get("/version")  # what the first request costs is not the clients'
            files, before = open_files(node), resident_mib(node)
            with slow_clients(node, CONNECTIONS, parts):
                await until(lambda: open_files(node) >= CONNECTIONS)
                async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
                    assert (await client.get("/version")).status_code == 200
                grown = resident_mib(node) - before
                print(f"{before:.1f} MiB + {CONNECTIONS} x {grown * 1024 / CONNECTIONS:.1f} KiB")  # noqa: T201
                assert before + grown < BOUND_MIB
            await until(lambda: open_files(node) <= files + 1)
