"""Function sockets: their directories (iofs), and the connections to one.

A function is not trusted: it may put anything into its directory, at any time. So the socket is
checked once and then held by a descriptor (``O_PATH``). What the names point to later does not
matter, and no connection can be lured elsewhere, for instance to the engine's own socket.

The process that made a directory holds a lock on it. The lock tells directories in use from the
directories of killed processes, which `remove_leaked_directories` removes.

Where this process may mount, and the engine sees the mount (`choose_tmpfs`), each directory is a
tmpfs of its own: what a function writes there is bounded, and can't be executed.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress

import attrs
import structlog
import trio

from .._descriptors import lacks_descriptors
from .._file_locks import LockFileRemoved, lock_new, try_lock
from ..config import AgentConfig
from ..errors import ConfigError, HostlerError, ServerBusy
from ..http1.client import DEFAULT_MAX_HEAD, ClientConnection, StaleConnection

log = structlog.get_logger(__name__)

SOCKET_NAME = "lsnr.sock"

_PREFIX = "iofs"

_MAX_INLINE_ENTRIES = 16

_SEND_BUFFER = 256 * 1024
"""Bytes; more than the agent ever writes before it waits for the reader at the other end."""

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8

_MNT_DETACH = 2

_LIMITS = "size=64k,nr_inodes=32"
"""A function needs a socket and a link."""


class BadSocket(HostlerError):
    """What a function offers as its socket is no socket, or not where it has to be."""


class FunctionSocket:
    """A function's listening socket, held by a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def connect(self) -> socket.socket:
        """Connect at once, or raise `OSError`; the socket is non-blocking.

        On a unix socket this never waits: the kernel either queues the connection or refuses it (no
        listener, no right, a full queue).
        """
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            plain.connect(f"/proc/self/fd/{self._descriptor}")
        except BaseException:
            plain.close()
            raise
        return plain

    def close(self) -> None:
        """Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class SocketDirectory:
    """One container's directory. Its methods block for a moment, except for `remove`."""

    def __init__(self, path: str, docker_path: str, *, mounted: bool, lock: int) -> None:
        self.path = path
        self.docker_path = docker_path
        self._mounted = mounted
        self._lock = lock

    def __repr__(self) -> str:
        return f"<SocketDirectory {self.path}>"

    def offered(self) -> bool:
        """Whether there is anything under the socket's name."""
        return os.path.lexists(os.path.join(self.path, SOCKET_NAME))

    def open_socket(self) -> FunctionSocket:
        """Check the socket and hold it.

        ``lsnr.sock`` is a socket, or a symbolic link to one in the same directory by its bare
        name. Raises `BadSocket`.
        """
        folder = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            return FunctionSocket(_open_socket(folder))
        finally:
            os.close(folder)

    async def remove(self) -> None:
        """Remove the directory with everything that the function has put there.

        Normally there are two names, which are removed on the spot; more are left to a worker
        thread. Raises `OSError`. Not cancellable once a thread is needed.
        """
        try:
            if self._mounted:
                # Takes the kernel up to some ten milliseconds.
                await trio.to_thread.run_sync(_unmount, self.path)
                self._mounted = False
            with suppress(FileNotFoundError):  # a cleaner of temporary files was quicker
                if not _remove_small(self.path):
                    await trio.to_thread.run_sync(shutil.rmtree, self.path)
        finally:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1
        await trio.lowlevel.cancel_shielded_checkpoint()


def make_socket_directory(config: AgentConfig) -> SocketDirectory:
    """Make a fresh directory as ``FN_IOFS_*`` say. Raises `OSError`."""
    parent = _parent(config)
    while True:
        path = tempfile.mkdtemp(prefix=_prefix(config), dir=parent)
        try:
            lock = _prepare(path, config)
        except LockFileRemoved:
            continue
        docker_path = os.path.join(config.iofs_docker_path or parent, os.path.basename(path))
        return SocketDirectory(path, docker_path, mounted=bool(config.iofs_tmpfs), lock=lock)


PROBE_LIMIT = 10.0
"""Seconds for the removal of a trial directory; the next start removes what is left."""


async def choose_tmpfs(
    config: AgentConfig, sees: Callable[[str], Awaitable[bool | None]]
) -> AgentConfig:
    """``config`` with its ``iofs_tmpfs`` decided, by a trial, if it is not set. ``sees`` tells
    whether functions get to see a directory (`Driver.sees_directory`).

    Raises `ConfigError` if ``iofs_tmpfs`` is set and impossible: each call would fail.
    """
    if config.iofs_tmpfs:
        try:
            probe = make_socket_directory(config)
        except OSError as error:
            raise ConfigError(f"FN_IOFS_TMPFS=true: {error}") from error
        with trio.move_on_after(PROBE_LIMIT, shield=True):
            await probe.remove()
    if config.iofs_tmpfs is not None:
        return config
    if await sees(config.iofs_docker_path or _parent(config)) is None:
        return attrs.evolve(config, iofs_tmpfs=False)
    seen, reason = False, "the engine does not see what is mounted there"
    try:
        probe = make_socket_directory(attrs.evolve(config, iofs_tmpfs=True))
    except OSError as error:
        reason = str(error)
    else:
        try:
            os.mkdir(os.path.join(probe.path, "probe"))
            seen = bool(await sees(os.path.join(probe.docker_path, "probe")))
        finally:
            with trio.move_on_after(PROBE_LIMIT, shield=True):
                await probe.remove()
    if not seen:
        log.warning(
            "functions can fill the disk through their socket directories",
            path=_parent(config),
            reason=reason,
        )
    return attrs.evolve(config, iofs_tmpfs=seen)


async def remove_leaked_directories(config: AgentConfig) -> int:
    """Remove the directories that dead processes with the same label tag have left in the same
    place; returns how many. Failures are logged. Not cancellable once it has begun to remove
    something. A directory in use is never touched.

    Raises `ConfigError` if the place that FN_IOFS_PATH names can't be used, `OSError` if the
    default one can't.
    """
    leaked = _seize_leaked(config)
    if not leaked:
        return 0
    await trio.to_thread.run_sync(_remove_leaked, leaked)
    log.info("leaked socket directories removed", count=len(leaked))
    return len(leaked)


def _parent(config: AgentConfig) -> str:
    return config.iofs_path or tempfile.gettempdir()


def _prefix(config: AgentConfig) -> str:
    """The prefix of names of directories, which stands for the label tag, whatever characters it
    has."""
    tag = hashlib.sha256(config.container_label_tag.encode()).hexdigest()
    return f"{_PREFIX}_{tag[:8]}_"


def _prepare(path: str, config: AgentConfig) -> int:
    """Lock a new directory, and mount or open it for the function. Raises `LockFileRemoved` if
    another process took it for a leaked one in its first moment."""
    locks = []
    try:
        locks.append(lock_new(path, os.O_RDONLY | os.O_DIRECTORY))
        if config.iofs_tmpfs:
            _mount_tmpfs(path, f"{_LIMITS},{config.iofs_opts}".rstrip(","))
            # From now on other processes see the mount, and not the directory below.
            locks.append(lock_new(path, os.O_RDONLY | os.O_DIRECTORY))
            os.close(locks.pop(0))
        elif not config.disable_unprivileged_containers:
            # The function runs as another user and has to make its socket here.
            os.chmod(path, 0o777)  # noqa: S103
    except BaseException as error:
        if not isinstance(error, LockFileRemoved):
            _discard(path)
        for lock in locks:
            os.close(lock)
        raise
    return locks[0]


def _discard(path: str) -> None:
    if os.path.ismount(path):
        _unmount(path)
    os.rmdir(path)


def _seize_leaked(config: AgentConfig) -> dict[str, int]:
    """Path and lock of each leaked directory."""
    prefix, leaked = _prefix(config), {}
    try:
        with os.scandir(_parent(config)) as entries:
            paths = [entry.path for entry in entries if entry.name.startswith(prefix)]
        _try_out(config)
    except OSError as error:
        if not config.iofs_path:
            raise
        known = os.path.isdir(config.iofs_path)
        reason = f"can't be used: {error.strerror}" if known else "no such directory"
        raise ConfigError(f"FN_IOFS_PATH={config.iofs_path}: {reason}") from error
    for path in paths:
        try:
            lock = try_lock(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue  # no directory, or of another user
        if lock is not None:
            leaked[path] = lock
    return leaked


def _try_out(config: AgentConfig) -> None:
    """Raise `OSError` if no directory can be made, because each call would fail for that."""
    path = tempfile.mkdtemp(prefix=_prefix(config), dir=_parent(config))
    with suppress(FileNotFoundError):  # another starting process took it for a leaked one
        os.rmdir(path)


def _remove_leaked(leaked: dict[str, int]) -> None:
    for path, lock in leaked.items():
        try:
            if os.path.ismount(path):
                _unmount(path)
            shutil.rmtree(path)
        except OSError as error:
            log.warning("leaked socket directory not removed", path=path, error=str(error))
        finally:
            os.close(lock)


def _open_socket(folder: int) -> int:
    name = SOCKET_NAME
    try:
        found = os.lstat(name, dir_fd=folder)
        if stat.S_ISLNK(found.st_mode):
            name = os.readlink(name, dir_fd=folder)
            if not name or name != os.path.basename(name) or name in (".", ".."):
                raise BadSocket(f"{SOCKET_NAME} points out of its directory: {name!r}")
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        raise BadSocket(f"{SOCKET_NAME} can't be used: {error.strerror}") from error
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadSocket(f"{SOCKET_NAME} is not a socket")
    return descriptor


def _remove_small(path: str) -> bool:
    """Remove a directory with a few plain entries; false if there is more to do."""
    with os.scandir(path) as entries:
        names: list[str] = []
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) or len(names) == _MAX_INLINE_ENTRIES:
                return False
            names.append(entry.path)
    for name in names:
        with suppress(FileNotFoundError):
            os.unlink(name)
    os.rmdir(path)
    return True


def _mount_tmpfs(path: str, options: str) -> None:
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.mount(
        b"tmpfs", os.fsencode(path), b"tmpfs", ctypes.c_ulong(flags), options.encode()
    )
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"can't mount a tmpfs: {os.strerror(number)}", path)


def _unmount(path: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), _MNT_DETACH) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"can't unmount: {os.strerror(number)}", path)


class Channel:
    """The connections to one container's function: at most one at a time, made when needed.

    Surplus bytes may come at any time, even when the next request was written, and then can't be
    told from its answer. So once a function has sent surplus bytes, each request gets a new
    connection.
    """

    def __init__(self, function_socket: FunctionSocket, first: socket.socket, max_head: int):
        self._socket = function_socket
        self._max_head = max_head or DEFAULT_MAX_HEAD
        self._kept: ClientConnection | None = ClientConnection(first, self._max_head)
        self._trusted = True

    def connection(self, now: float) -> ClientConnection:
        """A connection for one exchange that begins ``now``, to be handed to `settle`.

        Raises `StaleConnection` if the function does not accept one, `ServerBusy` if there is no
        file descriptor for it.
        """
        kept, self._kept = self._kept, None
        if kept is not None:
            if not kept.expired(now):
                return kept
            kept.close()
        return self._connect()

    def replace(self, stale: ClientConnection) -> ClientConnection:
        """A new connection in place of a stale one. Raises as `connection`."""
        self._drop(stale)
        return self._connect()

    def is_deaf(self) -> bool:
        """Whether no process listens any more: the function has ended, or is about to."""
        try:
            self._socket.connect().close()
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
        return False

    def settle(self, connection: ClientConnection, *, reusable: bool, now: float) -> None:
        """An exchange is over ``now``. Keep ``connection`` for the next one if it is ``reusable``
        and can be kept, else close it."""
        if reusable and connection.finish(now) and self._trusted:
            assert self._kept is None
            self._kept = connection
        else:
            self._drop(connection)

    def _drop(self, connection: ClientConnection) -> None:
        if connection.surplus and self._trusted:
            self._trusted = False
            log.warning("function sends bytes after its response, or unasked")
        connection.close()

    def _connect(self) -> ClientConnection:
        try:
            return ClientConnection(self._socket.connect(), self._max_head)
        except OSError as error:
            if lacks_descriptors(error):
                raise ServerBusy from error
            raise StaleConnection(str(error)) from error

    def close(self) -> None:
        """Idempotent."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        self._socket.close()
