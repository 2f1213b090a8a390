"""``hostler serve``."""

from __future__ import annotations

import sys

import click

from ..functions import load_functions
from ..nodes.extensions import load_extensions
from ..nodes.lifetime import Node
from ..nodes.settings import AUTO, ServeSettings
from .options import (
    ContainerOptions,
    NodeOptions,
    bind_option,
    container_options,
    functions_option,
    given,
    insecure_option,
    node_options,
    overlay,
)
from .process import run_node


@click.command()
@functions_option
@container_options(
    AUTO,
    "auto (serve only) means docker, or process if there is no engine and the node listens on the "
    "loopback interface only.",
)
@bind_option("127.0.0.1")
@insecure_option
@node_options
def serve(
    functions: str,
    containers: ContainerOptions,
    bind: str | None,
    insecure: bool,
    node: NodeOptions,
) -> None:
    """Run a full node: API, front end and agent in one process.

    Functions run on this machine. The node keeps them in a database (FN_DB_URL, by default an
    SQLite file in ./data) that you manage through /v2. With --functions, a file declares them
    instead, and there is no /v2.
    """

    def make() -> Node:
        from ..nodes.serve import ServeNode

        options = {**node.variables(), "FN_KEEP_ALIVE": containers.keep_alive}
        settings = ServeSettings(
            env=overlay(options),
            extension_names=node.extensions,
            driver=containers.driver,
            functions=load_functions(functions) if functions else None,
            insecure=insecure,
            overrider=node.overrider or "",
            **given(bind=bind),
        )
        return ServeNode(settings=settings, extensions=load_extensions(settings))

    sys.exit(run_node(make, node.ready_fd))
