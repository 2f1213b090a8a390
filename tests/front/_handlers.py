"""The front end as an application, and agents' answers to its calls."""

from __future__ import annotations

import json
from typing import Any

import trio
import trio.testing

from hostler.calls import PendingCall
from hostler.config import NodeConfig
from hostler.front import ASGIApp, invoke_app

from ._agent import TABLE, Handler, ScriptedAgent
from ._asgi_client import AsgiRequest


def app_of(agent: ScriptedAgent, config: NodeConfig | None = None) -> ASGIApp:
    return invoke_app(agent, TABLE, config=config)


def error_of(request: AsgiRequest) -> str:
    assert request.headers["content-type"] == "application/json; charset=utf-8"
    assert request.content.endswith(b"}\n")
    assert request.headers["content-length"] == str(len(request.content))
    assert request.complete
    return str(json.loads(request.content)["message"])


def raising(error: Exception) -> Handler:
    async def handler(call: PendingCall) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    return handler


def answering(*chunks: bytes, headers: list[tuple[str, str]] | None = None) -> Handler:
    async def handler(call: PendingCall) -> None:
        await call.writer.start(200, headers or [])
        for chunk in chunks:
            await call.writer.write(chunk)

    return handler


async def raising_nothing(call: PendingCall) -> None:
    await trio.lowlevel.checkpoint()


def app_with_triggers(agent: ScriptedAgent, **options: Any) -> Any:
    return invoke_app(agent, TABLE, triggers=TABLE, **options)
