"""``hostler serve``."""

from __future__ import annotations

import sys

import click

from ..config import NodeConfig
from ..functions import load_functions
from ..nodes.parts import AUTO
from .options import (
    DRIVERS,
    bind_option,
    functions_option,
    insecure_option,
    keep_alive_option,
    life_options,
    life_settings,
    make_settings,
    option,
    overrider_option,
)
from .process import Node, run_node


@click.command()
@functions_option
@option(
    "--driver",
    envvar="FN_DRIVER",
    default=AUTO,
    show_default=True,
    help=f"{DRIVERS} auto, for serve only, means docker; if there is no engine and the "
    "node listens on the loopback interface only, it means process. The default of a runner is "
    "docker.",
)
@keep_alive_option
@bind_option("127.0.0.1")
@insecure_option
@overrider_option
@life_options
def serve(
    functions: str,
    driver: str,
    keep_alive: str | None,
    bind: str | None,
    insecure: bool,
    overrider: str | None,
    grace: float | None,
    ready_fd: int | None,
    log_format: str | None,
    log_level: str | None,
) -> None:
    """A full node: API, front end and agent in one process.

    Functions run on this machine. They are kept in a database (FN_DB_URL, by default an SQLite
    file in ./data) and managed through /v2, or declared in a file, and then there is no /v2.
    """

    def make() -> tuple[NodeConfig, Node]:
        from ..nodes.serve import ServeNode

        options = {**life_settings(log_format, log_level, grace), "FN_KEEP_ALIVE": keep_alive}
        made = make_settings(options, bind=bind, overrider=overrider, containers=True, local=True)
        table = load_functions(functions) if functions else None
        return made.node, ServeNode(
            settings=made, driver=driver, functions=table, insecure=insecure
        )

    sys.exit(run_node(make, ready_fd))
