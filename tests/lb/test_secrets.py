"""What is remembered of heads, to read and write the next ones quickly, has no credentials in it:
those of a client, and those that a function gives it, are gone with their exchange."""

from __future__ import annotations

import functools
import gc
import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from hostler.drivers.sim import SimRequest, SimResponse
from hostler.front import invoke_app
from hostler.ids import new_id
from tests.front._agent import TABLE
from tests.front._sockets import open_front

from .stack import open_stack

CONTAINERS = (dict, list, set, deque, type(functools.lru_cache(len)))
NOT_FOLLOWED = (type, types.ModuleType, types.FunctionType, types.MethodType)


def memos() -> Iterator[object]:
    """What modules of the package have that can grow."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "hostler":
            yield from (value for value in vars(module).values() if isinstance(value, CONTAINERS))


def texts(roots: Iterable[object]) -> Iterator[bytes]:
    """All that can be reached from ``roots``, however deep it is."""
    todo, seen = list(roots), set[int]()
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            yield item.encode("utf-8", "surrogateescape")
        elif isinstance(item, bytes | bytearray):
            yield bytes(item)
        elif not isinstance(item, NOT_FOLLOWED) and id(item) not in seen:
            seen.add(id(item))
            todo += gc.get_referents(item)


INNER = "Fn-Http-H-"
"""Begins the headers of a function's own exchange, which may also be called as `/invoke` has it."""


@pytest.mark.parametrize(
    ("path", "theirs", "ours"),
    [("/invoke/fn1", "", ""), ("/t/app/", INNER, ""), ("/invoke/fn1", INNER, INNER)],
)
@pytest.mark.parametrize("clients", [True, False], ids=["the client's", "the function's"])
async def test_no_credentials_stay(
    tmp_path: Path, path: str, theirs: str, ours: str, clients: bool
) -> None:
    """``theirs`` and ``ours`` is what the names begin with that functions and clients give."""
    secret, usual = new_id(), new_id()
    async with open_stack(tmp_path) as stack:

        async def login(request: SimRequest) -> SimResponse:
            await request.read()
            kept = (f"{theirs}X-Usual", usual)
            given = [] if clients else [(f"{theirs}Set-Cookie", f"s={secret}")]
            return SimResponse(body=b"x", headers=[kept, *given])

        stack.runner.driver.add_image("echo:1", login)
        app = invoke_app(stack.agent, TABLE, triggers=TABLE)
        async with open_front(app=app) as front:
            client = await front.connect()
            headers = f"X-Usual: {usual}\r\n"
            if clients:
                headers += f"{ours}Authorization: Bearer {secret}\r\n{ours}Cookie: s={secret}\r\n"
            for _ in range(3):  # (on a hot container, too)
                answer = await client.post(b"x", path=path, headers=headers)
                began, given = ours.lower(), "" if clients else f"s={secret}"
                assert (answer.status, answer.headers[f"{began}x-usual"]) == (200, usual)
                assert answer.headers.get(f"{began}set-cookie", "") == given
            kept = list(texts([*memos(), front.server.heads]))
    assert not [text for text in kept if secret.encode() in text]
    assert [text for text in kept if usual.encode() in text]  # else this shows nothing
