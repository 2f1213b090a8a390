"""Listens to what one runner tells of its load."""

from __future__ import annotations

import random
from collections.abc import Callable

import trio

from ..abc import Runner
from ..config import PoolConfig
from ..errors import HostlerError
from ..protocol import UNAVAILABLE_STATUS, EngagementFailed, LoadHint
from ._watch import FIRST_PAUSE, GROWTH, JITTER


class LoadWatch:
    """One task's work, for as long as the runner is a member of its pool.

    ``tell`` gets each hint, and ``None`` when the runner can't be heard any more.
    """

    def __init__(
        self,
        runner: Runner,
        tell: Callable[[LoadHint | None], None],
        config: PoolConfig,
        rng: random.Random,
    ) -> None:
        self._runner = runner
        self._tell = tell
        self._interval = config.probe_interval
        self._rng = rng
        self._pause = FIRST_PAUSE * self._interval

    async def run(self) -> None:
        """Until cancelled. Returns if the runner can't tell, as Fn's can't."""
        while await self._listen():
            await trio.sleep(self._pause * self._rng.uniform(*JITTER))
            self._pause = min(self._pause * GROWTH, self._interval)

    async def _listen(self) -> bool:
        """Whether to try again."""
        try:
            await self._runner.watch_load(self._told)
        except EngagementFailed as error:
            return error.status == UNAVAILABLE_STATUS
        except HostlerError:  # it can't be reached, or is about to leave the pool
            return True
        finally:
            self._tell(None)
        return False

    def _told(self, hint: LoadHint) -> None:
        self._pause = FIRST_PAUSE * self._interval
        self._tell(hint)
