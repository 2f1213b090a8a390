"""A node with one function, of a directory."""

from __future__ import annotations

import shlex
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import attrs
import trio

from hostler._asgi import with_middleware
from hostler.agent import open_agent
from hostler.bodies import BodyBudget
from hostler.config import AgentConfig, BodyConfig, LBConfig
from hostler.drivers.process import ProcessConfig, open_process_driver
from hostler.errors import HostlerError
from hostler.front import invoke_app, open_listeners
from hostler.functions import FunctionTable, parse_functions
from hostler.models import App, Fn, Trigger

from ...nodes.lifetime import Life
from ...nodes.parts import CALLS, check_reach, guarded, serving
from ...nodes.serve import open_detaching
from ...nodes.settings import Settings
from .._errors import tell
from ._command_line import command_line
from ._func_file import FuncFile, read_func_file
from ._print_output import OutputLines, request_lines
from ._show import say
from ._tree_watch import changes

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
class RunNode:
    """Serves one directory's function by the process driver."""

    settings: Settings
    folder: Path
    app_name: str
    reload: bool
    insecure: bool

    async def __call__(self, life: Life) -> None:
        live = LiveFunction.read(self.folder, self.app_name)
        config = AgentConfig.from_env(self.settings.env)
        grace = self.settings.grace
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            check_reach(
                "process",
                self.settings.bind,
                protected=bool(self.settings.node.invoke_token),
                by="FN_INVOKE_TOKEN",
                insecure=self.insecure,
            )
            listeners = await enter(open_listeners(self.settings.bind))
            folder = str(live.func.folder)
            driver = await enter(open_process_driver(ProcessConfig(working_directory=folder)))
            output = OutputLines()
            agent = await enter(
                open_agent(driver, config=config, output=output.collect, grace=grace)
            )
            limit = LBConfig.from_env(self.settings.env).max_detached_body
            bodies = BodyBudget(BodyConfig.from_env(self.settings.env))
            detaching = await enter(
                open_detaching(agent, body_limit=limit, bodies=bodies, grace=grace)
            )
            app = invoke_app(
                detaching,
                live,
                triggers=live,
                config=self.settings.node,
                bodies=bodies,
                ready=life.is_ready,
            )
            app = guarded(app, self.settings, listeners, CALLS)
            app = with_middleware(app, [request_lines])
            server = await enter(serving(app, listeners, self.settings, life.shutdown))
            for url in live.urls(server.addresses[0]):
                say(url)
            life.announce("run", {"http": server.addresses})
            await self._until_shutdown(live, life)
            agent.close_admission()

    async def _until_shutdown(self, live: LiveFunction, life: Life) -> None:
        async with trio.open_nursery() as nursery:
            if self.reload:
                nursery.start_soon(_reload, live)
            await life.shutdown.wait()
            nursery.cancel_scope.cancel()


async def _reload(live: LiveFunction) -> None:
    async for _ in changes(live.func.folder):
        try:
            live.reread()
        except (HostlerError, OSError) as error:
            tell(f"{error}; the function stays as it was")
        else:
            say("reloaded")
