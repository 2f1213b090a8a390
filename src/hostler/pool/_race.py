"""A call that asks two runners for a slot, and is committed to one of them at most."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from ..abc import NotPlaced, Outcome, Runner

Claim = Callable[[], bool]
Contend = Callable[[Runner, Claim], Awaitable[Outcome]]
"""Reserve a slot at a runner, and commit the call to it if the claim says so. Without the claim
it ends with `NotPlaced`."""


class Race:
    """One call's race. The first runner that holds a slot gets the call.

    The claim is the one place that decides: it is synchronous, true for one contender at most,
    and cancels the others, whose slots are given back. Whatever becomes of the winner then, no
    other contender is left that could run the call as well.
    """

    def __init__(self, contend: Contend) -> None:
        self._contend = contend
        self._winner: trio.CancelScope | None = None
        self._running: set[trio.CancelScope] = set()
        self._won: Outcome | None = None
        self._lost: list[NotPlaced] = []
        self._trouble: Exception | None = None

    async def run(
        self, first: Runner, delay: float, second: Callable[[], Runner | None]
    ) -> Outcome:
        """Ask ``first``, and after ``delay`` seconds what ``second`` returns as well, if that is
        a runner. It is not asked for once the first has claimed, or has refused.

        Without a winner the outcome is the refusal that says when to come back soonest.
        """
        async with trio.open_nursery() as nursery:

            async def hedge() -> None:
                await trio.sleep(delay)
                if self._winner is None and (runner := second()) is not None:
                    await self._run(runner, nursery.cancel_scope)

            nursery.start_soon(hedge)
            await self._run(first, nursery.cancel_scope)
        if self._trouble is not None:
            raise self._trouble
        return self._won or min(self._lost, key=lambda outcome: outcome.retry_after or 0.0)

    async def _run(self, runner: Runner, all_of_it: trio.CancelScope) -> None:
        """One contender. When it was the last, the race is over."""
        outcome: Outcome | None = None
        with trio.CancelScope() as scope:
            self._running.add(scope)
            try:
                outcome = await self._contend(runner, lambda: self._claim(scope))
            except Exception as error:  # noqa: BLE001  (raised by `run`, not in a group)
                self._trouble = error
                all_of_it.cancel()
            finally:
                self._running.discard(scope)
        if self._winner is scope:
            self._won = outcome
        elif isinstance(outcome, NotPlaced):
            self._lost.append(outcome)
        if not self._running:
            all_of_it.cancel()

    def _claim(self, contender: trio.CancelScope) -> bool:
        if self._winner is None:
            self._winner = contender
            for other in self._running - {contender}:
                other.cancel()
        return self._winner is contender
