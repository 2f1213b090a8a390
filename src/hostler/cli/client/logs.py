"""``hostler logs``: what functions print, from the nodes that run them."""

from __future__ import annotations

import datetime as dt
import math
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import attrs
import click
import msgspec
import trio

from ..errors import tell
from ..options import CountType, bundle
from .errors import UNAVAILABLE, CommandFailed, run_command
from .many_nodes import SECONDS, ask_each, base_of, check, token_headers
from .names import all_fns, app_named, fn_named
from .options import api_option, optional_app_argument, optional_fn_argument, servers_option
from .output import printable

if TYPE_CHECKING:
    from ...api_client import Answer

LINES = "application/x-ndjson"
_MISSING = "keeps no output of functions: start it with FN_LOG_TAIL_BYTES=4194304"


class _Line(msgspec.Struct):
    """A line, or how many were lost in its place."""

    at: float = 0.0
    app_id: str = ""
    fn_id: str = ""
    call_id: str = ""
    container_id: str = ""
    stream: str = ""
    line: str = ""
    lost: int = 0


Take = Callable[[str, _Line, bytes], None]
"""Gets (node, line, the line's document)."""


@attrs.frozen
class LineFilter:
    """Which lines to ask for."""

    app_name: str | None
    fn_name: str | None
    follow: bool
    lines: int | None
    call: str
    fn_id: str


@click.command()
@bundle(
    LineFilter,
    "wanted",
    optional_app_argument,
    optional_fn_argument,
    click.option("--follow", "-f", is_flag=True, help="Also print new lines, until interrupted."),
    click.option(
        "--lines",
        "-n",
        type=CountType(999_999_999),
        help="Number of latest lines to print.",
    ),
    click.option("--call", metavar="ID", default="", help="Only the output of this call."),
    click.option(
        "--fn-id", metavar="ID", default="", help="Only the output of the function with this id."
    ),
)
@api_option
@servers_option
@click.option("--json", "as_json", is_flag=True, help="Print each line as a JSON document.")
def logs(wanted: LineFilter, api: str, servers: Sequence[str], as_json: bool) -> None:
    """Print the latest output of functions.

    A node keeps this output if it was started with FN_LOG_TAIL_BYTES.
    """
    if wanted.fn_id and wanted.fn_name:
        raise click.BadParameter("takes a name or an id, not both", param_hint="'--fn-id'")

    async def work() -> None:
        query, names = await _resolved(api or servers[0], wanted.app_name, wanted.fn_name)
        query |= {"fn_id": wanted.fn_id} if wanted.fn_id else {}
        query["call_id"] = wanted.call
        query["lines"] = "" if wanted.lines is None else str(wanted.lines)
        query["follow"] = "true" if wanted.follow else ""
        text = urlencode({name: value for name, value in query.items() if value})
        found: list[tuple[float, str, _Line, bytes]] = []

        def keep(node: str, line: _Line, raw: bytes) -> None:
            found.append((line.at, node, line, raw))

        def show(node: str, line: _Line, raw: bytes) -> None:
            _print(node, line, raw, names, as_json)

        async def ask(node: str) -> None:
            await _read(node, text, show if wanted.follow or len(servers) == 1 else keep)

        try:
            await ask_each(servers, ask)
        finally:
            for _, node, line, raw in sorted(found, key=lambda item: item[0]):
                show(node, line, raw)

    run_command(work, api or servers[0])


async def _resolved(
    api_url: str, app_name: str | None, fn_name: str | None
) -> tuple[dict[str, str], Mapping[str, str]]:
    """What to ask for, and names of functions by id."""
    from ...api_client import open_api_client
    from ...config import ApiConfig

    if not app_name:
        return {}, {}
    async with open_api_client(base_of(api_url), ApiConfig.from_env()) as api:
        app = await app_named(api, app_name)
        if fn_name:
            fn = await fn_named(api, app, fn_name)
            return {"app_id": app.id, "fn_id": fn.id}, {fn.id: f"{app.name}/{fn.name}"}
        names = {fn.id: f"{app.name}/{fn.name}" for fn in await all_fns(api, app)}
        return {"app_id": app.id}, names


async def _read(node: str, query: str, take: Take) -> None:
    from ...api_client import open_request

    url = f"{base_of(node)}/logs"
    with trio.move_on_after(SECONDS) as waiting:
        target = f"{url}?{query}" if query else url
        async with open_request("GET", target, headers=token_headers()) as answer:
            waiting.deadline = math.inf
            await check(answer, _MISSING)
            if (kind := answer.header("content-type")) != LINES:
                raise CommandFailed(f"its answer is not understood: {kind or 'without a type'}")
            async for raw in _lines(answer):
                take(node, _decoded(raw), raw)
    if waiting.cancelled_caught:
        raise CommandFailed(f"no answer within {SECONDS:g} s", UNAVAILABLE)


def _decoded(raw: bytes) -> _Line:
    try:
        return msgspec.json.decode(raw, type=_Line)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise CommandFailed(f"its answer is not understood: {error}") from error


async def _lines(answer: Answer) -> AsyncIterator[bytes]:
    """Without the empty ones."""
    begun = b""
    async for piece in answer.body:
        *whole, begun = (begun + piece).split(b"\n")
        for line in whole:
            if line:
                yield line


def _print(node: str, line: _Line, raw: bytes, names: Mapping[str, str], as_json: bool) -> None:
    if as_json:
        document = {"node": node, **msgspec.json.decode(raw)}
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    elif line.lost:
        tell(f"{node}: {line.lost} lines were lost because they were read too slowly")
    else:
        at = dt.datetime.fromtimestamp(line.at).astimezone().strftime("%H:%M:%S.%f")[:-3]
        who = names.get(line.fn_id, line.fn_id)
        mark = "!" if line.stream == "stderr" else "|"
        sys.stdout.write(f"{at} {who} {line.call_id or '-'} {mark} {printable(line.line)}\n")
    sys.stdout.flush()
