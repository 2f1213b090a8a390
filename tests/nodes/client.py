"""Requests to a node's API and functions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.functions.build import fnt_path


class Node:
    """Requests to a node's API and functions."""

    def __init__(self, url: str) -> None:
        self.client = httpx.AsyncClient(base_url=url, timeout=60)

    async def make(self, path: str, **fields: Any) -> Any:
        answer = await self.client.post(f"/v2/{path}", json=fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def deploy(
        self, app_name: str = "shop", image: str = str(fnt_path())
    ) -> tuple[Any, Any, Any]:
        """An app with a function, and a trigger of it."""
        app = await self.make("apps", name=app_name, config={"SHARED": "1"})
        fn = await self.make("fns", name="fnt", app_id=app["id"], image=image)
        trigger = await self.make(
            "triggers",
            name="t",
            app_id=app["id"],
            fn_id=fn["id"],
            type="http",
            source="/pay",
        )
        return app, fn, trigger

    async def invoke(self, fn: Any, **headers: str) -> httpx.Response:
        return await self.client.post(f"/invoke/{fn['id']}", content=b"hello", headers=headers)


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[Node]:
    node = Node(url)
    async with node.client:
        yield node
