"""Two runners that stand still for some seconds under the load of load balancers as Fn's.

Ideal: all calls are served, and as soon as the runners go on those that come are served as before.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import tempfile
from collections.abc import Mapping, Sequence

import trio

from hostler._call_document import encode_call
from hostler.models import Call
from hostler.protocol import Data, TryCall
from hostler.wire.codec import messages as codec
from tests.support.fn_placer import FnPlacer, Outcome, open_fn_placer

from .._measure import Metrics, RunFailed
from .._scenario import Scenario, Settings
from .._target import Starter, Target, image_for
from .._usage import usage_of

MIB = 2**20
PLACES, BALANCERS = 12, 2
RATE, BEFORE, STOPPED, AFTER = 200.0, 4.0, 6.0, 15.0
"""Calls a second, and seconds."""
SOON = 0.25
"""Seconds within which a call is answered while nothing is wrong."""
LIMIT = 120.0
ENV: Mapping[str, str] = {"FN_MAX_TOTAL_MEMORY_BYTES": str(PLACES * 128 * MIB)}
MODES: Mapping[str, Mapping[str, str]] = {
    "wait": {},
    "refused": {"FN_ENABLE_NB_RESOURCE_TRACKER": "true"},
}


def _measure(target: Target, settings: Settings, *, mode: str) -> Metrics:
    with tempfile.TemporaryDirectory(prefix="bench.") as folder, contextlib.ExitStack() as stack:
        start = Starter(folder, {**ENV, **MODES[mode]}, stack)
        nodes = [
            start("runner", "--bind", "127.0.0.1:0", "--driver", settings.driver) for _ in range(2)
        ]
        pids = [pid for pid, _ in nodes]
        addresses = [str(told["grpc"]) for _, told in nodes]
        return trio.run(_run, addresses, pids, image_for(settings.driver))


async def _run(addresses: Sequence[str], pids: Sequence[int], image: str) -> Metrics:
    call = Call(
        id="storm",
        image=image,
        app_id="app",
        fn_id="storm",
        type="sync",
        timeout=30,
        idle_timeout=30,
        memory=128,
        method="POST",
        url="http://localhost/",
        headers={"Fnt-Do": ["sleep=20"]},
    )
    messages = (
        codec.encode_client(TryCall(encode_call(call))),
        codec.encode_client(Data(b"", eof=True)),
    )
    outcomes: list[Outcome] = []

    async def place(placer: FnPlacer) -> None:
        outcomes.append(await placer.place(*messages))

    with trio.fail_after(LIMIT):
        async with contextlib.AsyncExitStack() as stack:
            placers = [
                await stack.enter_async_context(open_fn_placer(addresses)) for _ in range(BALANCERS)
            ]
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_stop_and_go_on, pids)
                for number in range(round(RATE * (BEFORE + STOPPED + AFTER))):
                    await trio.sleep_until(began + number / RATE)
                    nursery.start_soon(place, placers[number % BALANCERS])
    failed = [outcome for outcome in outcomes if outcome.code != 200]
    if len(outcomes) == len(failed):
        raise RunFailed("no call was served")
    went_on = began + BEFORE + STOPPED
    late = [o.began for o in outcomes if o.seconds > SOON and o.began >= went_on]
    return {
        "calls": len(outcomes),
        "failed": len(failed),
        "recovered_s": max(late, default=went_on) - went_on,
        "oldest_answered_s": max(o.ended for o in outcomes if o.began < went_on) - went_on,
        "refusals": sum(outcome.refused for outcome in outcomes),
        "cpu_s/runner": usage_of(list(pids)).cpu_us / 1e6,
    }


async def _stop_and_go_on(pids: Sequence[int]) -> None:
    await trio.sleep(BEFORE)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        await trio.sleep(STOPPED)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


SCENARIOS = tuple(
    Scenario(
        name=f"storm-{mode}",
        about=f"two runners stop for {STOPPED:.0f} s; the calls of Fn's placers are to {doing}",
        measure=functools.partial(_measure, mode=mode),
        target="none",
    )
    for mode, doing in (("wait", "wait"), ("refused", "be refused"))
)
