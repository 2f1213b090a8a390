"""Requests that a proxy may see as one and we as two, or the other way round (RFC 9112, 11.2)."""

from __future__ import annotations

import re
from pathlib import Path

import trio

from ._row import Outcome
from ._world import LIMIT, Ask, World, status

ABOUT = "hides requests behind others of odd framing, at a load balancer"
STATUS_LINE = re.compile(rb"HTTP/1\.[01] [0-9]{3} ")
HEAD = b"POST /invoke/fnt HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
CLOSE = b"Connection: close"
ONE = b"1\r\nx\r\n0\r\n\r\n"


def run(world: World) -> Outcome:
    return trio.run(_run, world)


def _post(*lines: bytes, body: bytes) -> bytes:
    return HEAD + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def _vectors(hidden: bytes) -> dict[str, bytes]:
    """By name: requests that have to be refused, or to be one, with ``hidden`` behind them."""
    chunk = b"%x\r\n" % len(hidden) + hidden + b"\r\n"
    whole = b"0\r\n\r\n" + hidden
    vectors = {
        "CL.TE": _post(b"Content-Length: %d" % (5 + len(hidden)), CHUNKED, body=whole),
        "CL.TE of length 0": _post(b"Content-Length: 0", CHUNKED, body=whole),
        "TE.CL": _post(CHUNKED, b"Content-Length: 4", body=chunk + b"0\r\n\r\n"),
        "TE twice": _post(CHUNKED, CHUNKED, body=ONE + hidden),
        "TE.TE, the second unknown": _post(CHUNKED, b"Transfer-Encoding: x", body=ONE + hidden),
        "TE.TE, the first unknown": _post(b"Transfer-Encoding: x", CHUNKED, body=ONE + hidden),
        "TE list": _post(b"Transfer-Encoding: chunked, identity", body=ONE + hidden),
        "TE with a tab and more": _post(b"Transfer-Encoding: \x0bchunked", body=ONE + hidden),
        "TE with a blank before the colon": _post(
            b"Transfer-Encoding : chunked", body=ONE + hidden
        ),
        "TE folded": _post(b"Transfer-Encoding:", b" chunked", body=ONE + hidden),
        "TE of HTTP/1.0": HEAD.replace(b"/1.1", b"/1.0") + CHUNKED + b"\r\n\r\n" + ONE + hidden,
        "CL twice": _post(b"Content-Length: 0", b"Content-Length: 9", body=hidden),
        "CL twice, the same": _post(b"Content-Length: 0", b"Content-Length: 0", body=hidden),
        "CL list": _post(b"Content-Length: 0, 0", body=hidden),
        "CL with a plus": _post(b"Content-Length: +1", body=b"x" + hidden),
        "CL negative": _post(b"Content-Length: -1", body=hidden),
        "CL in hex": _post(b"Content-Length: 0x1", body=b"x" + hidden),
        "CL with a blank before the colon": _post(b"Content-Length : 1", body=b"x" + hidden),
        "CL behind a bare LF": _post(b"X: 1\nContent-Length: 0", body=hidden),
        "CL behind a bare CR": _post(b"X: 1\rContent-Length: 9", body=hidden),
        "a NUL in a value": _post(b"X: a\x00b", body=hidden),
        "two hosts": _post(b"Host: y", b"Content-Length: 0", body=hidden),
        "a head that ends with LF LF": HEAD + b"X: 1\n\n" + hidden,
        "a fold before the first header": HEAD.replace(b"Host", b" Host") + b"\r\n" + hidden,
        "HTTP/0.9": b"GET /invoke/fnt\r\n\r\n" + hidden,
        "a third version": HEAD.replace(b"\r\n", b" HTTP/1.1\r\n", 1) + b"\r\n" + hidden,
    }
    for name, size in {
        "that is no number": b"z",
        "with 0x": b"0x1",
        "with a sign": b"+1",
        "that wraps": b"1" + b"0" * 16,
        "with a blank": b"1 ",
        "with an underscore": b"0_1",
    }.items():
        vectors[f"a chunk size {name}"] = _post(CHUNKED, body=size + b"\r\nx\r\n" + whole)
    for name, line in {
        "underscore": b"Transfer_Encoding: chunked",
        "a CR in the name": b"Tra\rnsfer-Encoding: chunked",
        "a byte before the name": b"\x7fTransfer-Encoding: chunked",
        "quotes": b'Transfer-Encoding: "chunked"',
        "a comma": b"Transfer-Encoding: ,chunked",
        "an odd blank": b"Transfer-Encoding:\xa0chunked",
    }.items():
        sized = b"Content-Length: %d" % len(whole)
        vectors[f"TE beside a length: {name}"] = _post(sized, line, CLOSE, body=whole)
    return vectors


async def _run(world: World) -> Outcome:
    wrong: list[str] = []
    refused = 0
    folder = world.subfolder()
    with trio.fail_after(LIMIT):
        async with world.fleet() as fleet:
            address = fleet.lb.ready["http"][0]
            names = list(_vectors(b""))
            marks = [folder / f"hidden{number}" for number in range(len(names))]
            vectors = [
                _vectors(_hidden(mark))[name] for name, mark in zip(names, marks, strict=True)
            ]
            answers = await world.ask(address, [Ask(data=data) for data in vectors])
            for name, mark, answer in zip(names, marks, answers, strict=True):
                lines = len(STATUS_LINE.findall(answer or b""))
                refused += status(answer) in (400, 501, 505)
                fine = status(answer) in (200, 400, 501, 505)
                if not fine or lines != 1 or mark.exists():
                    wrong.append(f"{name}: {status(answer)}, {lines} answers")
            # That the trap is one: the hidden request is a request if it stands alone.
            await world.ask(address, [Ask(data=_hidden(folder / "open"))])
            if not (folder / "open").exists():
                wrong.append("the hidden request does nothing")
    return Outcome(
        tried=f"{len(vectors)} requests with another one hidden in each",
        happened="; ".join(wrong[:5])
        or f"{refused} refused, {len(vectors) - refused} taken as one; no hidden one was run",
        held=not wrong,
    )


def _hidden(mark: Path) -> bytes:
    head = b"POST /invoke/fnt HTTP/1.1\r\nHost: x\r\nFnt-Do: write=%b\r\n" % bytes(mark)
    return head + b"Content-Length: 1\r\nConnection: close\r\n\r\nx"
