"""`hostler run`: a directory's function served and reloaded."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import click
import trio
from inotify_simple import INotify, flags  # type: ignore[import-untyped]

from ..._concurrency.nurseries import open_background
from ...agent import open_agent
from ...bodies import BodyBudget
from ...config import AgentConfig, BodyConfig, LBConfig
from ...drivers.process import ProcessConfig, open_process_driver
from ...errors import HostlerError
from ...functions import FunctionTable, parse_functions
from ...models import App, Fn, Trigger
from ...nodes.extensions import RunningNode
from ...nodes.function_lookup import Lookup
from ...nodes.lifetime import Node, NodeLifetime
from ...nodes.parts import NodeHttp, check_reach, listen
from ...nodes.settings import ServeSettings
from ..errors import tell
from ..options import overlay
from ..process import run_node
from .errors import CommandFailed
from .func_file import FuncFile, read_func_file
from .options import folder_argument
from .output import OutputLines, request_lines, say


@click.command()
@folder_argument(help="A directory with a function.  [default: .]")
@click.option(
    "--app",
    "-a",
    "app_name",
    default="app",
    show_default=True,
    help="Name of the app that the function's triggers belong to.",
)
@click.option(
    "--bind",
    default="127.0.0.1:8080",
    show_default=True,
    help="host:port to listen on; port 0 = any free port.",
)
@click.option(
    "--insecure/--no-insecure",
    envvar="FN_INSECURE",
    show_envvar=True,
    default=False,
    help="Allow other machines to reach the function without a token (FN_INVOKE_TOKEN).",
)
@click.option(
    "--reload/--no-reload",
    default=True,
    show_default=True,
    help="Reload the function when its files change.",
)
@click.option(
    "--ready-fd",
    type=int,
    help="File descriptor to which one JSON line is written once the function is served.",
)
@click.option(
    "--log-format",
    help="Format of log lines: text or json. [env var: FN_LOG_FORMAT; default: text]",
)
@click.option(
    "--log-level",
    envvar="FN_LOG_LEVEL",
    show_envvar=True,
    default="error",
    show_default=True,
    help="Level of hostler's own log lines.",
)
def run(
    folder: Path,
    app_name: str,
    bind: str,
    insecure: bool,
    reload: bool,
    ready_fd: int | None,
    log_format: str | None,
    log_level: str,
) -> None:
    """Serve the function in a directory while you work on it.

    The function runs on this machine, without isolation. func.yaml describes it, as for Fn's
    client. Without func.yaml, the command looks for func.py, func.js or an executable named func.
    It prints the URLs, a line for each request, and the function's output.
    """

    def make() -> Node:
        options = {"FN_LOG_FORMAT": log_format, "FN_LOG_LEVEL": log_level}
        made = ServeSettings(env=overlay(options), bind=bind, functions=None)
        return RunNode(
            settings=made, folder=folder, app_name=app_name, reload=reload, insecure=insecure
        )

    sys.exit(run_node(make, ready_fd))


GENERATION = "hostler/generation"
"""The annotation that makes a function with changed files another one for its containers."""


@attrs.define(eq=False)
class LiveFunction:
    """The function as its directory has it: a `hostler.functions.Catalog`."""

    folder: Path
    app_name: str
    table: FunctionTable
    func: FuncFile
    generation: int = 0

    @classmethod
    def read(cls, folder: Path, app_name: str) -> LiveFunction:
        """Raises `ConfigError` and `CommandFailed`."""
        func = read_func_file(folder)
        return cls(folder, app_name, _table(func, app_name, 0), func)

    def reread(self) -> None:
        """Hot containers are not used any more; those with calls finish them. Raises as `read`,
        and then all stays as it was."""
        func = read_func_file(self.folder)
        self.table = _table(func, self.app_name, self.generation + 1)
        self.func = func
        self.generation += 1

    async def find(self, fn_id: str) -> tuple[App, Fn]:
        return await self.table.find(fn_id)

    async def find_trigger(self, app_name: str, source: str) -> tuple[App, Fn, Trigger]:
        return await self.table.find_trigger(app_name, source)

    def urls(self, address: str) -> list[str]:
        base = f"http://{address}"
        paths = [f"/t/{self.app_name}{trigger.source}" for trigger in self.func.triggers]
        return [f"{base}/invoke/{self.func.name}", *(base + path for path in paths)]


def _table(func: FuncFile, app_name: str, generation: int) -> FunctionTable:
    fn: dict[str, Any] = {
        "name": func.name,
        "id": func.name,
        "image": shlex.join(command_line(func)),
        "config": func.config,
        "annotations": {GENERATION: generation},
    }
    for field in ("memory", "timeout", "idle_timeout"):
        if value := getattr(func, field):
            fn[field] = value
    triggers = [
        {"name": trigger.name, "source": trigger.source, "fn": func.name}
        for trigger in func.triggers
    ]
    document = {"apps": [{"name": app_name, "fns": [fn], "triggers": triggers}]}
    return parse_functions(document, source=str(func.path or func.folder))


@attrs.frozen(kw_only=True)
class RunNode(Node):
    """Serves one directory's function by the process driver."""

    folder: Path
    app_name: str
    reload: bool
    insecure: bool

    @asynccontextmanager
    async def open(self, life: NodeLifetime) -> AsyncIterator[RunningNode]:
        live = LiveFunction.read(self.folder, self.app_name)
        config = AgentConfig.from_env(self.settings.env)
        settings, grace = self.settings, self.settings.grace
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            check_reach(
                "process",
                settings.bind,
                protected=bool(settings.node.invoke_token),
                by="FN_INVOKE_TOKEN",
                insecure=self.insecure,
            )
            listeners = await listen(stack, settings.bind)
            folder = str(live.func.folder)
            driver = await enter(open_process_driver(ProcessConfig(working_directory=folder)))
            output = OutputLines()
            bodies = BodyBudget(BodyConfig.from_env(self.settings.env))
            agent = await enter(
                open_agent(
                    driver,
                    config=config,
                    output=output.collect,
                    bodies=bodies,
                    max_detached_body=LBConfig.from_env(self.settings.env).max_detached_body,
                    grace=grace,
                )
            )
            http = NodeHttp(settings, life, settings.bind, listeners, mounts={})
            server = await enter(http.serve_calls(agent, Lookup(live), bodies, request_lines))
            for url in live.urls(server.addresses[0]):
                say(url)
            async with open_background() as watching:
                if self.reload:
                    watching.start_soon(_reload, live)
                yield RunningNode(kind="run", http=server.addresses, agent=agent)
                watching.cancel_scope.cancel()
            life.shutdown.set()
            agent.close_admission()


async def _reload(live: LiveFunction) -> None:
    async for _ in changes(live.func.folder):
        try:
            live.reread()
        except (HostlerError, OSError) as error:
            tell(f"{error}; the function stays as it was")
        else:
            say("reloaded")


_IN_IMAGE = "/function/"
"""Where the images of Fn's kits have the directory."""

_VENVS = (".venv", "venv")


def command_line(func: FuncFile) -> list[str]:
    """Program and arguments, in the function's directory.

    ``entrypoint`` and ``cmd`` of ``func.yaml`` are for the image; paths of it that have a
    counterpart here are replaced. Raises `CommandFailed`, which says what to install.
    """
    kind = func.runtime.rstrip("0123456789.")
    if kind == "python":
        return _python(func)
    if kind == "node":
        return _node(func)
    words = [_here(func, word) for word in _words(func)] or ["./func"]
    program = func.folder / words[0] if "/" in words[0] else shutil.which(words[0])
    if program is None or not Path(program).exists():
        raise CommandFailed(
            f"can't run {func.name}: there is no program {words[0]!r}; build it first, or name "
            "another one as entrypoint in func.yaml"
        )
    return [str(program), *words[1:]]


def _python(func: FuncFile) -> list[str]:
    """``/python/bin/fdk /function/func.py handler``, by the directory's virtual environment."""
    words = _words(func) or ["/python/bin/fdk", f"{_IN_IMAGE}func.py", "handler"]
    words = [_here(func, word) for word in words]
    if Path(words[0]).name == "fdk":
        words = [*_fdk(func), *words[1:]]
    # Of an image it is PYTHONPATH=/function:/python, too.
    return ["env", "PYTHONDONTWRITEBYTECODE=1", f"PYTHONPATH={func.folder}", *words]


def _fdk(func: FuncFile) -> list[str]:
    folders = [func.folder / name / "bin" for name in _VENVS]
    for folder in (*folders, Path(sys.executable).parent):
        if (folder / "fdk").exists():
            return [str(folder / "python"), str(folder / "fdk")]
    if found := shutil.which("fdk"):
        return [found]
    raise CommandFailed(
        f"can't run {func.name}: Fn's kit for Python is not installed; in {func.folder}: "
        "python3 -m venv .venv && .venv/bin/pip install fdk"
    )


def _node(func: FuncFile) -> list[str]:
    words = [_here(func, word) for word in _words(func) or ["node", "func.js"]]
    if shutil.which(words[0]) is None:
        raise CommandFailed(f"can't run {func.name}: there is no program {words[0]!r}; install it")
    if (func.folder / "package.json").exists() and not (func.folder / "node_modules").exists():
        raise CommandFailed(
            f"can't run {func.name}: its packages are not installed; in {func.folder}: npm install"
        )
    return words


def _words(func: FuncFile) -> list[str]:
    try:
        return [*shlex.split(func.entrypoint), *shlex.split(func.cmd)]
    except ValueError as error:
        raise CommandFailed(f"{func.path}: entrypoint or cmd: {error}") from error


def _here(func: FuncFile, word: str) -> str:
    return str(func.folder / word.removeprefix(_IN_IMAGE)) if word.startswith(_IN_IMAGE) else word


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
