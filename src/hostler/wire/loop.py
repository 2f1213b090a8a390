"""Where the asyncio loop comes from, and the one place that crosses from Trio to asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import structlog
import trio_asyncio  # type: ignore[import-untyped]  # (it has no annotations)

from .._concurrency.nurseries import as_it_is

log = structlog.get_logger(__name__)

Loop: TypeAlias = asyncio.AbstractEventLoop
"""A trio-asyncio loop. Objects of ``wire`` hold theirs explicitly: a Trio task that was started
in a nursery opened outside of the loop does not find it by itself."""

_T = TypeVar("_T")


@asynccontextmanager
async def open_loop(loop: Loop | None = None) -> AsyncIterator[Loop]:
    """``loop`` if there is one, else the current trio-asyncio loop, else a loop of our own.

    Trio-flavoured. It goes outermost: everything that uses the loop must be closed before this
    block ends. Nested calls share one loop. Cancellation passes through.
    """
    current = loop or trio_asyncio.current_loop.get()
    if current is not None and not current.is_closed():
        yield current
        return
    async with as_it_is(trio_asyncio.open_loop) as own:
        own.set_exception_handler(_on_error)
        yield own


def _on_error(loop: Loop, context: dict[str, Any]) -> None:
    """Errors in callbacks end the loop, as without a handler, but for one of asyncio's own.

    If a protocol writes while it is told that its transport takes more, and that write fails, the
    transport loses the connection twice, and the second time fails for want of its socket
    (CPython 3.11 to 3.14). Ours does not write there; that of asyncio's TLS does.
    """
    error = context.get("exception")
    if (
        isinstance(error, AttributeError)
        and (error.obj, error.name) == (None, "close")
        and "_call_connection_lost" in context["message"]
    ):
        log.debug("connection lost twice", error=str(error))
    else:
        loop.default_exception_handler(context)


async def run_asyncio(loop: Loop, function: Callable[[], Awaitable[_T]]) -> _T:
    """Run an asyncio-flavoured function from Trio.

    Trio-flavoured: cancelling it cancels the asyncio task and waits for its end. A cancellation
    that no Trio scope asked for is a `ConnectionError`: asyncio's own is a BaseException, which
    Trio code has no reason to expect.
    """
    try:
        result: _T = await trio_asyncio.aio_as_trio(function, loop=loop)()
    except asyncio.CancelledError as error:
        raise ConnectionError("the connection was given up") from error
    return result
