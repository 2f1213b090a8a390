"""Functions over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hostler.api import api_app
from hostler.config import NodeConfig, StoreConfig
from hostler.datastore import Datastore
from hostler.store import open_datastore

from ._client import HOST, Client

ENDPOINT = "fnproject.io/fn/invokeEndpoint"


@pytest.fixture
async def app(api: Client) -> str:
    return str((await api.made("/v2/apps", {"name": "demo", "shape": "GENERIC_X86"}))["id"])


@pytest.fixture
async def fn(api: Client, app: str) -> Any:
    return await api.made("/v2/fns", {"name": "hello", "app_id": app, "image": "img:1"})


async def test_create_fills_in_the_defaults(api: Client, fn: Any, app: str) -> None:
    assert list(fn) == [
        *("id", "name", "app_id", "image", "memory", "timeout", "idle_timeout"),
        *("config", "annotations", "shape", "created_at", "updated_at"),
    ]
    assert (fn["memory"], fn["timeout"], fn["idle_timeout"]) == (128, 30, 30)
    assert (fn["app_id"], fn["shape"]) == (app, "GENERIC_X86")
    assert (await api.get(f"/v2/fns/{fn['id']}")).json == fn


async def test_an_empty_config_is_printed(fn: Any) -> None:
    assert fn["config"] == {}


async def test_the_endpoint_is_in_what_is_made_and_read(api: Client, fn: Any, app: str) -> None:
    expected = {ENDPOINT: f"http://{HOST}/invoke/{fn['id']}"}
    assert fn["annotations"] == expected
    listed = (await api.get(f"/v2/fns?app_id={app}")).json["items"]
    assert [item["annotations"] for item in listed] == [expected]


async def test_the_endpoint_is_not_in_the_answer_to_an_update(api: Client, fn: Any) -> None:
    assert "annotations" not in (await api.put(f"/v2/fns/{fn['id']}", {"memory": 256})).json


async def test_an_endpoint_that_comes_back_is_not_stored(api: Client, fn: Any, app: str) -> None:
    """Clients change what they got and send it back."""
    answer = await api.put(f"/v2/fns/{fn['id']}", {**fn, "config": {"A": "1"}})
    assert "annotations" not in answer.json
    same = await api.put(f"/v2/fns/{fn['id']}", fn)
    assert same.json["updated_at"] == answer.json["updated_at"]


@pytest.mark.parametrize("base", ["https://lb.test/fn", "https://lb.test/fn/"])
async def test_the_endpoint_may_have_another_base(store: Datastore, fn: Any, base: str) -> None:
    api = Client(api_app(store, config=NodeConfig(public_lb_url=base)))
    read = (await api.get(f"/v2/fns/{fn['id']}")).json
    assert read["annotations"] == {ENDPOINT: f"https://lb.test/fn/invoke/{fn['id']}"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": "x"}, "ID cannot be provided for Fn creation"),
        ({"app_id": ""}, "Missing AppID on Fn"),
        ({"name": ""}, "Missing Fn name"),
        ({"name": "a" * 256}, "Fn name must be 255 characters or less"),
        ({"name": "a/b"}, "name must be a valid string"),
        ({"name": "ä"}, "name must be a valid string"),
        ({"image": ""}, "Missing image on Fn"),
        ({"timeout": 301}, "timeout value is out of range, must be between 1 and 300"),
        ({"timeout": -1}, "timeout value is out of range, must be between 1 and 300"),
        ({"idle_timeout": 3601}, "idle_timeout value is out of range, must be between 1 and 3600"),
        ({"memory": 8193}, "memory value is out of range. It should be between 1 and 8192"),
        ({"memory": 2**70}, "memory value is out of range. It should be between 1 and 8192"),
        ({"memory": 1.5}, "Invalid JSON"),
        ({"memory": "128"}, "Invalid JSON"),
    ],
)
async def test_bad_functions_get_fns_texts(
    api: Client, app: str, fields: dict[str, Any], message: str
) -> None:
    good = {"name": "f", "app_id": app, "image": "i"}
    assert (await api.post("/v2/fns", {**good, **fields})).fails(400, message)


async def test_weakness_05_11_texts_and_description_have_the_limits_that_hold(
    tmp_path: Path,
) -> None:
    config = StoreConfig(db_url=f"sqlite3://{tmp_path}/own.db", max_fn_timeout=600)
    async with open_datastore(config) as store:
        api = Client(api_app(store, limits=config.limits))
        app = (await api.made("/v2/apps", {"name": "demo"}))["id"]
        document = {"name": "f", "app_id": app, "image": "i"}
        answer = await api.post("/v2/fns", {**document, "timeout": 601})
        assert answer.fails(400, "timeout value is out of range, must be between 1 and 600")
        assert (await api.made("/v2/fns", {**document, "timeout": 600}))["timeout"] == 600
        schemas = (await api.get("/v2/openapi.json")).json["components"]["schemas"]
        assert schemas["NewFn"]["properties"]["timeout"]["maximum"] == 600


async def test_the_app_must_be_there_and_the_name_free(api: Client, fn: Any, app: str) -> None:
    document = {"name": "hello", "app_id": app, "image": "i"}
    answer = await api.post("/v2/fns", document)
    assert answer.fails(409, "Fn with specified name already exists")
    answer = await api.post("/v2/fns", {**document, "app_id": "none"})
    assert answer.fails(404, "App not found")


async def test_update_changes_what_is_given(api: Client, fn: Any) -> None:
    changes = {
        "name": "ignored",
        "app_id": "ignored",
        "shape": "ignored",
        "image": "img:2",
        "timeout": 60,
        "config": {"A": "1"},
    }
    changed = (await api.put(f"/v2/fns/{fn['id']}", changes)).json
    assert (changed["name"], changed["app_id"]) == (fn["name"], fn["app_id"])
    assert (changed["image"], changed["timeout"], changed["memory"]) == ("img:2", 60, 128)
    assert changed["config"] == {"A": "1"}


async def test_a_partial_update_is_checked_as_a_whole(api: Client, fn: Any) -> None:
    answer = await api.put(f"/v2/fns/{fn['id']}", {"memory": 9000, "image": "img:2"})
    assert answer.fails(400, "memory value is out of range. It should be between 1 and 8192")
    assert (await api.get(f"/v2/fns/{fn['id']}")).json == fn


async def test_weakness_05_1_a_wrong_id_in_the_body_changes_nothing(api: Client, fn: Any) -> None:
    """Fn answers 400, changes the function of the body, and appends a second document."""
    document = {"name": "other", "app_id": fn["app_id"], "image": "img:1"}
    other = await api.made("/v2/fns", document)
    answer = await api.put(f"/v2/fns/{fn['id']}", {"id": other["id"], "image": "img:2"})
    assert answer.fails(400, "Fn ID in path does not match that in body")
    for before in (fn, other):
        assert (await api.get(f"/v2/fns/{before['id']}")).json == before


async def test_what_is_not_there(api: Client) -> None:
    assert (await api.get("/v2/fns/none")).fails(404, "Fn not found")
    assert (await api.put("/v2/fns/none", {})).fails(404, "Fn not found")
    assert (await api.delete("/v2/fns/none")).fails(404, "Fn not found")


async def test_delete(api: Client, fn: Any) -> None:
    assert (await api.delete(f"/v2/fns/{fn['id']}")).status == 204
    assert (await api.get(f"/v2/fns/{fn['id']}")).fails(404, "Fn not found")
