"""A node of hostler that tells what it does: ``python -m benchmarks._traced FOLDER lb ...``

It is the ``hostler`` command, and answers three signals, each with a file in FOLDER whose name has
the process id: `BEGIN` begins a trace of its main thread, where all of Trio is, `END` ends it and
tells what was entered and how often, `REST` tells the coroutine frames of all tasks. A handler runs
there, too: in a node that has nothing to do, while Trio waits and all tasks are at rest.
"""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import trio

import hostler
from hostler.cli import main

BEGIN, END, REST = signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN
LIMIT = 30.0
"""Seconds that a node may take to answer."""
PACKAGE = str(Path(hostler.__file__).parent)
GENERATED = re.compile(r"<attrs generated \S+ (hostler[\w.]*)\.\w+>")


class Trace:
    """What happens from `BEGIN` to `END`."""

    def __init__(self) -> None:
        self.modules: dict[str, str] = {}
        """The first function of each that was entered, in the order in which they were."""
        self.python = 0
        self.c = 0

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if frame.f_code.co_filename == __file__:
            return
        if event == "c_call":
            self.c += 1
        elif event == "call":
            self.python += 1
            if (name := module_of(frame)) and name not in self.modules:
                self.modules[name] = frame.f_code.co_qualname


def module_of(frame: FrameType) -> str:
    """The module of hostler whose code the frame runs; empty for any other's."""
    path = frame.f_code.co_filename
    if path.startswith(PACKAGE):
        parts = Path(path).relative_to(PACKAGE).with_suffix("").parts
        return ".".join(["hostler", *parts]).removesuffix(".__init__")
    found = GENERATED.fullmatch(path)
    return found[1] if found else ""


def _chain(coroutine: Any) -> Iterator[str]:
    """The functions that wait for each other, the outermost first: hostler's have a colon."""
    while coroutine is not None:
        if hasattr(coroutine, "cr_frame"):
            frame, below = coroutine.cr_frame, coroutine.cr_await
        elif hasattr(coroutine, "gi_frame"):
            frame, below = coroutine.gi_frame, coroutine.gi_yieldfrom
        elif hasattr(coroutine, "ag_frame"):
            frame, below = coroutine.ag_frame, coroutine.ag_await
        else:  # what an asynchronous generator's methods return, and iterators in C
            frame = None
            below = next(
                (one for one in gc.get_referents(coroutine) if hasattr(one, "ag_frame")), None
            )
        if frame is not None:
            name = module_of(frame)
            yield f"{name}:{frame.f_code.co_qualname}" if name else frame.f_code.co_qualname
        coroutine = below


def _tasks() -> Iterator[trio.lowlevel.Task]:
    ahead = [trio.lowlevel.current_root_task()]
    while ahead:
        if task := ahead.pop():
            yield task
            ahead.extend(child for one in task.child_nurseries for child in one.child_tasks)


def _tell(folder: Path, answer: object) -> None:
    path = folder / f"{os.getpid()}.part"
    path.write_text(json.dumps(answer))
    path.rename(path.with_suffix(".json"))


def _answer_signals(folder: Path) -> None:
    trace = Trace()

    def answer(number: int, _: FrameType | None) -> None:
        nonlocal trace
        if number == REST:
            _tell(folder, {str(id(task)): list(_chain(task.coro)) for task in _tasks()})
        elif number == BEGIN:
            trace = Trace()
            _tell(folder, None)
            sys.setprofile(trace)
        else:
            sys.setprofile(None)
            _tell(folder, {"modules": trace.modules, "python": trace.python, "c": trace.c})

    for number in (BEGIN, END, REST):
        signal.signal(number, answer)


def ask(folder: Path, pid: int, number: signal.Signals) -> Any:
    """What the node answers to one of the signals. Blocks; raises ``TimeoutError``."""
    path = folder / f"{pid}.json"
    path.unlink(missing_ok=True)
    os.kill(pid, number)
    end = time.monotonic() + LIMIT
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"process {pid} does not answer {number.name}")
        time.sleep(0.005)
    return json.loads(path.read_text())


if __name__ == "__main__":
    _answer_signals(Path(sys.argv[1]))
    sys.argv = ["hostler", *sys.argv[2:]]
    main()
