"""What nurseries do to exceptions: `is_cancellation`, `is_timeout`, and nurseries behind an
``open_x()`` block that the block's user need not know of.

An exception that leaves the body of a nursery arrives in an `ExceptionGroup`, which is right where
tasks are the point, and a nuisance for a program that nests six ``open_x()`` blocks and wants to
catch its own exception around them. Here the block's exception leaves as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import trio

_T = TypeVar("_T")


def is_cancellation(error: BaseException) -> bool:
    """Whether ``error`` is a cancellation and nothing else: `trio.Cancelled`, or a group of only
    those, which is what leaves a cancelled nursery."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_cancellation, error.exceptions))
    return isinstance(error, trio.Cancelled)


def is_timeout(error: BaseException) -> bool:
    """Whether ``error`` is a cancellation by a deadline, and nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_timeout, error.exceptions))
    return isinstance(error, trio.Cancelled) and error.source == "deadline"


@asynccontextmanager
async def open_background() -> AsyncIterator[trio.Nursery]:
    """A nursery for tasks that serve the block.

    The regular end of the block waits for the tasks, as with any nursery. An exception of the
    block, or a cancellation, cancels them. If tasks failed, the group of their exceptions leaves,
    with the block's own among them if there is one.
    """
    async with as_it_is(trio.open_nursery) as nursery:
        try:
            yield nursery
        except BaseException:
            nursery.cancel_scope.cancel()
            raise


@asynccontextmanager
async def open_sheltered() -> AsyncIterator[trio.Nursery]:
    """A nursery for tasks that the block needs until its very end, also to close.

    A cancellation from around the block reaches the block only; the tasks run on until it has
    ended, in whatever way, and are cancelled then. So what closes in a shielded scope finds them
    alive, and has to have a deadline. If a task fails, the block is cancelled, and the group of
    the tasks' exceptions leaves, in the one that `open_background` would let out.
    """
    shelter = _Shelter()
    async with as_it_is(trio.open_nursery) as around:
        around.start_soon(shelter.run)
        # Not by `Nursery.start`, which in a cancelled program leaves the task where it would wait
        # for it. One turn of the scheduler.
        with trio.CancelScope(shield=True):
            await shelter.opened.wait()
        try:
            yield shelter.nursery
        finally:
            shelter.nursery.cancel_scope.cancel()


class _Shelter:
    nursery: trio.Nursery

    def __init__(self) -> None:
        self.opened = trio.Event()

    async def run(self) -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as self.nursery:
                self.opened.set()
                await trio.sleep_forever()


@asynccontextmanager
async def as_it_is(
    opener: Callable[[], AbstractAsyncContextManager[_T]],
) -> AsyncIterator[_T]:
    """Enter what ``opener`` returns. An exception of the block is raised after its exit, which
    sees a regular end: the block has to cancel what that would wait for."""
    failure: Exception | None = None
    try:
        async with opener() as value:
            try:
                yield value
            except Exception as error:  # noqa: BLE001  (raised below)
                # Not a cancellation, which may be that of a scope inside of what was opened.
                failure = error
    except BaseExceptionGroup as group:
        if failure is None:
            raise
        raise BaseExceptionGroup(group.message, [failure, *group.exceptions]) from None
    if failure is not None:
        raise failure
