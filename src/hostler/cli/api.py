"""``hostler api``."""

from __future__ import annotations

import sys

import click

from ..nodes.extensions import load_extensions
from ..nodes.lifetime import Node
from ..nodes.settings import ApiSettings
from .options import LifeOptions, bind_option, given, life_options, overlay
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

        settings = ApiSettings(
            env=overlay(life.variables()), extension_names=life.extensions, **given(bind=bind)
        )
        return ApiNode(settings=settings, extensions=load_extensions(settings))

    sys.exit(run_node(make, life.ready_fd))
