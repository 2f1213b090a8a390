"""What runs on the attackers' side: ``python -m benchmarks.attack._outside ask|attack ...``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import attrs
import trio

from . import attacks

SILENCE = 30.0
"""Seconds without a byte after which a connection counts as ended."""
AT_ONCE = 20


async def _ask(address: str, asks: Sequence[dict[str, Any]]) -> list[str | None]:
    host, _, port = address.rpartition(":")
    answers: list[str | None] = [None] * len(asks)
    room = trio.CapacityLimiter(AT_ONCE)

    async def one(number: int, ask: dict[str, Any]) -> None:
        async with room:
            try:
                stream = await trio.open_tcp_stream(host, int(port))
            except OSError:
                return
            received = b""
            async with stream:
                try:
                    await stream.send_all(ask["data"].encode("latin-1"))
                    if ask["then"] == "leave":
                        await trio.sleep(ask["hold"])
                    else:
                        if ask["then"] == "half":
                            await stream.send_eof()
                        received = await _all(stream)
                except trio.BrokenResourceError:
                    pass
            answers[number] = received.decode("latin-1")

    async with trio.open_nursery() as nursery:
        for number, ask in enumerate(asks):
            nursery.start_soon(one, number, ask)
    return answers


async def _all(stream: trio.SocketStream) -> bytes:
    received = b""
    try:
        while True:
            with trio.fail_after(SILENCE):
                piece = await stream.receive_some()
            if not piece:
                return received
            received += piece
    except (trio.BrokenResourceError, trio.TooSlowError):
        return received


def _attack(address: str, name: str, seconds: float) -> None:
    run = attacks()[name].run
    print("begin", flush=True)
    end = time.monotonic() + seconds
    while True:
        print(json.dumps(attrs.asdict(run(address))), flush=True)
        if time.monotonic() >= end:
            return


def main(args: Sequence[str]) -> None:
    if args[0] == "ask":
        print(json.dumps(trio.run(lambda: _ask(**json.load(sys.stdin)))))
    else:
        _attack(args[1], args[2], float(args[3]))


if __name__ == "__main__":
    main(sys.argv[1:])
