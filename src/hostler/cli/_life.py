"""The life of a node's process: signals, readiness, exit code."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog
import trio
from prometheus_client import REGISTRY

from ..config import NodeConfig
from ..errors import ConfigError
from ..logs import LogWriter, open_logs
from ..metrics import LogMetrics
from ..nodes.lifetime import AT_ONCE, Life
from ._errors import explanation, tell
from ._misspelt import warn_of_misspelt
from ._open_files import raise_open_files
from ._processes import watch_processes

log = structlog.get_logger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)

IMPATIENT_AFTER = 1.0
"""Seconds after the first signal in which another one is the same wish: GNU ``timeout`` tells the
process, and then its group, and so do Ctrl-C and a supervisor together."""


Node = Callable[[Life], Awaitable[None]]
"""Runs a node until ``life.shutdown`` is set and it has drained."""


def run_node(
    make: Callable[[], tuple[NodeConfig, Node]],
    ready_fd: int | None = None,
    orders: int | None = None,
) -> int:
    """Run a node in a Trio loop of its own and return the process's exit code.

    ``make`` reads the settings; ``orders`` is the pipe of a worker. 0 after a drain, 1 for a
    failure (told in one line), 128 + the signal's number if a second signal, `IMPATIENT_AFTER` the
    first, cut the drain short.
    """
    try:
        if ready_fd is not None:
            check_fd(ready_fd)
        config, node = make()
        with open_logs(config) as log_writer, _shown(log_writer):
            raise_open_files()
            watch_processes(config.process_collector_list, REGISTRY)
            warn_of_misspelt(os.environ)
            return trio.run(_live, node, ready_fd, orders, strict_exception_groups=True)
    except KeyboardInterrupt:  # before the signals were ours
        return 128 + signal.SIGINT
    except Exception as error:
        text = explanation(error)
        if text is None:
            raise
        tell(text)
        return 1


@contextmanager
def _shown(log_writer: LogWriter) -> Iterator[None]:
    """Among the process's metrics."""
    metrics = LogMetrics(REGISTRY, lambda: log_writer.dropped)
    try:
        yield
    finally:
        REGISTRY.unregister(metrics)


def check_fd(number: int) -> None:
    """Raises `ConfigError` if the descriptor is not open."""
    try:
        os.fstat(number)
    except OSError as error:
        raise ConfigError(f"--ready-fd {number}: {error.strerror}") from error


async def _live(node: Node, ready_fd: int | None, orders: int | None) -> int:
    life = Life(ready_fd=ready_fd)
    code = 0
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with trio.open_nursery() as nursery:

            def drain(cause: str) -> None:
                if not life.shutdown.is_set():
                    log.info("shutting down", signal=cause)
                    life.shutdown.set()

            def end(cause: str, number: int) -> None:
                nonlocal code
                log.warning("stopping at once", signal=cause)
                code = 128 + number
                nursery.cancel_scope.cancel()

            async def watch() -> None:
                patient_until = 0.0
                async for number in signals:
                    name = signal.Signals(number).name
                    if not life.shutdown.is_set():
                        patient_until = trio.current_time() + IMPATIENT_AFTER
                        drain(name)
                    elif orders is None and trio.current_time() >= patient_until:
                        end(name, number)
                        return

            async def obey(pipe: int) -> None:
                async with trio.lowlevel.FdStream(pipe) as stream:
                    while given := await stream.receive_some():
                        drain("supervisor")
                        if AT_ONCE in given:
                            end("supervisor", signal.SIGTERM)
                drain("supervisor has ended")

            nursery.start_soon(watch)
            if orders is not None:
                nursery.start_soon(obey, orders)
            await node(life)
            nursery.cancel_scope.cancel()
    log.info("stopped", exit_code=code)
    return code
