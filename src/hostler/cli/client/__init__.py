"""``hostler`` as a client: commands that ask a node, and that bring functions to it."""

from __future__ import annotations

import typer

from ._apps import apps
from ._deploy import deploy
from ._fns import fns
from ._invoke import invoke
from ._logs import logs
from ._run import run
from ._status import status
from ._triggers import triggers

__all__ = ["add_client_commands"]


def add_client_commands(app: typer.Typer) -> None:
    """Put the client's commands beside those of the nodes."""
    app.add_typer(apps, name="app")
    app.add_typer(fns, name="fn")
    app.add_typer(triggers, name="trigger")
    app.command()(invoke)
    app.command()(run)
    app.command()(deploy)
    app.command()(logs)
    app.command()(status)
