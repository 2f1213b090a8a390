"""One run: the load generator against a target, and what it cost."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import IO

import attrs
import msgspec

from ._plan import BEGIN, END, LoadPlan, LoadResult
from ._target import Target
from ._usage import Usage, machine_cpu_us, usage_of

Metrics = dict[str, float]
"""By name. Less is better, but for those of `benchmarks._report.MORE_IS_BETTER`."""


class RunFailed(Exception):
    """A run with wrong answers measures nothing."""


def measure_load(target: Target, plan: LoadPlan) -> Metrics:
    """Raises `RunFailed` if the generator fails or any answer is wrong."""
    command = [sys.executable, "-m", f"{__package__}.load"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdin
            assert process.stdout
            process.stdin.write(msgspec.json.encode(plan) + b"\n")
            process.stdin.flush()
            before = _at(process.stdout, BEGIN, target)
            after = _at(process.stdout, END, target)
            result = msgspec.json.decode(process.stdout.readline(), type=LoadResult)
        finally:
            process.kill()
    if result.errors or not result.requests:
        raise RunFailed(
            f"{result.errors} errors in {result.requests} requests: "
            f"{result.first_error or 'no request was answered'}"
        )
    return _metrics(result, before, after)


@attrs.frozen
class _Accounts:
    """The clocks at one moment."""

    groups: dict[str, Usage]
    machine_us: float
    seconds: float
    """By this process's clock: on a busy machine they are read later than the load began."""


def _at(output: IO[bytes], mark: bytes, target: Target) -> _Accounts:
    line = output.readline()
    if line != mark:
        raise RunFailed(f"the load generator ended early (said {line!r})")
    groups = {name: usage_of(pids) for name, pids in target.processes().items()}
    return _Accounts(groups, machine_cpu_us(), time.perf_counter())


def _metrics(result: LoadResult, before: _Accounts, after: _Accounts) -> Metrics:
    metrics = {
        "requests_per_s": result.requests / result.seconds,
        "latency_p50_us": result.p50_us,
        "latency_p90_us": result.p90_us,
        "latency_p99_us": result.p99_us,
        "latency_max_us": result.max_us,
        "cpu_us_per_request/load": result.cpu_us / result.requests,
    }
    if result.reconnects:
        metrics["reconnects"] = result.reconnects
    others = after.machine_us - before.machine_us - result.cpu_us
    for name, usage in after.groups.items():
        cpu = usage.cpu_us - before.groups[name].cpu_us
        others -= cpu
        metrics[f"cpu_us_per_request/{name}"] = cpu / result.requests
    for name, usage in after.groups.items():
        metrics[f"resident_mb/{name}"] = usage.resident_mb
    metrics["cpus_of_others"] = max(0.0, others / 1e6 / (after.seconds - before.seconds))
    return metrics
