"""``hostler serve``."""

from __future__ import annotations

import sys

import click

from ..functions import load_functions
from ..nodes.lifetime import Node
from ..nodes.parts import AUTO
from .options import (
    DRIVERS,
    LifeOptions,
    bind_option,
    functions_option,
    insecure_option,
    keep_alive_option,
    life_options,
    make_settings,
    option,
    overrider_option,
)
from .process import run_node


@click.command()
@functions_option
@option(
    "--driver",
    envvar="FN_DRIVER",
    default=AUTO,
    show_default=True,
    help=f"{DRIVERS} auto (serve only) means docker, or process if there is no engine and the "
    "node listens on the loopback interface only.",
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
    life: LifeOptions,
) -> None:
    """Run a full node: API, front end and agent in one process.

    Functions run on this machine. The node keeps them in a database (FN_DB_URL, by default an
    SQLite file in ./data) that you manage through /v2. With --functions, a file declares them
    instead, and there is no /v2.
    """

    def make() -> Node:
        from ..nodes.serve import ServeNode

        options = {**life.variables(), "FN_KEEP_ALIVE": keep_alive}
        made = make_settings(options, bind=bind, overrider=overrider, containers=True, local=True)
        table = load_functions(functions) if functions else None
        return ServeNode(settings=made, driver=driver, functions=table, insecure=insecure)

    sys.exit(run_node(make, life.ready_fd))
