"""Recent calls and rates: a listener, bounded in memory."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from itertools import islice

import attrs
import msgspec

from .._concurrency.nurseries import is_cancellation
from .._stats import LRUDict
from ..abc import CallListener
from ..calls import PendingCall, Timings
from ..errors import ServerBusy, public_error
from .documents import CallRow, Outcome, Stages
from .seconds import CountedSecond, SecondBuckets

RECENT_CALLS = 100
"""Calls that are kept with their timelines."""

MAX_FUNCTIONS = 1000
"""Functions with figures of their own. The function that was called longest ago is forgotten."""

MAX_RUNNERS = 1000

_FN_SAMPLES = 64
"""Latest call durations of a function from which its median is computed."""

_MAX_MESSAGE = 300


class _Ended(msgspec.Struct, frozen=True, gc=False):
    """What the node keeps of a call: nothing that the client sent, and no configuration."""

    seq: int
    id: str
    fn_id: str
    at: float
    duration_ns: int
    outcome: Outcome
    message: str
    timings: Timings
    detached: bool
    runner: str
    attempts: int


@attrs.define(eq=False)
class FnActivity:
    """One function, as its calls have shown it."""

    app: str = ""
    name: str = ""
    image: str = ""
    calls: int = 0
    failed: int = 0
    last: float | None = None
    samples: deque[int] = attrs.Factory(lambda: deque(maxlen=_FN_SAMPLES))


class Activity(CallListener):
    """The last calls, their rate and latency for some minutes, and figures of each function.

    It costs a call a few microseconds, and its memory is bounded. ``only_begun`` leaves out calls
    that never began: a runner's refusal is no failure, because the load balancer tries another
    runner.
    """

    def __init__(self, *, only_begun: bool = False) -> None:
        self._only_begun = only_begun
        self._seconds = SecondBuckets()
        self._recent: deque[_Ended] = deque(maxlen=RECENT_CALLS)
        self._functions = LRUDict[str, FnActivity](MAX_FUNCTIONS)
        self._runners: Counter[str] = Counter()
        self.calls = 0
        self.failed = 0

    def note_end(self, call: PendingCall, error: BaseException | None, *, began: bool) -> None:
        if self._only_begun and not began:
            return
        model, wall = call.model, time.time()
        duration_ns = time.monotonic_ns() - call.created_ns
        outcome = _outcome(call, error)
        failed = outcome != "success"
        message = public_error(error).message if isinstance(error, Exception) else ""
        self.calls += 1
        self.failed += failed
        self._seconds.add(int(wall), duration_ns, failed=failed)
        function = self._function(model.fn_id)
        function.calls += 1
        function.failed += failed
        function.last = wall
        function.samples.append(duration_ns)
        function.app = model.app_name or function.app
        function.name = call.fn_name or function.name
        function.image = model.image
        runner = call.runner_address
        if runner and (runner in self._runners or len(self._runners) < MAX_RUNNERS):
            self._runners[runner] += 1
        self._recent.append(
            _Ended(
                self.calls,
                model.id,
                model.fn_id,
                wall,
                duration_ns,
                outcome,
                message[:_MAX_MESSAGE],
                call.timings,
                model.type == "detached",
                runner,
                call.attempts,
            )
        )

    def seconds_since(self, after: int, now: float) -> list[CountedSecond]:
        """The seconds after second ``after`` that are over at ``now``."""
        return self._seconds.since(after, int(now))

    def recent_since(self, seq: int) -> list[CallRow]:
        """The calls after number ``seq``, the newest last."""
        count = max(0, min(len(self._recent), self.calls - seq))
        return [self._row(ended) for ended in islice(reversed(self._recent), count)][::-1]

    def functions(self) -> Iterator[tuple[str, FnActivity]]:
        """Ids and functions; the function that was called last comes first."""
        return iter(reversed(self._functions.items()))

    def calls_of_runner(self, address: str) -> int:
        """Number of calls that ended at the runner since the start. 0 for an unknown address, and
        for runners after the first `MAX_RUNNERS`."""
        return self._runners[address]

    def _function(self, fn_id: str) -> FnActivity:
        function = self._functions.get(fn_id)
        if function is None:
            function = self._functions[fn_id] = FnActivity()
        else:
            self._functions.move_to_end(fn_id)
        return function

    def _row(self, ended: _Ended) -> CallRow:
        function = self._functions.get(ended.fn_id)
        return CallRow(
            seq=ended.seq,
            id=ended.id,
            fn_id=ended.fn_id,
            app=function.app if function else "",
            fn=function.name if function else "",
            at=ended.at,
            ms=_ms(ended.duration_ns),
            outcome=ended.outcome,
            message=ended.message,
            stages=_stages(ended),
            detached=ended.detached,
            runner=ended.runner,
            attempts=ended.attempts,
        )


def _outcome(call: PendingCall, error: BaseException | None) -> Outcome:
    if error is None:
        return "success"
    if call.model.status == "timeout":
        return "timeout"
    if isinstance(error, ServerBusy):
        return "refused"
    return "cancelled" if is_cancellation(error) else "error"


def _stages(ended: _Ended) -> Stages:
    """A launch may have begun before this call, or for another call. Its time counts only as far as
    this call waited for it."""
    timings = ended.timings
    left = ended.duration_ns - timings.execution_ns
    waited = left = max(0, left)
    if timings.scheduler_ns:
        waited = min(left, timings.scheduler_ns)
    spent: list[int] = []
    for stage in (
        timings.init_start_ns,
        timings.ctr_prep_ns + timings.ctr_create_ns,
        timings.image_pull_wait_ns,
    ):
        spent.append(min(waited, stage))
        waited -= spent[-1]
    queue = waited if timings.scheduler_ns else 0
    init, create, pull = spent
    execution = min(ended.duration_ns, timings.execution_ns)
    return Stages(
        queue=_ms(queue),
        pull=_ms(pull),
        create=_ms(create),
        init=_ms(init),
        execution=_ms(execution),
        transit=_ms(max(0, left - queue - sum(spent))),
    )


def _ms(duration_ns: int) -> float:
    return round(duration_ns / 1e6, 3)
