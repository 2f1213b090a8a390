"""``hostler runner --workers``: several runners that are one node."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.functions.build import fnt_path
from tests.support.folders import short_folder

from ...cli._process import END_SECONDS, NodeProcess, ends, ends_at_once, open_node, run
from .fleet import LOCAL, SPREAD, WORKERS, Fleet, until_gone

MIB = 2**20
MACHINE = {"FN_MAX_TOTAL_MEMORY_BYTES": str(257 * MIB + 1), "FN_MAX_TOTAL_CPU_MCPUS": "1999"}


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    path = tmp_path / "functions.yaml"
    path.write_text(
        f"apps: [{{name: a, fns: [{{name: f, image: '{fnt_path()}', memory: 32}},"
        f" {{name: big, image: '{fnt_path()}', memory: 200}}]}}]"
    )
    return path


@asynccontextmanager
async def open_fleet(
    functions: Path, *args: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[Fleet]:
    command = ("runner", "--driver", "process", *LOCAL, "--http-bind", "127.0.0.1:0")
    workers = ("--workers", str(WORKERS))
    async with open_node(*command, *workers, *args, env={**MACHINE, **(env or {})}) as runner:
        lb = ("lb", "--runners", runner.ready["runners"], "--functions", str(functions))
        async with open_node(*lb, *LOCAL, *SPREAD) as node:
            yield Fleet(runner, node, functions)
        if runner.process.returncode is not None:
            await until_gone(runner.ready["workers"])


def errors(node: NodeProcess) -> list[dict[str, Any]]:
    return [line for line in node.lines() if line["level"] == "error"]


async def test_each_is_a_runner_with_its_part_of_the_machine(functions: Path) -> None:
    async with open_fleet(functions) as fleet:
        ready = fleet.runner.ready
        assert ready["runners"] == ",".join(ready["grpc"])
        assert len(set(ready["grpc"])) == len(set(ready["workers"])) == WORKERS
        assert (ready["worker_memory"], ready["worker_mcpus"]) == (257 * MIB // 2, 999)
        pids = await fleet.pids_of_functions()
        assert pids.keys() == set(ready["workers"])
        used = await fleet.samples("fn_util_mem_used")
        free = await fleet.samples("fn_util_mem_avail")
        assert used == {"0": 32 * MIB, "1": 32 * MIB}
        assert sum(used.values()) + sum(free.values()) == 257 * MIB + 1
        calls = await fleet.samples("fn_calls")
        async with httpx.AsyncClient(base_url=fleet.runner.url, timeout=60) as client:
            state = (await client.get("/ui/state.json")).json()
            assert (await client.get("/readyz")).status_code == 200
        assert state["calls"] == sum(calls.values())
        load, (row,) = state["load"], state["functions"]
        assert (load["memory_total"], load["cpus_total"]) == (257 * MIB + 1, 1999)
        assert load["memory_used"] == 64 * MIB
        assert row["containers"]["idle"] + row["containers"]["paused"] == WORKERS
        assert await ends(fleet.runner) == 0
        assert not errors(fleet.runner)
        await until_gone(list(pids.values()))


async def test_what_is_larger_than_a_part_is_refused_as_by_any_runner(functions: Path) -> None:
    async with open_fleet(functions) as fleet:
        answer = await fleet.call(name="big")
        message = "Requested CPU/Memory cannot be allocated"
        assert (answer.status_code, answer.json()["message"]) == (400, message)


async def test_one_that_was_killed_is_back_where_it_was(functions: Path) -> None:
    async with open_fleet(functions) as fleet:
        pids = await fleet.pids_of_functions()
        first, killed = fleet.runner.ready["workers"]
        os.kill(killed, signal.SIGKILL)
        with trio.fail_after(END_SECONDS):
            ended = await fleet.runner.wait_line("worker has ended")
            assert (ended["number"], ended["exit_code"]) == (1, -signal.SIGKILL)
            await until_gone([pids[killed]])
            host, _, port = fleet.runner.ready["grpc"][1].rpartition(":")
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind((host, int(port)))
            # What it would have got goes to the other one meanwhile.
            for _ in range(20):
                assert (await fleet.call()).status_code == 200
            back = await fleet.runner.wait_line("worker is back")
        assert (back["number"], back["pid"] != killed) == (1, True)
        after = await fleet.pids_of_functions()
        assert after.keys() == {first, back["pid"]}
        assert await ends(fleet.runner) == 0
        await until_gone([back["pid"], *after.values()])
    bound = [line["address"] for line in fleet.runner.lines() if line["event"] == "listening"]
    addresses = fleet.runner.ready["grpc"]
    assert Counter(bound) == {addresses[0]: 1, addresses[1]: 2}


async def test_a_drain_lets_the_calls_of_all_finish(functions: Path) -> None:
    calls, gate = 2 * WORKERS, functions.parent / "gate"
    async with open_fleet(functions) as fleet:
        await fleet.pids_of_functions()
        statuses: list[int] = []
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                statuses.append((await fleet.call(f"until={gate}")).status_code)

            for _ in range(calls):
                nursery.start_soon(call)
            await fleet.until_running(calls)
            fleet.runner.process.send_signal(signal.SIGTERM)
            await fleet.runner.wait_line("runner drains")
            assert statuses == []
            gate.touch()
        assert statuses == [200] * calls
        with trio.fail_after(END_SECONDS):
            assert await fleet.runner.process.wait() == 0


async def test_the_grace_is_one_for_all(functions: Path) -> None:
    calls = 2 * WORKERS
    async with open_fleet(functions, "--grace", "0.5") as fleet:
        await fleet.pids_of_functions()
        drains = False
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                answer = await fleet.call("hang")
                assert drains, f"a call ended early: {answer.status_code} {answer.text}"
                assert answer.status_code >= 500

            for _ in range(calls):
                nursery.start_soon(call)
            await fleet.until_running(calls)
            drains = True
            assert await ends(fleet.runner) == 0


async def test_a_second_signal_ends_all_at_once(functions: Path) -> None:
    async with open_fleet(functions, "--grace", str(2 * END_SECONDS)) as fleet:
        pids = await fleet.pids_of_functions()
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                assert (await fleet.call("hang")).status_code >= 500

            nursery.start_soon(call)
            await fleet.until_running(1)
            fleet.runner.process.send_signal(signal.SIGTERM)
            await fleet.runner.wait_line("runner drains")
            assert await ends_at_once(fleet.runner) == 128 + signal.SIGTERM
        await until_gone(list(pids.values()))
    assert b"Traceback" not in fleet.runner.log


async def test_workers_drain_if_their_supervisor_is_killed(functions: Path) -> None:
    """The last one removes the folder of their sockets."""
    with short_folder() as temporary:
        async with open_fleet(functions, env={"TMPDIR": str(temporary)}) as fleet:
            pids = await fleet.pids_of_functions()
            assert len([*temporary.glob("hostler.*")]) == 1
            fleet.runner.process.kill()
            await fleet.runner.process.wait()
            await until_gone([*fleet.runner.ready["workers"], *pids.values()])
        assert [*temporary.glob("hostler.*")] == []


async def test_what_is_wrong_ends_the_node_before_it_is_ready() -> None:
    common = ("runner", "--driver", "process", "--workers", "2")
    # An address that nobody else uses, so that the port before is free.
    async with open_node("runner", "--driver", "process", "--bind", "127.9.9.9:0") as other:
        host, _, port = other.ready["grpc"].rpartition(":")
        taken = await run(*common, "--bind", f"{host}:{int(port) - 1}")
        assert taken.returncode == 1
        assert f"cannot listen on {other.ready['grpc']}: Address already in use" in taken.stderr
        assert "a worker has ended before it was ready, exit code 1" in taken.stderr
    high = await run(*common, "--bind", "127.0.0.1:65535")
    assert (high.returncode, high.stderr.count("hostler: error")) == (1, 1)
    assert "2 workers need 2 ports, from this one on" in high.stderr
    little = await run(*common, *LOCAL, env={"FN_MAX_TOTAL_CPU_MCPUS": "1"})
    assert "1 milli-CPUs are too little for 2 workers" in little.stderr
    many = await run(*common, *LOCAL, "--workers", "257")
    assert "FN_RUNNER_WORKERS" in many.stderr
    bad = await run(*common, *LOCAL, "--hooks", "none")
    # The first is started alone, so what is wrong with all is told once.
    assert bad.stderr.count("--hooks 'none': takes module:attribute") == 1


async def test_each_tells_what_functions_of_all_have_printed(functions: Path) -> None:
    async with open_fleet(functions, env={"FN_LOG_TAIL_BYTES": "100000"}) as fleet:
        pids = await fleet.pids_of_functions()
        found: set[str] = set()
        printed: list[str] = []
        async with httpx.AsyncClient(base_url=fleet.runner.url, timeout=60) as client:

            async def told() -> list[dict[str, Any]]:
                """On a connection of its own, which the kernel gives to some worker."""
                answer = await client.get("/logs", headers={"Connection": "close"})
                return [json.loads(line) for line in answer.text.splitlines() if line]

            with trio.fail_after(END_SECONDS):
                while len(found) < len(pids):
                    printed.append(f"line-{len(printed)}")
                    found.add((await fleet.call(f"out={printed[-1]};pid")).text)
                    # It takes another way than the answer, which may be longer.
                    while len(await told()) < len(printed):
                        pass
            for _ in range(4):
                lines = await told()
                assert [line["line"] for line in lines] == printed
                assert len({line["container_id"] for line in lines}) == len(pids)


async def test_one_is_a_runner_without_a_supervisor() -> None:
    async with open_node("runner", "--driver", "process", *LOCAL, "--workers", "1") as node:
        assert node.ready.keys() == {"node", "grpc"}
        assert await ends(node) == 0
