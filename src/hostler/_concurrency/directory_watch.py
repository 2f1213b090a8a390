"""Watching directories for new names, with one inotify instance for all of them.

The kernel allows few instances (128 for each user by default) but many watches.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import trio
from inotify_simple import INotify, flags  # type: ignore[import-untyped]

from .nurseries import open_background

_MASK = flags.CREATE | flags.MOVED_TO | flags.ATTRIB | flags.ONLYDIR | flags.DONT_FOLLOW


class DirectoryWatch:
    """Tells about changes in one directory."""

    def __init__(self) -> None:
        self._changed = trio.Event()

    def _notify(self) -> None:
        self._changed.set()

    async def wait_changed(self) -> None:
        """Wait until something was created in the directory, moved into it, or changed its mode,
        since the last return. One return may stand for many changes; some return without any.
        """
        await self._changed.wait()
        self._changed = trio.Event()


class DirectoryWatcher:
    """Made by `open_directory_watcher`."""

    def __init__(self, inotify: INotify) -> None:
        self._inotify = inotify
        self._watches: dict[int, DirectoryWatch] = {}

    def __repr__(self) -> str:
        return f"<DirectoryWatcher watches={len(self._watches)}>"

    @property
    def watches(self) -> int:
        """How many directories are watched now."""
        return len(self._watches)

    @contextmanager
    def watch(self, path: str) -> Iterator[DirectoryWatch]:
        """Watch the directory ``path`` for the length of the block; none twice at a time.

        Raises `OSError`, also when the user has no watches left
        (``fs.inotify.max_user_watches``).
        """
        descriptor = self._inotify.add_watch(path, _MASK)
        watch = self._watches[descriptor] = DirectoryWatch()
        try:
            yield watch
        finally:
            del self._watches[descriptor]
            with suppress(OSError):  # the directory is gone, and the kernel's watch with it
                self._inotify.rm_watch(descriptor)

    async def _run(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._inotify.fileno())
            for event in self._inotify.read(timeout=0):
                if event.mask & flags.Q_OVERFLOW:
                    # Events were lost, we can't know whose: everybody has to look.
                    for watch in self._watches.values():
                        watch._notify()
                elif event.wd in self._watches:
                    self._watches[event.wd]._notify()


@asynccontextmanager
async def open_directory_watcher() -> AsyncIterator[DirectoryWatcher]:
    """Open an inotify instance. Raises `OSError`, also when the user has none left
    (``fs.inotify.max_user_instances``)."""
    with INotify(nonblocking=True) as inotify:
        watcher = DirectoryWatcher(inotify)
        async with open_background() as nursery:
            nursery.start_soon(watcher._run)
            try:
                yield watcher
            finally:
                nursery.cancel_scope.cancel()
