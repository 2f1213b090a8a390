"""The HTTP API, of the OpenAPI description that a node serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import trio
from tables import table

from hostler.api import api_app
from hostler.config import StoreConfig
from hostler.store import open_datastore

_HEAD = """\
# The HTTP API in detail

This page is made of `/v2/openapi.json` of this version. [The API](../api.md) describes what all
operations have in common, such as pages, merging and limits.
"""
_PATH = "/v2/openapi.json"


def http_page() -> str:
    document = trio.run(_description)
    operations = [
        line
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
        for line in _operation(method.upper(), path, item.get("parameters", []), operation)
    ]
    schemas = [
        line
        for name, schema in document["components"]["schemas"].items()
        for line in _schema(name, schema)
    ]
    return "\n".join([_HEAD, "## Operations\n", *operations, "## Documents\n", *schemas])


async def _description() -> dict[str, Any]:
    received = bytearray()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        received.extend(message.get("body", b""))

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
    }
    scope |= {"scheme": "http", "path": _PATH, "raw_path": _PATH.encode(), "root_path": ""}
    scope |= {"query_string": b"", "headers": [(b"host", b"localhost")]}
    async with open_datastore(StoreConfig(db_url="sqlite3://:memory:")) as store:
        await api_app(store)(scope, receive, send)
    document: dict[str, Any] = msgspec.json.decode(bytes(received))
    return document


def _operation(
    method: str, path: str, shared: list[dict[str, Any]], operation: dict[str, Any]
) -> Iterator[str]:
    yield f"### `{method} {path}`\n\n{operation.get('summary', '')}\n"
    if text := operation.get("description"):
        yield f"{text}\n"
    parameters = [*shared, *operation.get("parameters", [])]
    if parameters:
        head = ("parameter", "in", "what")
        rows = [(f"`{p['name']}`", p["in"], p.get("description", "")) for p in parameters]
        yield table(head, rows)
    if body := operation.get("requestBody"):
        yield f"Takes {_of_content(body)}.\n"
    answers = [
        (code, _of_content(answer), answer.get("description", ""))
        for code, answer in operation["responses"].items()
    ]
    yield table(("status", "answer", "when"), answers)


def _of_content(holder: dict[str, Any]) -> str:
    kinds = [_type(content["schema"]) for content in holder.get("content", {}).values()]
    return ", ".join(kinds) or "nothing"


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"### `{name}`\n\n{schema.get('description', '')}\n"
    properties = schema.get("properties", {})
    rows = [
        (f"`{field}`", _type(kind), kind.get("description", ""))
        for field, kind in properties.items()
    ]
    if rows:
        yield table(("field", "type", "what"), rows)


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"`{name}`"
    if "anyOf" in schema:
        return " or ".join(_type(kind) for kind in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    kinds = schema.get("type", "any")
    return kinds if isinstance(kinds, str) else " or ".join(kinds)
