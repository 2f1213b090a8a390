"""Keeps an eye on one runner: listens to what it says of itself, and tries to reach it again."""

from __future__ import annotations

import random

import trio

from ..abc import Runner
from ..config import PoolConfig
from ..errors import HostlerError
from ..protocol import UNAVAILABLE_STATUS, EngagementFailed
from ._health import HealthBoard

GROWTH = 1.6
"""Each pause is that much longer than the one before, as in gRPC's own backoff."""
FIRST_PAUSE = 0.1
"""Of the probe interval. Whole intervals later would find a runner that was only restarted late."""
JITTER = (0.8, 1.2)
"""So that not all LBs of a fleet knock at the same moment."""


class RunnerWatch:
    """One task's work, for as long as the runner is a member of its pool."""

    def __init__(
        self, runner: Runner, board: HealthBoard, config: PoolConfig, rng: random.Random
    ) -> None:
        self._runner = runner
        self._board = board
        self._config = config
        self._rng = rng
        self._pause = 0.0
        self._ejected = trio.Event()
        self._rest()

    def note_ejection(self) -> None:
        """The board has ejected the runner because it can't be reached: start to probe."""
        self._ejected.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if self._config.health_watch:
                await self._listen()
            self._board.fell_silent(self._runner, trio.current_time())
            await self._ejected.wait()
            self._ejected = trio.Event()
            await self._probe()

    async def _listen(self) -> None:
        """Returns if the runner can't tell how it is."""
        while True:
            try:
                await self._runner.watch_health(self._told)
            except HostlerError as error:
                if isinstance(error, EngagementFailed) and error.status != UNAVAILABLE_STATUS:
                    return
                self._board.failed(self._runner, trio.current_time(), _reason(error))
            else:
                return
            await self._wait()

    def _told(self, serving: bool) -> None:
        self._rest()
        self._board.says(self._runner, trio.current_time(), serving=serving)

    async def _probe(self) -> None:
        self._rest()
        while self._board.cause(self._runner) == "unreachable":
            try:
                await self._runner.status()
            except EngagementFailed as error:
                if error.status != UNAVAILABLE_STATUS:
                    self._board.reached(self._runner, trio.current_time())
            except HostlerError:
                pass
            else:
                self._board.reached(self._runner, trio.current_time())
            await self._wait()

    def _rest(self) -> None:
        self._pause = FIRST_PAUSE * self._config.probe_interval

    async def _wait(self) -> None:
        await trio.sleep(self._pause * self._rng.uniform(*JITTER))
        self._pause = min(self._pause * GROWTH, self._config.probe_interval)


def _reason(error: HostlerError) -> str:
    return error.text if isinstance(error, EngagementFailed) else str(error)
