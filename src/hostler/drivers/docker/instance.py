"""Driver instances: which are alive, and the container this node runs in.

A living instance holds a lock on a file named after it, in a folder of this user among the
system's temporary files. So a second runner with the same label tag on this machine keeps its
containers when another one starts. Runners on other machines, on the same engine, are not seen:
give them other tags.

A lock tells nothing of a runner that was killed with its own container: the next runner is in
another container, or has an empty ``/tmp``. But the engine knows whether that container still runs.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import docker
import structlog
import trio

from ..._file_locks import LockFileRemoved, lock_new, try_lock
from .engine import NOT_FOUND, Engine, EngineError, EngineOperation

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
            return lock_new(path, os.O_RDWR | os.O_CREAT, shared=True)
        except LockFileRemoved:
            continue


def _remove_if_dead(path: str) -> bool:
    lock = try_lock(path, os.O_RDWR)
    if lock is None:
        return False
    try:
        os.unlink(path)
    finally:
        os.close(lock)
    return True


MOUNTS = "/proc/self/mountinfo"
"""See proc_pid_mountinfo(5)."""

_HOSTNAME = re.compile(r"/containers/([0-9a-f]{64})/hostname$")


def container_in(mounts: str) -> str:
    """The id of the container that has ``mounts``: engines keep its ``/etc/hostname`` in a folder
    of that name. "" = it is none of them."""
    for line in mounts.splitlines():
        fields = line.split(" ", 5)
        if fields[4:5] == ["/etc/hostname"] and (found := _HOSTNAME.search(fields[3])):
            return found[1]
    return ""


async def find_home(engine: Engine) -> str:
    """The container of this process and when it was started, as a label says it; "" = it has none
    that ``engine`` knows, or it may be another one."""
    try:
        # Names of directories may be of any bytes.
        container_id = container_in(await trio.Path(MOUNTS).read_text(errors="replace"))
        if not container_id or await _is_shared(engine, container_id):
            return ""
        return await _life_of(engine, container_id)
    except (OSError, EngineError) as error:
        log.info("own container not found", reason=str(error))
        return ""


async def _is_shared(engine: Engine, container_id: str) -> bool:
    """Whether others have joined its network: they have its ``/etc/hostname``, too, and live on
    when it is started again. So who has that file may be any of them."""

    def request(client: docker.APIClient) -> bool:
        rows = client.containers(all=True)
        modes = {(row.get("HostConfig") or {}).get("NetworkMode") for row in rows}
        return f"container:{container_id}" in modes

    return await engine.call(EngineOperation.LIST, request)


async def is_inhabited(engine: Engine, home: str) -> bool:
    """Whether that container, which `find_home` found, has run since. Raises `EngineError`."""
    return await _life_of(engine, home.partition(" ")[0]) == home


async def _life_of(engine: Engine, container_id: str) -> str:
    def request(client: docker.APIClient) -> str:
        state = client.inspect_container(container_id)["State"]
        return f"{container_id} {state['StartedAt']}" if state["Running"] else ""

    try:
        return await engine.call(EngineOperation.INSPECT_CONTAINER, request)
    except EngineError as error:
        if error.status != NOT_FOUND:
            raise
        return ""
