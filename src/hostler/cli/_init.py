"""What process 1 of a container has to do beside its own work: reap what others leave behind.

A process whose parent has ended becomes a child of process 1, and a zombie when it ends, until it
is waited for. The node itself can't do that, for ``wait`` would take the ends of its own children
from those who wait for them. So process 1 starts the node as a child, and does nothing else
(https://github.com/krallin/tini is such a program).
"""

from __future__ import annotations

import os
import signal
import sys

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
