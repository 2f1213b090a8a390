"""The API, the page, the logs and calls without the token, or with a wrong one."""

from __future__ import annotations

import trio

from tests.cli._process import ends, open_node

from ._row import Outcome
from ._world import LIMIT, Ask, World, post, request, status

ABOUT = "uses a node with tokens without one, and with wrong ones"
TOKEN, CALLS = "token-of-the-owner", "token-of-callers"
JSON = "Content-Type: application/json"
WRONG = {
    "none": (),
    "empty": ("Authorization: Bearer ",),
    "another": ("Authorization: Bearer token-of-somebody",),
    "cut short": (f"Authorization: Bearer {TOKEN[:-1]}",),
    "with more": (f"Authorization: Bearer {TOKEN}x",),
    "upper case": (f"Authorization: Bearer {TOKEN.upper()}",),
    "basic": (f"Authorization: Basic {TOKEN}",),
    "without a scheme": (f"Authorization: {TOKEN}",),
    "in a list": (f"Authorization: Bearer x, Bearer {TOKEN}",),
    "in another header": (f"X-Authorization: Bearer {TOKEN}", f"Proxy-Authorization: {TOKEN}"),
    "in a cookie": (f"Cookie: token={TOKEN}; Authorization={TOKEN}",),
    "not ASCII": ("Authorization: Bearer \u00e4\u00e4\u00e4\u00e4",),
    "100 000 bytes": ("Authorization: Bearer " + "a" * 50_000,),
}


def run(world: World) -> Outcome:
    return trio.run(_run, world)


async def _run(world: World) -> Outcome:
    env = {"FN_API_TOKEN": TOKEN, "FN_INVOKE_TOKEN": CALLS, "FN_LOG_TAIL_BYTES": "100000"}
    serve = ("serve", "--driver", "process", "--bind", world.bind)
    wrong = []
    with trio.fail_after(LIMIT):
        async with open_node(*serve, cwd=world.subfolder(), env=env) as node:
            address = node.ready["http"][0]
            tries = {}
            for kind, headers in {
                **WRONG,
                "that of calls": (f"Authorization: Bearer {CALLS}",),
            }.items():
                for path in ("/v2/apps", "/v2/openapi.json", "/ui/state.json", "/logs", "/none"):
                    tries[f"{kind} {path}"] = request("GET", path, *headers)
                tries[f"{kind} POST"] = post("/v2/apps", JSON, *headers, body=b'{"name": "evil"}')
                if kind != "that of calls":
                    tries[f"{kind} call"] = post("/invoke/none", *headers)
            answers = await world.ask(address, [Ask(data=data) for data in tries.values()])
            for name, answer in zip(tries, answers, strict=True):
                if status(answer) not in (400, 401):
                    wrong.append(f"{name}: {status(answer)}")
            right = [
                request("GET", "/v2/apps", f"Authorization: Bearer {TOKEN}"),
                post("/invoke/none", f"Authorization: Bearer {CALLS}"),
            ]
            apps, called = await world.ask(address, [Ask(data=data) for data in right])
            if status(apps) != 200 or b"evil" in (apps or b""):
                wrong.append(f"with the token: {status(apps)}, or an app was made")
            if status(called) != 404:
                wrong.append(f"a call with the token: {status(called)}")
            await ends(node)
            if TOKEN.encode() in node.log or CALLS.encode() in node.log:
                wrong.append("a token is in the log")
    return Outcome(
        tried=f"{len(tries)} requests from elsewhere",
        happened="; ".join(wrong[:5]) or "all refused, the right tokens taken, none in the log",
        held=not wrong,
    )
