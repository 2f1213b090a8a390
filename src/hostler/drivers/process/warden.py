"""The warden: the small process that is the parent of all function processes of one driver.

Run as a script (``python -I -S warden.py SOCKET_FD HOSTLER_PID``), with the standard library
only, never imported by hostler. Why it exists:

* It outlives a killed hostler just long enough to end the functions: it sees the end of its
  socket and of hostler's process (pidfd), even of a SIGKILL. ``PR_SET_PDEATHSIG`` in hostler's
  own children would not do: it fires when the *thread* that forked ends, and Trio forks in
  worker threads.
* It is single-threaded and small, so a plain ``fork`` is safe and takes a fraction of a
  millisecond however big hostler is.
* It is the child subreaper of what it starts (prctl(2)): a daemonised grandchild becomes its
  child and is found by the mark in its environment.

Messages are JSON objects, one per packet of a SOCK_SEQPACKET socket. From hostler:
``{"op": "spawn" | "stop" | "continue" | "kill", "id": ...}``; a spawn comes with file
descriptors: the details in a memfd, then stdout and stderr (or neither). To hostler:
``{"id": ..., "what": ...}`` with "spawned" (pid) or "failed" (errno); "stopped", "continued" or
"refused"; "exited" (a wait status); "gone", once nothing of a killed container is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
from typing import TypedDict

MARK = "HOSTLER_CONTAINER_ID"
"""The variable by which a container's processes are known, wherever they hide."""

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
MAX_MESSAGE = 4096
MAX_FDS = 3

_prctl = ctypes.CDLL(None, use_errno=True).prctl


class Details(TypedDict):
    """What a spawn's memfd holds, as JSON."""

    path: str
    argv: list[str]
    env: dict[str, str]
    cwd: str
    limits: dict[str, int]


class ProcessGroup:
    """One container: its root process leads a session and a process group of its own."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid
        self.running = True
        self.stopping = False
        self.killed = False


class Warden:
    def __init__(self, hostler: socket.socket) -> None:
        self._hostler = hostler
        self._wards: dict[str, ProcessGroup] = {}
        self._roots: dict[int, ProcessGroup] = {}
        self._strays: dict[int, str] = {}
        """The wards of killed daemons that are not reaped yet."""

    def tell(self, name: str, what: str, **more: int) -> None:
        # A hostler that is gone is noticed by the main loop.
        with contextlib.suppress(OSError):
            self._hostler.send(json.dumps({"id": name, "what": what, **more}).encode())

    def obey(self, message: dict[str, str], fds: list[int]) -> None:
        try:
            name, ward = message["id"], self._wards.get(message["id"])
            match message["op"]:
                case "spawn":
                    self._spawn(name, fds)
                case "stop":
                    self._stop(name, ward)
                case "continue":
                    self._continue(name, ward)
                case "kill":
                    self._kill(name, ward)
        finally:
            for fd in fds:
                os.close(fd)

    def _spawn(self, name: str, fds: list[int]) -> None:
        with open(os.dup(fds[0]), encoding="utf-8") as file:
            file.seek(0)
            details: Details = json.load(file)
        details["env"][MARK] = name
        try:
            pid = start(details, fds[1:])
        except OSError as error:
            self.tell(name, "failed", errno=error.errno or 0)
            return
        self._wards[name] = self._roots[pid] = ProcessGroup(name, pid)
        self.tell(name, "spawned", pid=pid)

    def _stop(self, name: str, ward: ProcessGroup | None) -> None:
        if ward is None or not ward.running:
            self.tell(name, "refused")
            return
        kill_group(ward.pid, signal.SIGSTOP)
        if is_stopped(ward.pid):
            self.tell(name, "stopped")
        else:
            ward.stopping = True

    def _continue(self, name: str, ward: ProcessGroup | None) -> None:
        if ward is None or not ward.running:
            self.tell(name, "refused")
            return
        kill_group(ward.pid, signal.SIGCONT)
        self.tell(name, "continued")

    def _kill(self, name: str, ward: ProcessGroup | None) -> None:
        if ward is None:
            self.tell(name, "gone")
            return
        ward.killed = True
        if ward.running:
            kill_group(ward.pid, signal.SIGKILL)
        else:
            self.sweep()

    def reap(self) -> None:
        """Take note of what has stopped or ended. WNOWAIT keeps an ended root's pid, and with it
        the number of its process group, reserved until the group was killed."""
        events = os.WEXITED | os.WSTOPPED
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, events | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if info is None:
                break
            ward = self._roots.get(info.si_pid)
            if info.si_code == os.CLD_STOPPED:
                os.waitid(os.P_PID, info.si_pid, os.WSTOPPED | os.WNOHANG)
                if ward is not None:
                    self._stopped(ward)
                continue
            if ward is not None:
                kill_group(ward.pid, signal.SIGKILL)
            _, status = os.waitpid(info.si_pid, 0)
            self._strays.pop(info.si_pid, None)
            if ward is not None:
                self._ended(ward, status)
        self.sweep()

    def _stopped(self, ward: ProcessGroup) -> None:
        if ward.stopping:
            ward.stopping = False
            self.tell(ward.name, "stopped")

    def _ended(self, ward: ProcessGroup, status: int) -> None:
        del self._roots[ward.pid]
        ward.running = False
        if ward.stopping:
            ward.stopping = False
            self.tell(ward.name, "refused")
        self.tell(ward.name, "exited", status=status)

    def sweep(self) -> None:
        """Kill the strays of ended containers; report the killed ones that left nothing."""
        over = {ward.name for ward in self._wards.values() if not ward.running}
        if not over:
            return
        for pid in children():
            if pid not in self._roots and (name := mark_of(pid)) in over:
                self._strays[pid] = name
                kill(pid)
        # A killed stray has no mark any more, but is there until it was reaped.
        for name in over.difference(self._strays.values()):
            if self._wards[name].killed:
                del self._wards[name]
                self.tell(name, "gone")

    def end_all(self) -> None:
        """Kill every process that has become ours, until none is left."""
        for pid in self._roots:
            kill_group(pid, signal.SIGKILL)
        while True:
            for pid in children():
                kill(pid)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return


def start(details: Details, output: list[int]) -> int:
    """Fork and exec; the pid. Raises the ``OSError`` of whatever failed, in either process."""
    warden = os.getpid()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        become(details, output, warden, writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        trouble = pipe.read()
    if trouble:
        os.waitpid(pid, 0)
        code = int(trouble)
        raise OSError(code, os.strerror(code))
    return pid


def become(details: Details, output: list[int], warden: int, trouble: int) -> None:
    """In the child: turn into the function. Never returns."""
    code = 0
    try:
        os.setsid()
        # Here it is right: the warden has one thread only.
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != warden:
            os._exit(1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        for kind, value in details["limits"].items():
            resource.setrlimit(int(kind), (value, value))
        null = os.open(os.devnull, os.O_RDWR)
        for target, source in enumerate([null, *(output or [null, null])]):
            os.dup2(source, target)
        os.umask(0o022)
        if details["cwd"]:
            os.chdir(details["cwd"])
        os.execve(details["path"], details["argv"], details["env"])  # noqa: S606  (its purpose)
    except OSError as error:
        code = error.errno or 5
    except BaseException:  # noqa: BLE001  (nothing may escape into a second warden)
        code = 22  # EINVAL: a null byte, a text that can't be encoded
    os.write(trouble, b"%d" % code)
    os._exit(127)


def kill_group(pid: int, number: int) -> None:
    # Not permitted: a set-user-id program of another user; not found: it has just ended.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def is_stopped(pid: int) -> bool:
    """Whether the process is in the kernel's state T (proc(5), field 3 of stat)."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"T"


def children() -> list[int]:
    """Our children, also zombies."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if is_ours(pid)]


def is_ours(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1]) == os.getpid()
    except OSError:
        return False


def mark_of(pid: int) -> str:
    """The mark of a process, "" if it has none (any more)."""
    start = MARK.encode() + b"="
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            found = [entry for entry in file.read().split(b"\0") if entry.startswith(start)]
    except OSError:
        return ""
    return found[0][len(start) :].decode(errors="replace") if found else ""


def watch_children() -> int:
    """A descriptor that becomes readable when a child stopped or ended."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    # Whoever stops hostler's whole control group or session means hostler: it may still drain.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    return reader


def serve(hostler: socket.socket, parent: int) -> None:
    """Obey until hostler closes the socket or ends."""
    warden = Warden(hostler)
    signals = watch_children()
    poll = select.poll()
    for fd in (hostler.fileno(), parent, signals):
        poll.register(fd, select.POLLIN)
    try:
        hostler.send(b'{"id": "", "what": "ready"}')
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if parent in ready:
                return
            if signals in ready:
                os.read(signals, MAX_MESSAGE)
                warden.reap()
            if hostler.fileno() in ready:
                data, fds, _, _ = socket.recv_fds(hostler, MAX_MESSAGE, MAX_FDS)
                for fd in fds:
                    os.set_inheritable(fd, False)
                if not data:
                    return
                warden.obey(json.loads(data), fds)
    except ConnectionError:
        return
    finally:
        warden.end_all()


def main() -> None:
    hostler = socket.socket(fileno=int(sys.argv[1]))
    hostler.set_inheritable(False)
    parent = os.pidfd_open(int(sys.argv[2]))
    _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.chdir("/")
    serve(hostler, parent)


if __name__ == "__main__":
    main()
