"""``hostler lb --workers``: several processes that are one node."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from hostler.calls import PendingCall
from tests.front._agent import echo
from tests.nodes.cluster import FUNCTIONS, LONG_GRACE, PlayedAgent, hang, open_cluster

from ...cli._process import END_SECONDS, NodeProcess, ends, ends_at_once, run
from .fleet import is_there, until_gone

WORKERS = 2


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    path = tmp_path / "functions.yaml"
    path.write_text(FUNCTIONS)
    return path


@asynccontextmanager
async def open_workers(
    functions: Path, *args: str, agent: PlayedAgent | None = None
) -> AsyncIterator[tuple[NodeProcess, str]]:
    """The node's pids are in its ready line; also the path of the function."""
    async with open_cluster(functions, "--workers", str(WORKERS), *args, agent=agent) as opened:
        node, _, path = opened
        try:
            yield node, path
        finally:
            pids = node.ready["workers"]
            if node.process.returncode is not None:
                await until_gone(pids)


async def post(url: str, content: bytes = b"x") -> httpx.Response:
    """A call on a connection of its own, which the kernel gives to some worker."""
    async with httpx.AsyncClient(base_url=url.rpartition("/invoke")[0], timeout=60) as client:
        return await client.post(url, content=content)


async def calls_by_worker(node: NodeProcess) -> Counter[str]:
    async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
        text = (await client.get("/metrics")).text
    return Counter(
        {
            sample.labels["worker"]: int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "fn_calls"
        }
    )


async def test_all_workers_take_calls_and_each_tells_of_all(functions: Path) -> None:
    async with open_workers(functions) as (node, path):
        assert len(set(node.ready["workers"])) == WORKERS
        calls = 0
        with trio.fail_after(END_SECONDS):
            while min((found := await calls_by_worker(node)).values()) < 2:
                assert (await post(node.url + path, b"hello")).content == b"hello"
                calls += 1
        assert found.keys() == {"0", "1"}
        assert found.total() == calls
        async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
            state = (await client.get("/ui/state.json")).json()
            assert (state["calls"], len(state["recent"])) == (calls, calls)
            assert [(fn["name"], fn["calls"]) for fn in state["functions"]] == [("echo", calls)]
            assert [row["calls"] for row in state["runners"]] == [calls]
            assert (await client.get("/metrics/none")).status_code == 404
            assert (await client.post("/metrics")).status_code == 405
        assert len({call["id"] for call in state["recent"]}) == calls
        assert await ends(node) == 0
        assert not [line for line in node.lines() if line["level"] == "error"]


async def test_a_worker_that_was_killed_is_replaced(functions: Path) -> None:
    async with open_workers(functions) as (node, path):
        killed = node.ready["workers"][0]
        os.kill(killed, signal.SIGKILL)
        with trio.fail_after(END_SECONDS):
            assert (await node.wait_line("worker has ended"))["exit_code"] == -signal.SIGKILL
            # Those whom the kernel gives to the one that is not there wait until it is.
            for _ in range(20):
                assert (await post(node.url + path)).status_code == 200
            back = await node.wait_line("worker is back")
        assert (back["number"], back["pid"] != killed) == (0, True)
        async with httpx.AsyncClient(base_url=node.url, timeout=60) as client:
            assert 'fn_worker_up{worker="0"} 1.0' in (await client.get("/metrics")).text
        assert await ends(node) == 0
        assert not is_there(back["pid"])


@pytest.mark.parametrize("group", [False, True])
async def test_a_drain_waits_for_the_calls_of_all(functions: Path, *, group: bool) -> None:
    """Also where a service manager signals the workers beside their supervisor."""
    calls, go_on, entered = 8, trio.Event(), trio.Semaphore(0)

    async def handler(call: PendingCall) -> None:
        entered.release()
        await go_on.wait()
        await echo(call)

    replies: list[bytes] = []
    async with open_workers(functions, agent=PlayedAgent(handler)) as (node, path):
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                replies.append((await post(node.url + path)).content)

            for _ in range(calls):
                nursery.start_soon(call)
            with trio.fail_after(END_SECONDS):
                for _ in range(calls):
                    await entered.acquire()
            node.process.send_signal(signal.SIGTERM)
            for pid in node.ready["workers"] if group else ():
                os.kill(pid, signal.SIGTERM)
            with trio.fail_after(END_SECONDS):
                while len([e for e in events(node) if e == "lb agent drains"]) < WORKERS:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            with trio.fail_after(END_SECONDS):
                await until_refused(node.ready["http"][0])
            go_on.set()
        assert replies == [b"x"] * calls
        with trio.fail_after(END_SECONDS):
            assert await node.process.wait() == 0


async def until_refused(address: str) -> None:
    """Nobody listens any more, the supervisor included."""
    host, _, port = address.rpartition(":")
    while True:
        try:
            stream = await trio.open_tcp_stream(host, int(port))
        except OSError:
            return
        await stream.aclose()


async def test_no_client_is_given_to_workers_that_are_to_drain(functions: Path) -> None:
    """The supervisor sees to it, however long they take to look at its order."""
    async with open_workers(functions) as (node, _):
        workers = node.ready["workers"]
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            node.process.send_signal(signal.SIGTERM)
            with trio.fail_after(END_SECONDS):
                await until_refused(node.ready["http"][0])
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
        with trio.fail_after(END_SECONDS):
            assert await node.process.wait() == 0


def events(node: NodeProcess) -> list[str]:
    return [line["event"] for line in node.lines()]


async def test_a_second_signal_ends_all_at_once(functions: Path) -> None:
    agent = PlayedAgent(hang)
    async with open_workers(functions, *LONG_GRACE, agent=agent) as (node, path):
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises(httpx.RemoteProtocolError):
                    await post(node.url + path)

            nursery.start_soon(call)
            await agent.entered.wait()
            node.process.send_signal(signal.SIGTERM)
            await node.wait_line("lb agent drains")
            assert await ends_at_once(node) == 128 + signal.SIGTERM
        await agent.left.wait()
    assert b"Traceback" not in node.log


async def test_workers_drain_if_their_supervisor_is_killed(functions: Path) -> None:
    go_on = trio.Event()

    async def handler(call: PendingCall) -> None:
        await go_on.wait()
        await echo(call)

    agent = PlayedAgent(handler)
    replies: list[bytes] = []
    async with open_workers(functions, agent=agent) as (node, path), trio.open_nursery() as nursery:

        async def call() -> None:
            replies.append((await post(node.url + path)).content)

        nursery.start_soon(call)
        await agent.entered.wait()
        node.process.kill()
        await node.process.wait()
        await node.wait_line("lb agent drains")
        go_on.set()
    assert (agent.record, replies) == (["finished"], [b"x"])


async def test_what_is_wrong_ends_the_node_before_it_is_ready(functions: Path) -> None:
    common = ("lb", "--workers", "2", "--runners", "127.0.0.1:1", "--functions", str(functions))
    bad = await run(*common, "--bind", "127.0.0.1:0", "--placer", "nonsense")
    assert bad.returncode == 1
    assert "--placer 'nonsense': takes naive" in bad.stderr
    assert "a worker has ended before it was ready, exit code 1" in bad.stderr.splitlines()[-1]
    assert "Traceback" not in bad.stderr
    async with open_cluster(functions) as (node, _, _):
        taken = await run(*common, "--bind", node.ready["http"][0])
    assert taken.returncode == 1
    assert "cannot listen on" in taken.stderr
    many = await run(*common, "--bind", "127.0.0.1:0", "--workers", "257")
    assert "FN_LB_WORKERS" in many.stderr
