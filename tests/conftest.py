"""What holds for every test: an error log that nobody expected fails the test, and where everything
is said to be there, so does skipping it."""

from __future__ import annotations

import functools
import inspect
import math
import os
import signal
import traceback
from collections.abc import Awaitable, Callable, Generator, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog
import trio
import trio.testing

from .support.folders import short_folder
from .support.plain import PLAIN, go_plain

# A background job of a script ignores it, and so would the nodes and clients that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARE = 0.8
"""Of the time limit that pytest has for a test: then it fails if it still waits. With pytest's own
the process and with it whatever else it was to run are lost, and nothing tells what was waited for.
Waits that may take long for a good reason have limits of their own, which say more."""

# How long an example takes says how busy the machine is, and must fail no test.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

# Where it is set, every process that a test starts would compile all of hostler.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


class Logs(list[MutableMapping[str, Any]]):
    """The captured log events of one test."""

    def expect_error(self, part: str) -> MutableMapping[str, Any]:
        """Take one error event whose text contains ``part``; fail if there is none."""
        for entry in self.errors():
            if part in str(entry["event"]):
                self.remove(entry)
                return entry
        raise AssertionError(f"no error log with {part!r} among {list(self)}")

    def errors(self) -> list[MutableMapping[str, Any]]:
        return [entry for entry in self if entry["log_level"] in ("error", "critical")]

    def with_event(self, part: str) -> list[MutableMapping[str, Any]]:
        return [entry for entry in self if part in str(entry["event"])]


@pytest.fixture(autouse=True)
def logs() -> Iterator[Logs]:
    """Captured logs; what is left of errors at the end fails the test."""
    captured = Logs()

    def capture(
        logger: object, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        event["log_level"] = method
        if event.get("exc_info"):
            event["exception"] = traceback.format_exc()
        captured.append(event)
        raise structlog.DropEvent

    structlog.configure(processors=[capture], cache_logger_on_first_use=False)
    try:
        yield captured
    finally:
        structlog.reset_defaults()
    assert not captured.errors(), f"unexpected error logs: {captured.errors()}"


@pytest.fixture(autouse=PLAIN)
def plain() -> Iterator[None]:
    """The test runs without fast ways. All do where ``HOSTLER_TEST_PLAIN`` is set."""
    with pytest.MonkeyPatch.context() as patch:
        go_plain(patch.setattr)
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if PLAIN:
        fast = [item for item in items if item.get_closest_marker("fast")]
        config.hook.pytest_deselected(items=fast)
        items[:] = [item for item in items if item not in set(fast)]


@pytest.hookimpl(trylast=True)  # after that of the terminal
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:  # a worker of xdist has none
        config.pluginmanager.register(_Failures(terminal))


class _Failures:
    """Names each failure at once: a run that is cut off does not get to its summary."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.write_line(f"\nFAILED {report.nodeid} ({report.when})", red=True)
            self._terminal.write_line(str(getattr(report.longrepr, "reprcrash", report.longrepr)))
            self._terminal.flush()


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before pytest-trio makes it a plain function
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        limit = item.config.getoption("timeout")
        if marker := item.get_closest_marker("timeout"):
            limit = marker.args[0]
        elif limit is None:
            limit = item.config.getini("timeout")
        item.obj = _limited(item.obj, SHARE * float(limit) or math.inf)
    return (yield)


def _limited(
    test: Callable[..., Awaitable[None]], seconds: float
) -> Callable[..., Awaitable[None]]:
    """The test, which fails and tells where it waits once its time on the real clock is over."""

    @functools.wraps(test)
    async def limited(**arguments: Any) -> None:
        if isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock):
            return await test(**arguments)
        where = ""
        with trio.move_on_after(seconds):
            try:
                return await test(**arguments)
            except BaseException:
                where = traceback.format_exc()
                raise
        pytest.fail(f"it has waited for {seconds:g} s:\n{where}", pytrace=False)

    return limited


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Root has no reason to skip a test if all programs are there, as scripts/test sees to."""
    report = yield
    if (
        report.skipped
        and not hasattr(report, "wasxfail")
        and os.environ.get("HOSTLER_TEST_DOCKER") == "required"
        and os.geteuid() == 0
    ):
        report.outcome, report.longrepr = "failed", f"may not be skipped: {report.longrepr}"
    return report


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Pytest's are long, and longer after a hundred runs: too long for some sockets."""
    with short_folder(strict=False) as path:
        yield path


@pytest.fixture(autouse=True)
def _patience(request: pytest.FixtureRequest) -> None:
    """With a real engine: one that has much to do may need more than the few seconds that some
    of its calls get."""
    if request.node.get_closest_marker("docker"):
        from hostler.drivers.docker import LIMITS

        patch = request.getfixturevalue("monkeypatch")
        for operation, seconds in LIMITS.items():
            patch.setitem(LIMITS, operation, max(seconds, 60))
        # For the last output of a container, and the removal of all.
        patch.setattr("hostler._concurrency.drain.REMOVAL", 60)
        patch.setattr("hostler.drivers.docker.running.OUTPUT_GRACE", 60)


@pytest.fixture(scope="session")
def docker_host() -> str:
    """The address of a real engine: DOCKER_HOST or the default socket."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    path = host.removeprefix("unix://")
    if host.startswith("unix://") and not os.path.exists(path):
        pytest.skip(f"no Docker engine at {host}; scripts/test starts one")
    return host
