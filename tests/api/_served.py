"""An application on the project's own server, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import trio

from hostler.config import NodeConfig
from hostler.front import ASGIApp, HttpServer, serve_http


@asynccontextmanager
async def serving(app: ASGIApp, config: NodeConfig | None = None) -> AsyncIterator[str]:
    """The URL of the application."""
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[HttpServer]) -> None:
            await serve_http(app, "127.0.0.1:0", config=config, task_status=task_status)

        server: HttpServer = await nursery.start(serve)
        yield f"http://{server.addresses[0]}"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def served(
    app: ASGIApp, config: NodeConfig | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with (
        serving(app, config) as base,
        httpx.AsyncClient(base_url=base, limits=limits, timeout=60) as client,
    ):
        yield client
