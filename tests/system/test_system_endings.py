"""Programs that are cancelled around all they have opened, wherever they are, leave nothing."""

from __future__ import annotations

import gc
import importlib
import inspect
import os
import pkgutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
import trio.testing

import hostler

from ..drivers.process.processes import children_of
from .nodes import LIMIT
from .openers import USES, Around, Use
from .whole_nodes import NODES

PROGRAMS = {**USES, **NODES}


class CancelAt(trio.abc.Instrument):
    """Cancels ``scope`` when the current task waits for the ``number``-th time from now on."""

    def __init__(self, scope: trio.CancelScope, number: int) -> None:
        self._scope = scope
        self._task = trio.lowlevel.current_task()
        self._left = number

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if not self._left:
                self._scope.cancel()


@contextmanager
def cancelled_at(number: int) -> Iterator[trio.CancelScope]:
    """The block is cancelled at its ``number``-th wait, if it has so many."""
    with trio.CancelScope() as scope:
        instrument = CancelAt(scope, number)
        trio.lowlevel.add_instrument(instrument)
        try:
            yield scope
        finally:
            trio.lowlevel.remove_instrument(instrument)


def what_is_there(around: Around) -> dict[str, object]:
    """Of this process, and outside of it."""
    own = [thread.name for thread in threading.enumerate()]
    return {
        # Those that Trio keeps, for whatever comes, end by themselves after a while.
        "threads": sorted(name for name in own if not name.startswith("Trio thread ")),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "processes": children_of(os.getpid()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "files": sorted(path.name for path in around.folder.rglob("*")),
        "outside": around.left(),
    }


async def until_only(before: dict[str, object], around: Around) -> None:
    """What others have of the program, as the other ends of its sockets, goes a moment later."""
    with trio.move_on_after(LIMIT):
        while what_is_there(around) != before:
            await trio.testing.wait_all_tasks_blocked(0.001)
    assert what_is_there(around) == before


@pytest.fixture
def collector_of_a_new_process() -> Iterator[None]:
    """The collector does not look at what hundreds of tests before have left, in each of hundreds
    of runs."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.filterwarnings("ignore:Async generator 'h:ResourceWarning")  # they are httpx's
@pytest.mark.usefixtures("collector_of_a_new_process")
@pytest.mark.parametrize("use", PROGRAMS.values(), ids=PROGRAMS.keys())
async def test_cancelled_wherever_it_waits_a_program_leaves_nothing(
    use: Use, tmp_path: Path
) -> None:
    (tmp_path / "own").mkdir()
    async with use.around(tmp_path / "own") as around:
        await use.run(around)  # what is kept for the next time is there from now on
        await trio.testing.wait_all_tasks_blocked(0.01)
        before = what_is_there(around)
        number, cancelled = 0, True
        while cancelled:
            number += 1
            with trio.fail_after(LIMIT), cancelled_at(number) as scope:
                await use.run(around)
            cancelled = scope.cancel_called
            await until_only(before, around)
    assert number > 2


def public_modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(hostler.__path__, "hostler."):
        parts = found.name.split(".")
        # What else is in a package is not public. Alembic runs its part.
        public = found.ispkg or len(parts) == 2
        if public and not any(part.startswith("_") or part == "migrations" for part in parts):
            yield importlib.import_module(found.name)


def is_asynchronous(function: Any) -> bool:
    inner = inspect.unwrap(function)
    return inspect.isasyncgenfunction(inner) or inspect.iscoroutinefunction(inner)


def test_no_public_opener_is_left_out() -> None:
    public: set[Callable[..., Any]] = set()
    for module in [hostler, *public_modules()]:
        names = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if getattr(value, "__module__", "") == module.__name__
        ]
        openers = [name for name in names if name.startswith(("open_", "serve_"))]
        public |= {value for name in openers if is_asynchronous(value := getattr(module, name))}
    assert public - {opener for use in PROGRAMS.values() for opener in use.of} == set()
