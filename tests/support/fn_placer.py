"""A load balancer as Fn's: each call that waits asks all runners in turn, every 10 ms."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

import attrs
import trio

from hostler.protocol import Finished
from hostler.wire.codec import messages as codec

from .http2 import Peer, open_peer

PAUSE_SECONDS = 0.01
BUSY = 503


@attrs.define
class Outcome:
    """Of one call: when it came, and its answer (`trio.current_time`); how often it was refused."""

    began: float
    ended: float = 0.0
    code: int = 0
    """200, or what it failed with; 0 = the connection broke."""
    refused: int = 0

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class FnPlacer:
    """Places calls on ``runners``. Made by `open_fn_placer`."""

    def __init__(self, runners: Sequence[Peer]) -> None:
        self._runners = runners
        self._next = 0

    async def place(self, *messages: bytes) -> Outcome:
        """Have the call of these messages run, however often that takes."""
        outcome = Outcome(trio.current_time())
        while True:
            for _ in self._runners:
                self._next += 1
                runner = self._runners[self._next % len(self._runners)]
                reply = await runner.request(*messages)
                await reply.done.wait()
                outcome.code = _code(reply.messages) if reply.ended else 0
                if outcome.code != BUSY:
                    outcome.ended = trio.current_time()
                    return outcome
                outcome.refused += 1
            await trio.sleep(PAUSE_SECONDS)


def _code(messages: Sequence[bytes]) -> int:
    last = codec.decode_runner(messages[-1])
    assert isinstance(last, Finished)
    return 200 if last.success else last.error_code


@contextlib.asynccontextmanager
async def open_fn_placer(addresses: Sequence[str]) -> AsyncIterator[FnPlacer]:
    """With one connection to each runner. Raises `OSError`."""
    async with contextlib.AsyncExitStack() as stack:
        yield FnPlacer([await stack.enter_async_context(open_peer(a)) for a in addresses])
