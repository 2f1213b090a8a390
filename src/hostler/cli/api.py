"""``hostler api``."""

from __future__ import annotations

import sys

import click

from ..nodes.lifetime import Node
from .options import LifeOptions, bind_option, life_options, make_settings
from .process import run_node


@click.command()
@bind_option("all interfaces")
@life_options
def api(bind: str | None, life: LifeOptions) -> None:
    """Run an API node: it manages apps, functions and triggers.

    It serves /v2 from a database (FN_DB_URL) and takes no calls.
    """

    def make() -> Node:
        from ..nodes.api import ApiNode

        return ApiNode(settings=make_settings("api", life.variables(), bind=bind))

    sys.exit(run_node(make, life.ready_fd))
