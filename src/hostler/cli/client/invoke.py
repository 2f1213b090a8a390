"""``hostler invoke``: call a function; its input and output stream."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

import attrs
import click
import trio

from ...headers import TOKEN
from ..options import bundle
from .errors import FAILED, FUNCTION_FAILED, NOT_FOUND, UNAVAILABLE, CommandFailed, run_command
from .names import app_named, fn_named
from .options import FnPath, fn_arguments, server_option
from .output import FN_ENDPOINT, field_of

if TYPE_CHECKING:
    from ...api_client import Answer

PIECE = 64 * 1024
"""Bytes that are read at once from a file or a pipe."""
_OF_THE_CONNECTION = ("content-length", "transfer-encoding", "connection")
_FAILURES = {404: NOT_FOUND, 429: UNAVAILABLE, 503: UNAVAILABLE}


def _headers(_: click.Context, __: click.Parameter, lines: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        name, separator, value = line.partition(":")
        name = name.strip()
        if not separator or not TOKEN.fullmatch(name):
            raise click.BadParameter(f"{line!r} is not NAME:VALUE")
        if name.lower() in _OF_THE_CONNECTION:
            raise click.BadParameter(f"{name} is set from the body")
        found[name] = _value(value.strip())
    return found


def _content_type(_: click.Context, __: click.Parameter, value: str) -> str:
    return _value(value)


def _value(text: str) -> str:
    if not text.isascii() or not text.replace("\t", " ").isprintable():
        raise click.BadParameter(f"{text!r} has characters that no header can have")
    return text


@attrs.frozen
class RequestOptions:
    """What the function gets."""

    data: str | None
    content_type: str
    headers: dict[str, str]


@click.command()
@fn_arguments
@bundle(
    RequestOptions,
    "request",
    click.option("--data", "-d", help="Request body; @FILE reads it from a file."),
    click.option(
        "--content-type",
        "-t",
        default="text/plain",
        show_default=True,
        callback=_content_type,
        help="Content type of the body.",
    ),
    click.option(
        "--header",
        "-H",
        "headers",
        metavar="NAME:VALUE",
        multiple=True,
        callback=_headers,
        help="Extra request header; repeatable.",
    ),
)
@click.option("--detached", is_flag=True, help="Return once the function has started.")
@click.option("--include", "-i", is_flag=True, help="Print the status and the headers to stderr.")
@server_option
def invoke(
    fn: FnPath,
    request: RequestOptions,
    detached: bool,
    include: bool,
    server: str,
) -> None:
    """Call a function and print its response.

    Without --data the body is the standard input, unless that is a terminal. The exit code is 6
    if the function fails.
    """
    headers = {"Content-Type": request.content_type, **request.headers}
    if detached:
        headers["Fn-Invoke-Type"] = "detached"

    async def work() -> None:
        from ...api_client import authorization, open_request
        from ...config import look_up

        # Not the API's token: only who asks for it says that the function's node is to be trusted.
        tokens = (look_up(os.environ, "FN_INVOKE_TOKEN") or "").split()
        if tokens and "authorization" not in map(str.lower, headers):
            headers.update(authorization(tokens[0]))
        url = await _endpoint(server, fn)
        with _opened(request.data) as body:
            content = body if isinstance(body, bytes) else _pieces(body)
            async with open_request("POST", url, body=content, headers=headers) as answer:
                await _print(answer, include)

    run_command(work, server)


async def _endpoint(server: str, path: FnPath) -> str:
    from ...api_client import open_api_client
    from ...config import ApiConfig

    async with open_api_client(server, ApiConfig.from_env()) as api:
        fn = await fn_named(api, await app_named(api, path.app_name), path.fn_name)
    url = field_of(fn, FN_ENDPOINT)
    if not url:
        raise CommandFailed(f"the API at {server} does not say where {path.fn_name} can be called")
    return url


@contextmanager
def _opened(data: str | None) -> Iterator[bytes | BinaryIO]:
    """The body: as given, or a file to read it from."""
    if data is None:
        yield b"" if sys.stdin.isatty() else sys.stdin.buffer
    elif data.startswith("@"):
        with Path(data[1:]).open("rb") as file:
            yield file
    else:
        yield os.fsencode(data)  # as they were given, UTF-8 or not


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    """As they come. A read of a terminal or a pipe can't be stopped: its thread is left behind."""
    while piece := await trio.to_thread.run_sync(_read, file, abandon_on_cancel=True):
        yield piece


def _read(file: BinaryIO) -> bytes:
    return os.read(file.fileno(), PIECE)


async def _print(answer: Answer, include: bool) -> None:
    if include:
        sys.stderr.write(f"{answer.status} {answer.reason}\n")
        sys.stderr.writelines(f"{name}: {value}\n" for name, value in answer.headers)
    if answer.status >= 400 and answer.header("content-type").startswith("application/json"):
        await _fail(answer)
    async for piece in answer.body:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    if answer.status >= 400:
        raise _failure(answer, "this is the answer of the function")


async def _fail(answer: Answer) -> NoReturn:
    """An error document of the node; anything else is the function's own, and is printed."""
    from ...api_client import message_of

    body = b"".join([piece async for piece in answer.body])
    if not (message := message_of(body)):
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()
    if message.startswith("Path not found: "):  # an API node names itself by default
        message += "; does FN_PUBLIC_LB_URL of the API node name a load balancer?"
    raise _failure(answer, message or "this is the answer of the function")


def _failure(answer: Answer, text: str) -> CommandFailed:
    status = answer.status
    code = _FAILURES.get(status, FUNCTION_FAILED if status >= 500 else FAILED)
    call = f" (call {call_id})" if (call_id := answer.header("fn-call-id")) else ""
    return CommandFailed(f"{status} {answer.reason}: {text}{call}", code)
