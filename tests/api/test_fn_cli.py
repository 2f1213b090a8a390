"""Fn's command-line client: its requests in their order, as its HTTP library sends them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import yaml

from hostler.api import api_app
from hostler.datastore import Datastore
from hostler.front import Access, AccessControl, Tokens, node_app

from ._served import served

VECTORS = Path(__file__).with_name("fn_cli.yaml")
TOKEN = "what-FN_TOKEN-has"
HEADERS = {
    "Authorization": f"Bearer {TOKEN}",
    "User-Agent": "Go-http-client/1.1",
    "Accept": "application/json",
    "Accept-Encoding": "gzip",
}
PATTERNS = {
    "<id>": "[0-9A-HJKMNP-TV-Z]{26}",
    "<date>": r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",
}
UNSET_DATE = "0001-01-01T00:00:00.000Z"


def filled(value: Any, known: dict[str, str]) -> Any:
    """``value`` with what is known in place of ``${name}``."""
    if isinstance(value, dict):
        return {key: filled(item, known) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, known) for item in value]
    if isinstance(value, str):
        value = re.sub(r"\$\{(\w+)\}", lambda match: known[match[1]], value)
        return UNSET_DATE if value == "<unset>" else value
    return value


def matches(expected: Any, actual: Any) -> bool:
    """Equality, but for ``<id>`` and ``<date>``."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return list(expected) == list(actual) and all(
            matches(item, actual[key]) for key, item in expected.items()
        )
    if isinstance(expected, list) and isinstance(actual, list):
        pairs = zip(expected, actual, strict=False)
        return len(expected) == len(actual) and all(matches(*pair) for pair in pairs)
    if isinstance(expected, str) and isinstance(actual, str):
        pattern = re.escape(expected)
        for name, meaning in PATTERNS.items():
            pattern = pattern.replace(name, meaning)
        return re.fullmatch(pattern, actual) is not None
    return bool(expected == actual)


def at(answer: Any, place: list[Any]) -> Any:
    for step in place:
        answer = answer[step]
    return answer


async def chunked(document: Any) -> AsyncIterator[bytes]:
    """Go's client does not know how long a document becomes when it begins to send it."""
    yield msgspec.json.encode(document) + b"\n"


async def exchange(client: httpx.AsyncClient, request: Any, known: dict[str, str]) -> None:
    method, target = filled(request["send"], known).split(" ")
    body, headers = None, dict(HEADERS)
    if "body" in request:
        body = chunked(filled(request["body"], known))
        headers["Content-Type"] = "application/json"
    answer = await client.request(method, target, content=body, headers=headers)
    assert answer.status_code == request["status"], answer.text
    if "answer" not in request:
        assert answer.content == b""
        return
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    expected = filled(request["answer"], known)
    assert matches(expected, answer.json()), f"{answer.text} is not {expected}"
    for name, place in request.get("keep", {}).items():
        known[name] = at(answer.json(), place)


async def test_each_command_gets_what_it_needs(store: Datastore) -> None:
    commands = yaml.safe_load(VECTORS.read_text())
    assert len(commands) == 21
    node = node_app(mounts={"/v2": api_app(store)})
    async with served(AccessControl(node, Access(tokens=Tokens([TOKEN])))) as client:
        known = {"host": f"{client.base_url.host}:{client.base_url.port}"}
        for command in commands:
            for request in command["requests"]:
                try:
                    await exchange(client, request, known)
                except AssertionError as error:
                    error.add_note(f"{command['command']}: {request['send']}")
                    raise
