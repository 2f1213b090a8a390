"""Tells when something in a directory tree changes, by inotify."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

import trio
from inotify_simple import INotify, flags  # type: ignore[import-untyped]

QUIET = 0.1
"""Seconds without a change after which a group of changes counts as one: editors write a file in
several steps, and a checkout many files."""
LONGEST = 1.0
"""Seconds after which a group is complete, whatever still changes."""
IGNORED = frozenset({"__pycache__", "node_modules", "venv"})
"""Names, beside those with a leading dot, that are no source."""
_MASK = (
    flags.CLOSE_WRITE
    | flags.CREATE
    | flags.DELETE
    | flags.MOVED_FROM
    | flags.MOVED_TO
    | flags.ATTRIB
    | flags.ONLYDIR
    | flags.DONT_FOLLOW
)


async def changes(root: Path) -> AsyncGenerator[None, None]:
    """One item for each group of changes below ``root``. Links to directories are not followed.

    Raises `OSError`, also when the user has no instances or watches left.
    """
    with INotify(nonblocking=True) as inotify:
        watched: dict[int, Path] = {}
        _watch(inotify, root, watched)
        while True:
            await trio.lowlevel.wait_readable(inotify.fileno())
            if _take(inotify, root, watched):
                with trio.move_on_after(LONGEST):
                    await _settled(inotify, root, watched)
                yield


async def _settled(inotify: INotify, root: Path, watched: dict[int, Path]) -> None:
    while True:
        with trio.move_on_after(QUIET) as quiet:
            await trio.lowlevel.wait_readable(inotify.fileno())
        if quiet.cancelled_caught:
            return
        _take(inotify, root, watched)


def _take(inotify: INotify, root: Path, watched: dict[int, Path]) -> bool:
    """Read what there is, watch new directories, and say whether something counts."""
    changed = False
    for event in inotify.read(timeout=0):
        if event.mask & flags.IGNORED:
            watched.pop(event.wd, None)
            continue
        if event.mask & flags.Q_OVERFLOW:  # directories may be new that nobody told of
            _watch(inotify, root, watched)
            changed = True
            continue
        if _is_ignored(event.name):
            continue
        if event.mask & flags.ISDIR and event.mask & (flags.CREATE | flags.MOVED_TO):
            _watch_new(inotify, watched[event.wd] / event.name, watched)
        changed = True
    return changed


def _watch(inotify: INotify, folder: Path, watched: dict[int, Path]) -> None:
    watched[inotify.add_watch(folder, _MASK)] = folder
    for inner in folder.iterdir():
        if inner.is_dir() and not inner.is_symlink() and not _is_ignored(inner.name):
            _watch_new(inotify, inner, watched)


def _watch_new(inotify: INotify, folder: Path, watched: dict[int, Path]) -> None:
    with suppress(FileNotFoundError, NotADirectoryError):  # it may be gone by now
        _watch(inotify, folder, watched)


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name in IGNORED or name.endswith((".pyc", "~"))
