"""``hostler logs`` and ``hostler status``, as processes, against nodes that are others."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from hostler.cli.client.status import calls_per_second
from hostler.functions import load_functions
from tests.functions.build import fnt_path
from tests.support.ids import fn_by_name

from .._process import END_SECONDS, SCRIPT, NodeProcess, clean_env, open_node, run

KEPT = {"FN_LOG_TAIL_BYTES": "100000"}
SERVE = ("serve", "--driver", "process", "--bind", "127.0.0.1:0")


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[NodeProcess]:
    async with open_node(*SERVE, env=KEPT, cwd=tmp_path) as node:
        await ok(node, "app", "create", "shop")
        for name in ("pay", "search"):
            await ok(node, "fn", "create", "shop", name, str(fnt_path()))
        yield node


async def ok(node: NodeProcess, *args: str) -> str:
    done = await run(*args, env={"FN_API_URL": node.url})
    assert (done.returncode, done.stderr) == (0, "")
    text: str = done.stdout
    return text


async def invoke(node: NodeProcess, fn: str, do: str) -> None:
    await ok(node, "invoke", "shop", fn, "-d", "x", "-H", f"Fnt-Do: {do}")


async def printed(node: NodeProcess, *args: str, count: int) -> list[dict[str, Any]]:
    """Output takes another way than the answer: until there are ``count`` lines."""
    with trio.fail_after(60):
        while True:
            found = [json.loads(line) for line in (await ok(node, "logs", *args)).splitlines()]
            if len(found) >= count:
                return found


async def test_recent_lines_are_told_apart_by_function_and_call(node: NodeProcess) -> None:
    await invoke(node, "pay", "out=paid;err=late")
    await invoke(node, "search", "out=found")
    everything = await printed(node, "--json", count=3)
    assert {(line["line"], line["stream"]) for line in everything} == {
        ("paid", "stdout"),
        ("late", "stderr"),
        ("found", "stdout"),
    }
    assert {line["node"] for line in everything} == {node.url}
    pay = await printed(node, "shop", "pay", "--json", count=2)
    assert {line["line"] for line in pay} == {"paid", "late"}
    (call,) = {line["call_id"] for line in pay}
    assert len(await printed(node, "--call", call, "--json", count=2)) == 2
    assert len(await printed(node, "shop", "-n", "1", "--json", count=1)) == 1
    assert len(await printed(node, "--fn-id", pay[0]["fn_id"], "--json", count=2)) == 2
    text = await ok(node, "logs", "shop", "search")
    assert text.split(maxsplit=1)[1].startswith("shop/search ")
    assert text.endswith(" | found\n")


async def test_following_shows_what_comes_and_ends_with_the_client_or_the_node(
    node: NodeProcess,
) -> None:
    async def follow() -> trio.Process:
        return await trio.lowlevel.open_process(
            [str(SCRIPT), "logs", "shop", "pay", "-f", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=clean_env({"FN_API_URL": node.url}),
        )

    with trio.fail_after(60):
        await invoke(node, "pay", "out=first")
        first, second = await follow(), await follow()
        try:
            assert first.stdout is not None
            assert second.stdout is not None
            assert b'"first"' in await first.stdout.receive_some()
            assert b'"first"' in await second.stdout.receive_some()
            await invoke(node, "pay", "out=next")
            assert b'"next"' in await first.stdout.receive_some()
            assert b'"next"' in await second.stdout.receive_some()
            first.send_signal(signal.SIGINT)
            assert await first.wait() == 130
            node.process.send_signal(signal.SIGTERM)
            assert await second.wait() == 0
            assert await node.process.wait() == 0
        finally:
            for process in (first, second):
                if process.returncode is None:
                    process.kill()
                    await process.wait()


async def test_a_node_that_keeps_nothing_says_so_and_does_not_hide_the_others(
    node: NodeProcess, tmp_path: Path
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    await invoke(node, "pay", "out=paid")
    await printed(node, "--json", count=1)
    async with open_node(*SERVE, env={"FN_UI": "0"}, cwd=inner) as plain:
        asked = ("--server", plain.url, "--server", node.url, "--server", "http://127.0.0.1:1")
        done = await run("logs", *asked)
        assert done.returncode == 5
        assert done.stdout.endswith(" | paid\n")
        assert f"{plain.url}: keeps no output of functions: start it with FN_LOG" in done.stderr
        assert "http://127.0.0.1:1 does not answer as it should (" in done.stderr
        shown = await run("status", *asked, "--json")
        assert [found["server"] for found in json.loads(shown.stdout)] == [node.url]
        assert f"{plain.url}: has no status: FN_UI is off there" in shown.stderr
        assert "Traceback" not in done.stderr + shown.stderr


async def test_a_runner_shows_the_lines_and_its_balancer_the_runner(tmp_path: Path) -> None:
    functions = tmp_path / "functions.yaml"
    functions.write_text(
        f"apps: [{{name: shop, fns: [{{name: pay, image: '{fnt_path()}', memory: 32}}]}}]\n"
    )
    fn_id = fn_by_name(load_functions(functions), "shop", "pay").id
    runner = ("runner", "--driver", "process", "--bind", "127.0.0.1:0")
    async with open_node(*runner, "--http-bind", "127.0.0.1:0", env=KEPT) as behind:
        grpc = behind.ready["grpc"]
        lb = ("lb", "--functions", str(functions), "--runners", grpc, "--bind", "127.0.0.1:0")
        async with open_node(*lb) as front, httpx.AsyncClient(timeout=60) as client:
            url = f"{front.url}/invoke/{fn_id}"
            answer = await client.post(url, content=b"x", headers={"Fnt-Do": "out=paid"})
            assert answer.status_code == 200
            (line,) = await printed(behind, "--fn-id", fn_id, "--json", count=1)
            assert (line["line"], line["call_id"]) == ("paid", answer.headers["fn-call-id"])
            shown = await run("status", "--server", front.url, "--server", behind.url)
            assert (shown.returncode, shown.stderr) == (0, "")
            rows = [line.split() for line in shown.stdout.splitlines()]
            assert rows[0][:4] == ["NODE", "TYPE", "VERSION", "READY"]
            assert [row[1] for row in rows[1:3]] == ["lb", "runner"]
            assert [row[3] for row in rows[1:3]] == ["yes", "yes"]
            assert [grpc, front.url, "in", "use", "100%", "1"] in [row[:6] for row in rows]
            assert [fn_id, behind.url, "1", "0"] in [row[:4] for row in rows]
        behind.process.send_signal(signal.SIGTERM)
        with trio.fail_after(END_SECONDS):
            assert await behind.process.wait() == 0


async def test_a_full_node_and_an_api_have_a_status(node: NodeProcess, tmp_path: Path) -> None:
    await invoke(node, "pay", "out=paid")
    (tmp_path / "api").mkdir()
    async with open_node("api", "--bind", "127.0.0.1:0", cwd=tmp_path / "api") as api:
        shown = await run("status", "--server", node.url, "--server", api.url)
        assert (shown.returncode, shown.stderr) == (0, "")
        rows = [line.split() for line in shown.stdout.splitlines()]
        assert [[node.url, "full"], [api.url, "api"]] == [row[:2] for row in rows[1:3]]
        assert ["shop/pay", node.url, "1", "0"] in [row[:4] for row in rows]


def test_calls_per_second_are_a_mean_of_seconds_that_are_over() -> None:
    seconds = [(89, 1000, 0, 1.0, 1.0), (90, 10, 0, 1.0, 1.0), (99, 5, 1, 1.0, 1.0)]
    assert calls_per_second([*seconds, (100, 1000, 0, 1.0, 1.0)], now=100.5) == 1.5
    assert calls_per_second([], now=100.5) == 0
