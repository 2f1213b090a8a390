"""``hostler run DIR``: a function of a directory, served at once, and again when it changes."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hostler.config import NodeConfig

from .._life import Node, run_node
from ..options import make_settings
from ._options import folder_argument


@click.command()
@folder_argument(help="A directory with a function.  [default: .]")
@click.option(
    "--app",
    "-a",
    "app_name",
    default="app",
    show_default=True,
    help="What the app of its triggers is called.",
)
@click.option(
    "--bind",
    default="127.0.0.1:8080",
    show_default=True,
    help="host:port to listen on; port 0: any.",
)
@click.option(
    "--insecure/--no-insecure",
    envvar="FN_INSECURE",
    show_envvar=True,
    default=False,
    help="Let other machines reach the function without a token (FN_INVOKE_TOKEN).",
)
@click.option(
    "--reload/--no-reload",
    default=True,
    show_default=True,
    help="Whether changed files are noticed.",
)
@click.option("--ready-fd", type=int, help="File descriptor that gets a JSON line once ready.")
@click.option("--log-format", help="text or json. [FN_LOG_FORMAT]")
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
    """Serve a directory's function while you write it.

    It runs on this machine, without isolation. func.yaml says how, as for Fn's client; without
    one, func.py, func.js or an executable func is found. Prints the URLs, a line for each request,
    and what the function prints.
    """

    def make() -> tuple[NodeConfig, Node]:
        from ._run_node import RunNode

        options = {"FN_LOG_FORMAT": log_format, "FN_LOG_LEVEL": log_level}
        made = make_settings(options, bind=bind, overrider=None, containers=True)
        return made.node, RunNode(
            settings=made, folder=folder, app_name=app_name, reload=reload, insecure=insecure
        )

    sys.exit(run_node(make, ready_fd))
