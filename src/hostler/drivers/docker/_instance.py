"""Which instances of the driver live, for the clean-up after those that don't.

A living instance holds a lock on a file named after it, in a folder of this user among the
system's temporary files. So a second runner with the same label tag on this machine keeps its
containers when another one starts; one on another machine, on the same engine, is not seen: give
it another tag.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog

from ..._file_locks import Removed, hold, seize

log = structlog.get_logger(__name__)


def family_of(instance_id: str) -> str:
    """What ids of instances have in common that belong together, as workers of one node: all
    before a dot."""
    return instance_id.partition(".")[0]


def neighbourhood() -> str:
    """A random name of all processes that see each other's locks: of this user, with this folder.
    Raises `OSError`."""
    link = os.path.join(_made_folder(), "name")
    while True:
        with suppress(FileNotFoundError):
            return os.readlink(link)
        with suppress(FileExistsError):
            os.symlink(uuid.uuid4().hex, link)  # made with what it says, all at once


@contextmanager
def living(instance_id: str) -> Iterator[None]:
    """Hold the lock of ``instance_id`` in the block. Where that is not possible, it is logged:
    containers then don't survive the start of another runner with the same tag."""
    path = _path(instance_id)
    try:
        lock = _hold(path)
    except OSError as error:
        log.warning("can't lock the instance", path=path, error=str(error))
        yield
        return
    try:
        yield
    finally:
        os.close(lock)
        _remove_if_dead(path)


def is_living(instance_id: str) -> bool:
    """Whether a process on this machine holds that lock; what a dead one has left is removed."""
    path = _path(instance_id)
    with suppress(OSError):
        return not _remove_if_dead(path) and os.path.lexists(path)
    return False


def _path(instance_id: str) -> str:
    name = hashlib.sha256(instance_id.encode()).hexdigest()[:32]
    return os.path.join(_folder(), name)


def _folder() -> str:
    return os.path.join(tempfile.gettempdir(), f"hostler-{os.geteuid()}")


def _made_folder() -> str:
    folder = _folder()
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"not a folder that only this user may change: {folder}")
    return folder


def _hold(path: str) -> int:
    _made_folder()
    while True:
        try:
            # Shared: drivers of one process may have been given the same id.
            return hold(path, os.O_RDWR | os.O_CREAT, shared=True)
        except Removed:
            continue


def _remove_if_dead(path: str) -> bool:
    lock = seize(path, os.O_RDWR)
    if lock is None:
        return False
    try:
        os.unlink(path)
    finally:
        os.close(lock)
    return True
