"""Whole nodes, exactly as the commands run them, with a provider's own code in them.

For example::

    async with open_lb(LBSettings(bind=":8080"), Extensions(call_listeners=[Bill()])) as node:
        print(node.http)
        await trio.sleep_forever()

A node takes calls while the block lasts, and drains at its end; a block that is left by an
exception or a cancellation is not drained. Signals, log lines and the limit of open files are the
program's. Several processes of one node (FN_LB_WORKERS, FN_RUNNER_WORKERS) are only the commands'.
All raise `ConfigError` for what can't be used.

* ``api``: an API node
* ``extensions``: code of a provider's own in a node, loaded by name and merged
* ``function_lookup``: where a node finds functions: file, database, another node
* ``lb``: a load balancer node
* ``lifetime``: process lifetime of a node: shutdown, readiness, the announcement
* ``page``: the node's page and log tail, if enabled
* ``parts``: parts that nodes share: guarded application, driver, HTTP serving, following TLS files
* ``runner``: a runner node
* ``serve``: a single-process node: front end and agent, detached calls
* ``settings``: settings of each kind of node, from the environment's variables and in code
* ``workers``: several processes of one node
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from ..errors import ConfigError
from .extensions import Extensions, RunningNode, Startup, load_extensions
from .lifetime import NodeLifetime
from .settings import ApiSettings, LBSettings, RunnerSettings, ServeSettings, Settings

__all__ = [
    "ApiSettings",
    "Extensions",
    "LBSettings",
    "RunnerSettings",
    "RunningNode",
    "ServeSettings",
    "Settings",
    "Startup",
    "open_api",
    "open_lb",
    "open_runner",
    "open_serve",
]

# What only some nodes use is imported when they are opened.

_Settings = TypeVar("_Settings", bound=Settings)


@asynccontextmanager
async def open_serve(
    settings: ServeSettings | None = None, extensions: Extensions | None = None
) -> AsyncIterator[RunningNode]:
    """What ``hostler serve`` runs: API, front end and agent."""
    from .serve import ServeNode

    settings = _checked(settings, ServeSettings)
    node = ServeNode(settings=settings, extensions=load_extensions(settings, extensions))
    async with NodeLifetime().announced(node) as running:
        yield running


@asynccontextmanager
async def open_lb(
    settings: LBSettings | None = None, extensions: Extensions | None = None
) -> AsyncIterator[RunningNode]:
    """What ``hostler lb`` runs: a load balancer over runners."""
    from .lb import LBNode

    settings = _checked(settings, LBSettings)
    _check_workers("FN_LB_WORKERS", settings.node.lb_workers)
    node = LBNode(settings=settings, extensions=load_extensions(settings, extensions))
    async with NodeLifetime().announced(node) as running:
        yield running


@asynccontextmanager
async def open_runner(
    settings: RunnerSettings | None = None, extensions: Extensions | None = None
) -> AsyncIterator[RunningNode]:
    """What ``hostler runner`` runs: an agent that load balancers reach over gRPC."""
    from .runner import RunnerNode

    settings = _checked(settings, RunnerSettings)
    _check_workers("FN_RUNNER_WORKERS", settings.node.runner_workers)
    node = RunnerNode(settings=settings, extensions=load_extensions(settings, extensions))
    async with NodeLifetime().announced(node) as running:
        yield running


@asynccontextmanager
async def open_api(
    settings: ApiSettings | None = None, extensions: Extensions | None = None
) -> AsyncIterator[RunningNode]:
    """What ``hostler api`` runs: the API over a database."""
    from .api import ApiNode

    settings = _checked(settings, ApiSettings)
    node = ApiNode(settings=settings, extensions=load_extensions(settings, extensions))
    async with NodeLifetime().announced(node) as running:
        yield running


def _checked(settings: _Settings | None, kind: type[_Settings]) -> _Settings:
    if settings is None:
        return kind()
    if not isinstance(settings, kind):
        given = type(settings).__name__
        raise ConfigError(f"settings: takes {kind.__name__}, not a {given}")
    return settings


def _check_workers(variable: str, count: int) -> None:
    if count != 1:
        raise ConfigError(
            f"{variable}={count}: only the hostler command starts several processes; a program's "
            "node is one"
        )
