"""The process of a node: signals, exit code, file limits, standard streams, pid 1, collector.

What process 1 of a container has to do beside its own work: reap what others leave behind.

A process whose parent has ended becomes a child of process 1, and a zombie when it ends, until it
is waited for. The node itself can't do that, for ``wait`` would take the ends of its own children
from those who wait for them. So process 1 starts the node as a child, and does nothing else
(https://github.com/krallin/tini is such a program).
"""

from __future__ import annotations

import math
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click
import structlog
import trio
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.process_collector import ProcessCollector

from ..config import setting_variables
from ..errors import ConfigError
from ..logs import LogWriter, open_logs
from ..metrics import LogMetrics
from ..nodes.lifetime import AT_ONCE, Node, NodeLifetime, settle_collector
from .errors import explanation, tell

if TYPE_CHECKING:
    from ..nodes.workers import Place

log = structlog.get_logger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)

IMPATIENT_AFTER = 1.0
"""Seconds after the first signal in which another one is the same wish: GNU ``timeout`` tells the
process, and then its group, and so do Ctrl-C and a supervisor together."""


def run_node(make: Callable[[], Node], ready_fd: int | None, place: Place | None = None) -> int:
    """Run a node in a Trio loop of its own and return the process's exit code.

    ``make`` reads the settings; ``place`` is that of a worker. 0 after a drain, 1 for a failure
    (told in one line), 128 + the signal's number if a second signal, `IMPATIENT_AFTER` the first,
    cut the drain short.
    """
    orders = None
    if place is not None:
        ready_fd, orders = place.ready, place.orders
    try:
        if ready_fd is not None:
            check_fd(ready_fd)
        node = make()
        config = node.settings.node
        with open_logs(config) as log_writer, _shown(log_writer):
            raise_open_files()
            watch_processes(config.process_collector_list, REGISTRY)
            warn_of_misspelt(os.environ, click.get_current_context().find_root().command)
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
    life = NodeLifetime(ready_fd=ready_fd, alone=True)
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
            async with node.open(life) as running:
                settle_collector()
                life.announce(running.line)
                await life.shutdown.wait()
            nursery.cancel_scope.cancel()
    log.info("stopped", exit_code=code)
    return code


ENOUGH = 1_048_576
"""Some systems have no hard limit at all, and what functions inherit should stay a number that
programs can loop over."""


def raise_open_files() -> int:
    """Make the process's soft limit the hard one, as Go's runtime does, and return it.

    The usual soft limit, 1024, is one for programs that use ``select``, not for servers.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:  # containers may forbid it
            log.warning("cannot raise the limit of open files", limit=soft, reason=str(error))
        else:
            return wanted
    return soft


_KEPT = {
    # Of the process's own faults and job control: not to be passed on.
    *(signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGTRAP),
    *(signal.SIGSYS, signal.SIGTTIN, signal.SIGTTOU),
}


def leave_process_1() -> None:
    """As process 1: go on in a child; the caller never returns here, but ends with the child.

    Signals are passed on to the child, its exit code becomes the process's own (128 + the
    signal's number if one has ended it). Any other process: nothing. Has to be called before
    there are threads.
    """
    if os.getpid() != 1:
        return
    signals = signal.valid_signals() - _KEPT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    if child:
        os._exit(_serve(child, signals))
    # With a group of its own, so that a terminal's Ctrl-C comes once, from us or from it.
    os.setpgid(0, 0)
    if sys.stdin is not None and sys.stdin.isatty():
        before_tty = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(sys.stdin.fileno(), os.getpid())
        signal.signal(signal.SIGTTOU, before_tty)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(child: int, signals: set[signal.Signals]) -> int:
    """Until ``child`` has ended. Returns the exit code."""
    while True:
        number = signal.sigwait(signals)
        if number != signal.SIGCHLD:
            os.kill(child, number)  # it is there, or a zombie: nobody else reaps it
            continue
        code = _reap(child)
        if code is not None:
            return code


def _reap(child: int) -> int | None:
    """Wait for all who have ended; the exit code if ``child`` is among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            value = os.waitstatus_to_exitcode(status)
            code = value if value >= 0 else 128 - value


_MODES = {0: ("stdin", "r"), 1: ("stdout", "w"), 2: ("stderr", "w")}


def open_missing_streams() -> None:
    """Open ``/dev/null`` in the place of each standard stream that is closed.

    Otherwise the next file or socket that is opened takes its number, and gets what a library or a
    child process has to say; and Python has ``None`` for it, on which programs fail. Has to be
    called before anything stays open.
    """
    for number, (name, mode) in _MODES.items():
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


COMM_BYTES = 15
"""As much of a program's name as the kernel keeps."""

SEARCH_SECONDS = 10.0
"""A process that is not there is looked for this often at most: it takes a look at all that are."""

_NO_PROCESS = 0


def watch_processes(
    names: Iterable[str], registry: CollectorRegistry, proc: Path = Path("/proc")
) -> None:
    """Add the metrics ``<name>_process_...`` for the first process of each name.

    Names that differ only in what a metric's name can't have are one: the first.

    Without a process, or on a system without ``/proc``, there are none; one that ends and is
    started again is found again. What the node may not see of another user's is left out.
    """
    by_namespace: dict[str, str] = {}
    for name in names:
        by_namespace.setdefault(re.sub(r"[^a-zA-Z0-9_]", "_", name), name)
    for namespace, name in by_namespace.items():
        ProcessCollector(namespace, _Finder(name, proc).pid, str(proc), registry)


class _Finder:
    """Knows the process of a program's name."""

    def __init__(self, name: str, proc: Path) -> None:
        self._name = name
        self._proc = proc
        self._found = _NO_PROCESS
        self._searched_at = -math.inf

    def pid(self) -> int:
        """0 = there is none."""
        if self._found and self._is_it(self._found):
            return self._found
        now = time.monotonic()
        if self._found or now - self._searched_at >= SEARCH_SECONDS:
            self._searched_at = now
            self._found = next(filter(self._is_it, self._pids()), _NO_PROCESS)
        return self._found

    def _pids(self) -> list[int]:
        try:
            return sorted(int(path.name) for path in self._proc.iterdir() if path.name.isdigit())
        except OSError:
            return []

    def _is_it(self, pid: int) -> bool:
        folder = self._proc / str(pid)
        try:
            comm = (folder / "comm").read_bytes().rstrip(b"\n")
            if comm != self._name.encode()[:COMM_BYTES]:
                return False
            program = (folder / "cmdline").read_bytes().partition(b"\0")[0]
        except OSError:  # it has ended
            return False
        return len(comm) < COMM_BYTES or program.rpartition(b"/")[2] == self._name.encode()


SIMILAR = 0.88
"""Of `difflib`, from 0 to 1. Others also set variables that begin with ``FN_``: Kubernetes for
each service, Fn for what hostler does not have. Only what is nearly a setting is worth a word."""


def warn_of_misspelt(environ: Mapping[str, str], app: click.Command) -> None:
    for name, meant in misspelt(environ, app).items():
        log.warning("this variable is not a setting", variable=name, meant=meant)


def misspelt(environ: Mapping[str, str], app: click.Command) -> dict[str, str]:
    """Names in ``environ`` that were probably meant to be settings, with the names of the settings
    or of variables of the commands of ``app``."""
    known = setting_variables()
    strange = [name for name in environ if name.startswith("FN_") and _bare(name) not in known]
    if not strange:
        return {}
    # Reads the source of all commands, which a node should not need at its start.
    from .reference import command_variables

    assert isinstance(app, click.Group)
    known |= {each.variable for each in command_variables(app)}
    found = {
        name: get_close_matches(_bare(name), sorted(known), 1, SIMILAR)
        for name in strange
        if _bare(name) not in known
    }
    return {name: near[0] for name, near in found.items() if near}


def _bare(name: str) -> str:
    return name.removesuffix("_FILE")
