"""A runner that is killed under load while another one is there.

Calls that it had begun fail: nobody knows what they have done. What counts is that no other call
does, and how long those wait that come then.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable

from .._kills import EngineKiller
from .._measure import Metrics, RunFailed
from .._scenario import Scenario, Settings
from .._target import Target, open_hostler
from .._usage import usage_of
from ..load import post
from ..open_loop import OpenPlan, run_open_loop

RATE, SECONDS, PATIENCE = 40.0, 8.0, 10.0
KILL_AT = 3.0
"""Seconds after the first client."""
FUNCTIONS = {"work": {"memory": 32, "idle_timeout": 300}}
DO = {"Fnt-Do": "sleep=50"}


def _measure(target: Target, settings: Settings) -> Metrics:
    tag = f"bench-kill-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="bench.") as folder:
        os.chmod(folder, 0o755)
        env = {"FN_CONTAINER_LABEL_TAG": tag, "FN_IOFS_PATH": folder}
        try:
            with open_hostler(FUNCTIONS, settings.driver, env, runners=2) as nodes:
                return _run(nodes)
        finally:
            if settings.driver == "docker":
                _remove_leaked(tag)


def _remove_leaked(tag: str) -> None:
    """What the killed runner left to its next start, which does not come."""
    killer = EngineKiller(tag)
    killer.remove_all()
    killer.close()


def _run(nodes: Target) -> Metrics:
    answer = post(nodes.address, nodes.paths["work"], headers=DO)
    if answer.status != 200:
        raise RunFailed(f"status {answer.status}: {answer.body[:200]!r}")
    timer = threading.Timer(KILL_AT, _killing(nodes.processes()["runner"]))
    timer.start()
    result = run_open_loop(
        OpenPlan(
            address=nodes.address,
            path=nodes.paths["work"],
            rate=RATE,
            seconds=SECONDS,
            patience=PATIENCE,
            headers=DO,
        )
    )
    timer.join()
    if result.broken:
        raise RunFailed(f"{len(result.broken)} clients had no answer: {result.broken[0]}")
    served = result.answered.get(200, [])
    return {
        "served": len(served),
        "failed": len(result.failed_at) + result.left,
        "failed_last_came_ms_after_kill": 1e3 * (max(result.failed_at, default=KILL_AT) - KILL_AT),
        "latency_max_ms": max(served) * 1e3,
    }


def _killing(runners: list[int]) -> Callable[[], None]:
    before = {pid: usage_of([pid]).cpu_us for pid in runners}

    def kill() -> None:
        busiest = max(runners, key=lambda pid: usage_of([pid]).cpu_us - before[pid])
        os.kill(busiest, signal.SIGKILL)

    return kill


SCENARIOS = (
    Scenario(
        name="runner-kill",
        about="40 calls/s of 50 ms, two runners, the busy one is killed after 3 of 8 s",
        measure=_measure,
        target="none",
    ),
)
