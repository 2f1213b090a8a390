"""``hostler run DIR``: a function of a directory, served at once, and again when it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hostler.config import NodeConfig

from .._life import Node, run_node
from .._settings import make_settings

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="A directory with a function.", file_okay=False)
]


def run(
    folder: Folder = Path(),
    app_name: Annotated[
        str, typer.Option("--app", "-a", help="What the app of its triggers is called.")
    ] = "app",
    bind: Annotated[str, typer.Option(help="host:port to listen on; port 0: any.")] = (
        "127.0.0.1:8080"
    ),
    reload: Annotated[
        bool, typer.Option("--reload/--no-reload", help="Whether changed files are noticed.")
    ] = True,
    ready_fd: Annotated[
        int | None, typer.Option(help="File descriptor that gets a JSON line once ready.")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json. [FN_LOG_FORMAT]")] = None,
    log_level: Annotated[
        str, typer.Option(envvar="FN_LOG_LEVEL", help="Of hostler's own log lines.")
    ] = "error",
) -> None:
    """Serve a directory's function while you write it.

    It runs on this machine, without isolation. func.yaml says how, as for Fn's client; without
    one, func.py, func.js or an executable func is found. Prints the URLs, a line for each request,
    and what the function prints.
    """

    def make() -> tuple[NodeConfig, Node]:
        from ._run_node import RunNode

        options = {"FN_LOG_FORMAT": log_format, "FN_LOG_LEVEL": log_level}
        made = make_settings(options, bind=bind, overrider=None)
        return made.node, RunNode(settings=made, folder=folder, app_name=app_name, reload=reload)

    raise typer.Exit(run_node(make, ready_fd))
