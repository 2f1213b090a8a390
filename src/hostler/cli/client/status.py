"""``hostler status``: how nodes are, from what their page knows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import click
import msgspec
import trio

from .errors import UNAVAILABLE, CommandFailed, run_command
from .many_nodes import SECONDS, ask_each, base_of, check, token_headers
from .options import json_option, servers_option
from .output import print_json, print_table, say

RATE_SECONDS = 10
"""Whole seconds that calls/s is the mean of."""
_MISSING = "has no status: FN_UI is off there, or it is no node of hostler"


class _Load(msgspec.Struct):
    queued: int = 0
    running: int = 0
    memory_used: int | None = None
    memory_total: int | None = None


class _Runner(msgspec.Struct):
    address: str
    state: str = ""
    share: float = 1.0
    calls: int = 0
    active: int | None = None
    free_memory: int | None = None
    idle_containers: int | None = None


class _Containers(msgspec.Struct):
    starting: int = 0
    idle: int = 0
    busy: int = 0
    paused: int = 0


class _Fn(msgspec.Struct):
    id: str
    app: str = ""
    name: str = ""
    calls: int = 0
    failed: int = 0
    median: float | None = None
    containers: _Containers | None = None


class _State(msgspec.Struct):
    """What is shown of a `hostler.ui` document, which may be that of another version."""

    node: str
    version: str = ""
    ready: bool = False
    trouble: str = ""
    started: float = 0.0
    now: float = 0.0
    load: _Load | None = None
    seconds: list[tuple[int, int, int, float, float]] | None = None
    runners: list[_Runner] | None = None
    functions: list[_Fn] = []


@click.command()
@servers_option
@json_option
def status(servers: Sequence[str], as_json: bool) -> None:
    """Show nodes, their runners and their functions' containers."""
    found: dict[str, bytes] = {}

    async def ask(address: str) -> None:
        found[address] = await _document(address)

    async def work() -> None:
        try:
            await ask_each(servers, ask)
        finally:
            states = {address: found[address] for address in servers if address in found}
            if as_json:
                print_json(
                    [{"server": name, "state": msgspec.Raw(raw)} for name, raw in states.items()]
                )
            elif states:
                _print({address: _decoded(raw) for address, raw in states.items()})

    run_command(work)


async def _document(server: str) -> bytes:
    from ...api_client import open_request

    with trio.move_on_after(SECONDS):
        async with open_request(
            "GET", f"{base_of(server)}/ui/state.json", headers=token_headers()
        ) as answer:
            await check(answer, _MISSING)
            body = b"".join([piece async for piece in answer.body])
        _decoded(body)
        return body
    raise CommandFailed(f"no answer within {SECONDS:g} s", UNAVAILABLE)


def _decoded(body: bytes) -> _State:
    try:
        return msgspec.json.decode(body, type=_State)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise CommandFailed(f"its answer is not understood: {error}") from error


def _print(states: dict[str, _State]) -> None:
    headings = ["NODE", "TYPE", "VERSION", "READY", "UP", "CALLS/S", "QUEUED", "RUNNING", "MEMORY"]
    print_table(headings, [_node_row(*item) for item in states.items()])
    runners = [(node, runner) for node, s in states.items() for runner in s.runners or ()]
    if runners:
        say("")
        headings = ["RUNNER", "OF", "STATE", "SHARE", "CALLS", "ACTIVE", "FREE MEMORY", "IDLE"]
        print_table(headings, [_runner_row(*item) for item in runners])
    functions = [(node, fn) for node, s in states.items() for fn in s.functions if fn.containers]
    if functions:
        say("")
        headings = ["FUNCTION", "ON", "CALLS", "FAILED", "MEDIAN"]
        headings += ["STARTING", "IDLE", "BUSY", "PAUSED"]
        print_table(headings, [_fn_row(*item) for item in functions])


def _node_row(server: str, state: _State) -> list[str]:
    load = state.load or _Load()
    memory = "-"
    if load.memory_total is not None:
        memory = f"{_megabytes(load.memory_used)} of {_megabytes(load.memory_total)}"
    return [
        server,
        state.node,
        state.version,
        "yes" if state.ready else ": ".join(filter(None, ("no", state.trouble))),
        str(dt.timedelta(seconds=max(0, round(state.now - state.started)))),
        "-" if state.seconds is None else f"{calls_per_second(state.seconds, state.now):.1f}",
        str(load.queued) if state.load else "-",
        str(load.running) if state.load else "-",
        memory,
    ]


def calls_per_second(seconds: list[tuple[int, int, int, float, float]], now: float) -> float:
    """The mean over the last `RATE_SECONDS` seconds that are over."""
    present = int(now)
    recent = [calls for at, calls, *_ in seconds if present - RATE_SECONDS <= at < present]
    return sum(recent) / RATE_SECONDS


def _runner_row(node: str, runner: _Runner) -> list[str]:
    return [
        runner.address,
        node,
        runner.state,
        f"{runner.share:.0%}",
        str(runner.calls),
        _number(runner.active),
        _megabytes(runner.free_memory),
        _number(runner.idle_containers),
    ]


def _fn_row(node: str, fn: _Fn) -> list[str]:
    has = fn.containers or _Containers()
    return [
        f"{fn.app}/{fn.name}" if fn.name else fn.id,
        node,
        str(fn.calls),
        str(fn.failed),
        "-" if fn.median is None else f"{fn.median:.1f} ms",
        *(str(count) for count in (has.starting, has.idle, has.busy, has.paused)),
    ]


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _megabytes(value: int | None) -> str:
    return "-" if value is None else f"{value >> 20} MB"
