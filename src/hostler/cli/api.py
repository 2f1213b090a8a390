"""``hostler api``."""

from __future__ import annotations

import sys

import click

from ..config import NodeConfig
from .options import bind_option, life_options, life_settings, make_settings
from .process import Node, run_node


@click.command()
@bind_option("all interfaces")
@life_options
def api(
    bind: str | None,
    grace: float | None,
    ready_fd: int | None,
    log_format: str | None,
    log_level: str | None,
) -> None:
    """The API of apps, functions and triggers.

    It serves /v2 over a database (FN_DB_URL), and takes no calls.
    """

    def make() -> tuple[NodeConfig, Node]:
        from ..nodes.api import ApiNode

        options = life_settings(log_format, log_level, grace)
        made = make_settings(options, bind=bind, overrider=None)
        return made.node, ApiNode(settings=made)

    sys.exit(run_node(make, ready_fd))
