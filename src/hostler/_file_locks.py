"""Locks that tell the living from the dead: the kernel frees them with the process, however it
ends (flock(2)). They belong to the file itself, so they also work between containers that share
a folder."""

from __future__ import annotations

import fcntl
import os


class LockFileRemoved(Exception):
    """Somebody has removed, or is removing, what was to be locked: make another one."""


def lock_new(path: str, flags: int, *, shared: bool = False) -> int:
    """Lock a file or directory that was just made, and return the descriptor that holds it.

    ``flags`` are those of ``os.open``. Raises `OSError`, and `LockFileRemoved` if somebody else
    sees to its removal. Never waits.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileNotFoundError as error:
        if flags & os.O_CREAT:
            raise  # its folder is missing, which no repetition will change
        raise LockFileRemoved(path) from error
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        # Whoever removes the dead may have been here between the making and the locking.
        _check_same(path, descriptor)
    except (BlockingIOError, FileNotFoundError) as error:
        os.close(descriptor)
        raise LockFileRemoved(path) from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_same(path: str, descriptor: int) -> None:
    if not os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor)):
        raise LockFileRemoved(path)


def try_lock(path: str, flags: int) -> int | None:
    """Lock what a dead process of this user has left, so that it can be removed; ``None`` if its
    owner lives, it is another user's, or it is gone. Raises `OSError`. Never waits."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return None
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Something may have been mounted over it since, and is in use.
            _check_same(path, descriptor)
            return descriptor
    except (BlockingIOError, FileNotFoundError, LockFileRemoved):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
