"""One client command: it asks the API for something, and ends."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from hostler.config import ApiConfig

from ._exits import run_command

if TYPE_CHECKING:
    from hostler.api_client import ApiClient


def with_api(server: str, work: Callable[[ApiClient], Awaitable[None]]) -> None:
    """Run ``work`` with a client of the API at ``server``; see `run_command`."""
    from hostler.api_client import open_api_client

    async def run() -> None:
        async with open_api_client(server, ApiConfig.from_env()) as api:
            await work(api)

    run_command(run, server)


def confirm(question: str, yes: bool) -> None:
    """Ask before something is lost, if there is somebody to ask. "No" ends the process with 1."""
    if not yes and sys.stdin.isatty():
        click.confirm(question, abort=True)
