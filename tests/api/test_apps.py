"""Apps over HTTP."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ._client import Client

DATE = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
UNSET_DATE = "0001-01-01T00:00:00.000Z"


async def test_create_answers_with_the_whole_app(api: Client) -> None:
    answer = await api.post(
        "/v2/apps",
        {
            "name": "demo",
            "config": {"A": "1"},
            "annotations": {"k": {"b": 1, "a": [1.0, "<x>"]}},
            "syslog_url": "udp://log:514",
            "shape": "GENERIC_ARM",
        },
    )
    assert answer.status == 200
    app = answer.json
    expected = ["id", "name", "config", "annotations", "syslog_url", "shape"]
    assert list(app) == [*expected, "created_at", "updated_at"]
    assert ID.fullmatch(app["id"])
    assert DATE.fullmatch(app["created_at"])
    assert app["created_at"] == app["updated_at"]
    assert (app["config"], app["shape"]) == ({"A": "1"}, "GENERIC_ARM")
    assert b'"annotations":{"k":{"b":1,"a":[1.0,"\\u003cx\\u003e"]}}' in answer.content
    assert (await api.get(f"/v2/apps/{app['id']}")).content == answer.content


async def test_what_is_empty_is_left_out(api: Client) -> None:
    app = await api.made("/v2/apps", {"name": "bare"})
    assert list(app) == ["id", "name", "shape", "created_at", "updated_at"]


async def test_documents_are_read_as_by_gos_decoder(api: Client) -> None:
    """Names in any case, unknown ones, null as if it was not there, and dates that are unset."""
    app = await api.made(
        "/v2/apps",
        {
            "NAME": "demo",
            "Config": {"A": "1", "B": None},
            "annotations": None,
            "unknown": [1],
            "created_at": UNSET_DATE,
        },
    )
    assert (app["name"], app["config"]) == ("demo", {"A": "1"})
    assert app["created_at"] != UNSET_DATE


DEEP = b'{"annotations":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b'{"name":1}',
        b'{"name":"a"} trailing',
        b'{"name":"\xff"}',
        b'{"name":"\\ud800"}',
        b'{"config":[]}',
        b'{"config":{"a":1}}',
        b'{"annotations":{"a":tru}}',
        b'{"annotations":{"a":"\xff"}}',
        b'{"annotations":{"a":"\\q"}}',
        DEEP,
    ],
    ids=lambda body: body[:30].decode("latin-1"),
)
async def test_weakness_05_8_what_is_no_document_is_invalid_json(api: Client, body: bytes) -> None:
    """With the content type of an error; Fn's is text/plain here."""
    assert (await api.post("/v2/apps", body)).fails(400, "Invalid JSON")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "Missing Name"),
        ({"name": None}, "Missing Name"),
        ({"name": "demo", "id": "x"}, "App ID cannot be supplied on create"),
        ({"name": "a" * 256}, "App name must be 255 characters or less"),
        ({"name": "ä" * 128}, "App name must be 255 characters or less"),
        ({"name": "a b"}, "Invalid app name"),
        ({"name": "demo", "shape": "VAX"}, "Invalid app shape"),
        (
            {"name": "demo", "syslog_url": "ftp://h"},
            (
                'invalid syslog url: "ftp://h" invalid scheme, only [tcp, udp, unix, unixgram, '
                "tcp+tls] are supported"
            ),
        ),
        (
            {"name": "demo", "annotations": {"a b": 1}},
            (
                "Invalid annotation key, annotation keys must be non-empty ascii strings excluding "
                "whitespace"
            ),
        ),
        (
            {"name": "demo", "annotations": {"a": ""}},
            (
                "Invalid annotation value, annotation values may only be non-empty strings, "
                "numbers, objects, or arrays"
            ),
        ),
        (
            {"name": "demo", "annotations": {"a": "x" * 511}},
            (
                "Invalid annotation value length, annotation values may not be larger than 512 "
                "bytes when serialized as JSON"
            ),
        ),
    ],
)
async def test_bad_apps_get_fns_texts(api: Client, fields: dict[str, Any], message: str) -> None:
    assert (await api.post("/v2/apps", fields)).fails(400, message)
    assert (await api.get("/v2/apps")).json == {"items": []}


async def test_a_name_can_be_taken_once(api: Client) -> None:
    await api.made("/v2/apps", {"name": "demo"})
    assert (await api.post("/v2/apps", {"name": "demo"})).fails(409, "App already exists")


async def test_update_merges_and_answers_with_the_whole_app(api: Client) -> None:
    app = await api.made(
        "/v2/apps",
        {
            "name": "demo",
            "config": {"A": "1", "B": "2", "C": "3"},
            "annotations": {"x": 1, "y": 2},
            "syslog_url": "udp://log:514",
        },
    )
    answer = await api.put(
        f"/v2/apps/{app['id']}",
        {
            "id": app["id"],
            "name": "demo",
            "config": {"A": "9", "B": "", "C": None, "D": "4"},
            "annotations": {"x": None, "z": [3]},
            "syslog_url": "",
        },
    )
    changed = answer.json
    assert changed["config"] == {"A": "9", "D": "4"}
    assert changed["annotations"] == {"y": 2, "z": [3]}
    assert "syslog_url" not in changed
    assert changed["created_at"] == app["created_at"] <= changed["updated_at"]


async def test_an_update_of_nothing_changes_nothing(api: Client) -> None:
    app = await api.made("/v2/apps", {"name": "demo", "syslog_url": "udp://log:514"})
    assert (await api.put(f"/v2/apps/{app['id']}", {})).json == app
    assert (await api.put(f"/v2/apps/{app['id']}", app)).json == app


async def test_updates_that_can_not_be(api: Client) -> None:
    app = await api.made("/v2/apps", {"name": "demo"})
    path = f"/v2/apps/{app['id']}"
    answer = await api.put(path, {"name": "other"})
    assert answer.fails(409, "Could not update - name is immutable")
    answer = await api.put(path, {"id": "other", "config": {"A": "1"}})
    assert answer.fails(400, "App ID in path does not match ID in body")
    assert (await api.put("/v2/apps/none", {})).fails(404, "App not found")
    assert (await api.get(path)).json == app


async def test_delete_takes_functions_and_triggers_with_it(api: Client) -> None:
    app = await api.made("/v2/apps", {"name": "demo"})
    fn = await api.made("/v2/fns", {"name": "f", "app_id": app["id"], "image": "i"})
    source = {"type": "http", "source": "/s"}
    trigger = await api.made(
        "/v2/triggers", {"name": "t", "app_id": app["id"], "fn_id": fn["id"], **source}
    )
    answer = await api.delete(f"/v2/apps/{app['id']}")
    assert (answer.status, answer.content) == (204, b"")
    assert "content-type" not in answer.headers
    assert (await api.get(f"/v2/apps/{app['id']}")).fails(404, "App not found")
    assert (await api.get(f"/v2/fns/{fn['id']}")).fails(404, "Fn not found")
    assert (await api.get(f"/v2/triggers/{trigger['id']}")).fails(404, "Trigger not found")
    assert (await api.delete(f"/v2/apps/{app['id']}")).fails(404, "App not found")
