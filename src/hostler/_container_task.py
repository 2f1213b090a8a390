"""What the agent asks a driver to run, and how it ended (re-exported by `hostler.abc`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from signal import NSIG
from typing import Literal

import attrs

from .errors import APIError
from .models import Call

CallHook = Callable[[Call, Mapping[str, str]], Awaitable[None]]
"""Gets the model and the extensions of the call that is about to use, or has used, a container."""
CloseHook = Callable[[], Awaitable[None]]


async def no_call_hook(model: Call, extensions: Mapping[str, str]) -> None:
    pass


async def _no_close_hook() -> None:
    pass


def _no_sample(sample: Mapping[str, int]) -> None:
    pass


@attrs.define(kw_only=True)
class ContainerTask:
    """What the agent asks a driver to run. Sizes in bytes unless the name says otherwise. The
    repr leaves out what may hold secrets.

    A driver that wraps another one may replace the three hooks while it makes the cookie::

        inner = task.before_call
        async def before(model, extensions):
            await inner(model, extensions)
            ...
        task.before_call = before

    ``before_call`` raising fails the call and kills the container; ``after_call`` runs after
    each dispatch, also a failed one; ``close`` runs once, when the container ends.
    """

    id: str
    """Unique; the name of the container."""
    image: str
    app_id: str = ""
    fn_id: str = ""
    command: str = ""
    env: dict[str, str] = attrs.field(factory=dict, repr=False)
    extensions: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Of the call that caused the launch, without its registry token."""
    memory: int = 0
    cpus: int = 0
    """Milli-CPUs; 0 = no limit, as everywhere here."""
    fs_size_mb: int = 0
    tmpfs_size_mb: int = 0
    tmpfs_inodes: int = 0
    pids: int = 0
    open_files: int | None = None
    locked_memory: int | None = None
    pending_signals: int | None = None
    message_queue: int | None = None
    syslog_url: str = ""
    iofs_agent_path: str = ""
    """The socket directory as the agent sees it; the function's socket appears in it."""
    iofs_docker_path: str = ""
    """The same directory as the engine's host sees it."""
    iofs_dest: str = "/tmp/iofs"  # noqa: S108  (the place that Fn's function kits know)
    disable_net: bool = False
    registry_token: str = attrs.field(default="", repr=False)
    """For pulling this task's image only; never logged."""
    on_output: Callable[[bytes, bool], None] | None = None
    """Gets (chunk, is_stderr) of the function's output; ``None`` = output is not captured."""
    on_sample: Callable[[Mapping[str, int]], None] = _no_sample
    """Gets samples of what the container uses, about one a second, from a driver that measures
    it; the names are Fn's (``mem_usage``, ``cpu_total``, ...). Must not block."""
    before_call: CallHook = no_call_hook
    after_call: CallHook = no_call_hook
    close: CloseHook = _no_close_hook


End = Literal["", "call", "container"]
"""What an `Output` says the end of."""


@attrs.frozen
class Output:
    """What a function printed: a piece of ``data``, of any size, not cut at lines.

    ``call_id`` is the call that the container works on (``running``), or worked on last ("" =
    none yet). With empty ``data`` it tells the end of a call, of which output may still be under
    way, or of the container, of which nothing follows.
    """

    container_id: str
    app_id: str
    fn_id: str
    call_id: str
    data: bytes
    is_stderr: bool
    running: bool = attrs.field(default=False, kw_only=True)
    ends: End = attrs.field(default="", kw_only=True)


OutputSink = Callable[[Output], None]
"""Gets what all functions of an agent print. Called in the event loop's thread; it must neither
block nor raise: the function's pipe is not read meanwhile."""

ExitStatus = Literal["success", "error", "killed"]


@attrs.frozen
class RunResult:
    """How a container ended. ``killed`` = by the kernel, for memory.

    ``exit_code`` is as shells have it: 128 and the signal's number for a process that was killed.
    """

    status: ExitStatus
    exit_code: int = 0
    error: APIError | None = None

    @property
    def reason(self) -> str:
        """For people, what the container did: "exited with code 3", "was killed by signal 9";
        "" if nobody knows its exit code."""
        if self.status == "error" and not self.exit_code:
            return ""
        signal = self.exit_code - 128
        if 0 < signal < NSIG:
            return f"was killed by signal {signal}"
        return f"exited with code {self.exit_code}"
