"""A pool whose runners come and go while it is in use."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import attrs
import structlog
import trio

from ..abc import LoadListener, Runner, RunnerCall, RunnerPool
from ..config import PoolConfig
from ._health import Change, HealthBoard
from ._judged import JudgedRunner
from ._load_news import LoadNews
from ._load_watch import LoadWatch
from ._metrics import PoolMetrics
from ._static import close_runner
from ._watch import RunnerWatch

log = structlog.get_logger(__name__)

MakeRunner = Callable[[str, str], Runner]
"""A runner of (address, name that its certificate must have, "" = its host)."""


@attrs.frozen(kw_only=True)
class DynamicPoolStatistics:
    """How many runners a pool offers, has ejected for now, and lets finish."""

    runners: int
    ejected: int
    leaving: int


RunnerState = Literal["in use", "ejected", "refuses", "returning"]


@attrs.frozen(kw_only=True)
class RunnerHealth:
    """How a pool judges one of its runners."""

    address: str
    state: RunnerState
    """``refuses``: by its own word; ``returning``: is back, and gets ``share`` of its calls."""
    cause: str
    """Why it is ejected, else ""."""
    share: float


@attrs.define(eq=False)
class _Member:
    runner: JudgedRunner
    name: str
    watch: RunnerWatch
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    """Of the task that watches the runner."""


class DynamicPool(RunnerPool):
    """Made by `open_dynamic_pool`.

    Runners that should get no calls for now are left out of what it offers, see
    `hostler.pool._health`; if all of them are, it offers what there is.
    """

    def __init__(
        self,
        make: MakeRunner,
        nursery: trio.Nursery,
        config: PoolConfig,
        *,
        metrics: PoolMetrics,
        rng: random.Random,
    ) -> None:
        self._make = make
        self._nursery = nursery
        self._config = config
        self._metrics = metrics
        self._rng = rng
        self._board = HealthBoard(config, self._changed)
        self._members: dict[str, _Member] = {}
        self._offer: tuple[JudgedRunner, ...] = ()
        self._leaving: set[trio.CancelScope] = set()
        self._all_gone = trio.Event()
        self._ejected = 0
        self._closed = False
        self._news = LoadNews(self)
        self.on_unreachable: Callable[[], None] = lambda: None
        """Called when a runner was ejected because it can't be reached. It may have moved."""

    def __repr__(self) -> str:
        return f"<DynamicPool {'closed' if self._closed else 'open'} {self.statistics()}>"

    def statistics(self) -> DynamicPoolStatistics:
        return DynamicPoolStatistics(
            runners=len(self._members), ejected=self._board.ejected, leaving=len(self._leaving)
        )

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of the present runners."""
        return tuple(self._members)

    def health(self) -> list[RunnerHealth]:
        """Of the present runners."""
        return [self._health(member.runner) for member in self._members.values()]

    def _health(self, runner: JudgedRunner) -> RunnerHealth:
        share = self._board.share(runner, trio.current_time())  # first: it ends what is over
        cause = self._board.cause(runner) or ""
        state: RunnerState
        if cause:
            state = "ejected"
        elif self._board.refuses(runner):
            state = "refuses"
        else:
            state = "in use" if share >= 1 else "returning"
        return RunnerHealth(address=runner.address, state=state, cause=cause, share=share)

    def update(self, addresses: Iterable[str], *, cert_common_name: str = "") -> None:
        """The pool's runners are those at ``addresses`` (``host:port``) from now on.

        Synchronous. Those that stay keep their connections. Those that leave get no new calls and
        have ``leave_grace`` seconds to finish theirs. Raises `ConfigError` for a bad address, and
        changes nothing then. Does nothing once the pool is closed.
        """
        self.assign(dict.fromkeys(addresses, cert_common_name))

    def assign(self, names: Mapping[str, str]) -> None:
        """As `update`, of addresses with the name that the certificate of each must have."""
        if self._closed:
            return
        added = {
            address: self._make(address, name)
            for address, name in names.items()
            if address not in self._members or self._members[address].name != name
        }
        gone = [address for address in self._members if address not in names or address in added]
        for address in gone:
            self._leave(address)
        for address, runner in added.items():
            self._join(address, names[address], runner)
        self._members = {address: self._members[address] for address in names}
        self._offer = tuple(member.runner for member in self._members.values())
        if added or gone:
            log.info("runners changed", joined=list(added), left=gone, runners=len(names))

    def _join(self, address: str, name: str, runner: Runner) -> None:
        judged = JudgedRunner(runner, self._board)
        watch = RunnerWatch(judged, self._board, self._config, self._rng)
        member = self._members[address] = _Member(judged, name, watch)
        self._board.join(judged)
        self._metrics.joined.inc()
        self._metrics.runners.inc()
        self._nursery.start_soon(self._watch, member)

    async def _watch(self, member: _Member) -> None:
        with member.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(member.watch.run)
                if self._config.load_watch:
                    tell = functools.partial(self._news.tell, member.runner)
                    load = LoadWatch(member.runner, tell, self._config, self._rng)
                    nursery.start_soon(load.run)

    def _leave(self, address: str) -> None:
        member = self._members.pop(address)
        member.scope.cancel()
        self._board.leave(member.runner)
        self._count_ejected()
        self._metrics.left.inc()
        self._metrics.runners.dec()
        scope = trio.CancelScope(deadline=trio.current_time() + self._config.leave_grace)
        self._leaving.add(scope)
        self._nursery.start_soon(self._see_off, member.runner, scope)

    async def _see_off(self, runner: Runner, scope: trio.CancelScope) -> None:
        self._metrics.leaving.inc()
        try:
            with scope:
                await close_runner(runner)
            if scope.cancelled_caught and not self._closed:
                log.warning("runner that left was cut off", runner=runner.address)
        finally:
            self._metrics.leaving.dec()
            self._leaving.discard(scope)
            if not self._leaving:
                self._all_gone.set()

    def add_load_listener(self, listener: LoadListener) -> None:
        self._news.add(listener)

    async def runners(self, call: RunnerCall) -> Sequence[Runner]:
        await trio.lowlevel.checkpoint()
        return self.runners_now(call)

    def runners_now(self, call: RunnerCall) -> Sequence[Runner]:
        if self._board.all_sound:
            return self._offer
        now = trio.current_time()
        # A call that was refused already, or waits, needs room wherever it is: nobody is spared
        # for it.
        least = 0.0 if call.attempts or call.waited else self._rng.random()
        chosen = [runner for runner in self._offer if self._board.share(runner, now) > least]
        return chosen or self._last_resort(now)

    def _last_resort(self, now: float) -> Sequence[Runner]:
        """Those that are just back before those that refuse or can't be reached."""
        back = [runner for runner in self._offer if self._board.share(runner, now)]
        return back or [r for r in self._offer if not self._board.refuses(r)] or self._offer

    def _changed(self, change: Change) -> None:
        runner = change.key
        assert isinstance(runner, JudgedRunner)
        details = {"runner": runner.address, "reason": change.reason}
        self._count_ejected()
        if change.kind == "ejected":
            assert change.cause is not None
            self._metrics.ejections[change.cause].inc()
            log.warning("runner ejected", cause=change.cause, **details)
            if change.cause == "unreachable":
                self._members[runner.address].watch.note_ejection()
                self.on_unreachable()
        elif change.kind == "refuses":
            self._metrics.refusals.inc()
            log.info("runner takes no calls", **details)
        else:
            self._metrics.returns.inc()
            log.info("runner is in use again", **details)

    def _count_ejected(self) -> None:
        self._metrics.ejected.value += self._board.ejected - self._ejected
        self._ejected = self._board.ejected

    async def aclose(self) -> None:
        self.update(())
        self._closed = True
        try:
            await self._wait_gone()
        finally:
            for scope in self._leaving:
                scope.cancel()
            # Shielded: the tasks that see runners off are cancelled, and closing is bounded then.
            with trio.CancelScope(shield=True):
                await self._wait_gone()

    async def _wait_gone(self) -> None:
        while self._leaving:
            await self._all_gone.wait()
            self._all_gone = trio.Event()
        await trio.lowlevel.checkpoint()
