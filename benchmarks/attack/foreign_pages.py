"""Web pages in a browser of the node's machine, by rebinding and cross-site; and other machines."""

from __future__ import annotations

import json
from pathlib import Path

import trio

from tests.cli._process import NodeProcess, ends, open_node
from tests.cli._process import run as run_hostler

from ._row import Outcome
from ._world import LIMIT, Ask, World, post, request, status

ABOUT = "DNS rebinding and cross-site requests at `serve --driver process`, and other machines"
JSON = "Content-Type: application/json"
TOKEN = "token-of-the-owner"
SERVE = ("serve", "--driver", "process")


def run(world: World) -> Outcome:
    return trio.run(_run, world)


def _tries(fn: str) -> dict[str, tuple[bytes, set[int]]]:
    """By name: a request of a page, and how it may be refused."""
    app = b'{"name": "evil"}'
    rebound = ("Origin: http://evil.test", "Sec-Fetch-Site: same-origin")
    foreign = "Origin: https://evil.test"
    tries = {
        f"rebound {method} {path}": (
            request(method, path, *rebound, "Content-Length: 0", host="evil.test:8080"),
            {403},
        )
        for method in ("GET", "POST")
        for path in ("/v2/apps", "/ui/", "/ui/state.json", "/logs", "/metrics", "/t/a/b", fn)
    }
    return {
        **tries,
        "rebound, alone": (post("/v2/apps", JSON, body=app, host="evil.test"), {403}),
        "absolute target": (request("GET", "http://evil.test/v2/apps"), {403}),
        "user in the target": (request("GET", "http://localhost@evil.test/v2/apps"), {400}),
        "two hosts": (request("GET", "/v2/apps", "Host: evil.test"), {400}),
        "no host": (b"GET /v2/apps HTTP/1.1\r\nConnection: close\r\n\r\n", {400}),
        "old protocol": (b"GET /v2/apps HTTP/1.0\r\nHost: evil.test\r\n\r\n", {403}),
        "escaped path": (request("GET", "/%762/apps", host="evil.test"), {403}),
        "name like ours": (request("GET", "/v2/apps", host="localhost.evil.test"), {403}),
        "a form": (post("/v2/apps", "Content-Type: text/plain", body=app), {415}),
        "a form of a page": (
            post("/v2/apps", "Content-Type: text/plain", foreign, body=app),
            {403},
        ),
        "a form without a type": (post("/v2/apps", body=app), {415}),
        "another origin": (post("/v2/apps", JSON, foreign, body=app), {403}),
        "origin null": (post("/v2/apps", JSON, "Origin: null", body=app), {403}),
        "cross-site": (post("/v2/apps", JSON, "Sec-Fetch-Site: cross-site", body=app), {403}),
        "cross-site delete": (request("DELETE", "/v2/apps/x", "Sec-Fetch-Site: cross-site"), {403}),
        "cross-site call": (post(fn, foreign, "Sec-Fetch-Site: cross-site"), {403}),
    }


async def _run(world: World) -> Outcome:
    folder = world.subfolder()
    mark = folder / "ran"
    wrong = []
    with trio.fail_after(LIMIT):
        async with open_node(*SERVE, "--bind", "127.0.0.1:0", cwd=folder) as node:
            address = node.ready["http"][0]
            fn = await _made(world, address, mark)
            tries = _tries(f"/invoke/{fn}")
            asks = [Ask(data=data) for data, _ in tries.values()]
            answers = await world.ask(address, asks, outside=False)
            for (name, (_, wanted)), answer in zip(tries.items(), answers, strict=True):
                if status(answer) not in wanted:
                    wrong.append(f"{name}: {status(answer)}")
            apps = await world.ask(address, [Ask(data=request("GET", "/v2/apps"))], outside=False)
            if apps[0] is None or b"evil" in apps[0]:
                wrong.append("an app was made")
            port = address.rpartition(":")[2]
            (reached,) = await world.ask(
                f"{world.host}:{port}", [Ask(data=request("GET", "/version"))]
            )
            if reached is not None:
                wrong.append("a node on loopback was reached from elsewhere")
            await ends(node)
        wrong += await _elsewhere(world, folder)
    if mark.exists():
        wrong.append("a command was run")
    return Outcome(
        tried=f"{len(tries)} requests of pages; nodes that listen elsewhere, without a token",
        happened="; ".join(wrong)
        or "all refused, nothing was changed or run; no start without a token, or a warning",
        held=not wrong,
    )


async def _made(world: World, address: str, mark: Path) -> str:
    """The id of a function of the owner's whose start leaves ``mark``."""

    async def made(path: str, **fields: str) -> str:
        ask = Ask(data=post(path, JSON, body=json.dumps(fields).encode()))
        (answer,) = await world.ask(address, [ask], outside=False)
        assert answer is not None
        return str(json.loads(answer.partition(b"\r\n\r\n")[2])["id"])

    app = await made("/v2/apps", name="app")
    return await made("/v2/fns", name="f", app_id=app, image=f"touch {mark}")


async def _elsewhere(world: World, folder: Path) -> list[str]:
    """What is wrong with nodes that others can reach."""
    wrong = []
    for command in (SERVE, ("runner", "--driver", "process")):
        done = await run_hostler(*command, "--bind", world.bind, cwd=folder)
        if done.returncode != 1:
            wrong.append(f"{command[0]} started without a token: {done.returncode}")
    async with open_node("api", "--bind", world.bind, cwd=folder) as node:
        if not await _warns(node):
            wrong.append("api does not warn")
        await ends(node)
    env = {"FN_API_TOKEN": TOKEN}
    async with open_node(*SERVE, "--bind", world.bind, cwd=folder, env=env) as node:
        tries = [Ask(data=data) for data, _ in _tries("/v2/fns").values()]
        answers = await world.ask(node.ready["http"][0], tries)
        # Metrics are open, and so are calls, here of what is not there.
        wrong += [
            f"from elsewhere: {status(answer)}"
            for answer in answers
            if status(answer) < 400 and b"# HELP" not in (answer or b"")
        ]
        await ends(node)
    return wrong


async def _warns(node: NodeProcess) -> bool:
    await node.wait_line("ready")
    return any(
        "without a token" in line["event"] and line["level"] == "warning" for line in node.lines()
    )
