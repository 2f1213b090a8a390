"""Triggers over HTTP."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from hostler.api import api_app
from hostler.config import NodeConfig
from hostler.datastore import Datastore

from ._client import HOST, Client

ENDPOINT = "fnproject.io/trigger/httpEndpoint"
UNSET_DATE = "0001-01-01T00:00:00.000Z"


@attrs.frozen
class Place:
    """An app and a function in it."""

    app: str
    fn: str

    def document(self, **fields: object) -> dict[str, object]:
        base = {"name": "t", "app_id": self.app, "fn_id": self.fn, "type": "http", "source": "/s"}
        return {**base, **fields}


async def make_place(api: Client, name: str) -> Place:
    app = (await api.made("/v2/apps", {"name": name}))["id"]
    fn = await api.made("/v2/fns", {"name": "f", "app_id": app, "image": "i"})
    return Place(app, fn["id"])


@pytest.fixture
async def place(api: Client) -> Place:
    return await make_place(api, "demo")


@pytest.fixture
async def trigger(api: Client, place: Place) -> Any:
    return await api.made("/v2/triggers", place.document())


async def test_create_answers_with_the_trigger(api: Client, place: Place, trigger: Any) -> None:
    assert list(trigger) == [
        *("id", "name", "app_id", "fn_id", "created_at", "updated_at"),
        *("type", "source", "annotations"),
    ]
    assert trigger["annotations"] == {ENDPOINT: f"http://{HOST}/t/demo/s"}
    assert (await api.get(f"/v2/triggers/{trigger['id']}")).json == trigger
    assert (await api.get(f"/v2/triggers?app_id={place.app}")).json == {"items": [trigger]}


async def test_the_endpoint_of_a_static_base(store: Datastore, trigger: Any) -> None:
    api = Client(api_app(store, config=NodeConfig(public_lb_url="https://lb.test")))
    read = (await api.get(f"/v2/triggers/{trigger['id']}")).json
    assert read["annotations"] == {ENDPOINT: "https://lb.test/t/demo/s"}


@pytest.mark.parametrize(
    ("source", "url"), [("/", ""), ("/a/b", "a/b"), ("/ä b?c%20", "%C3%A4%20b%3Fc%2520")]
)
async def test_the_endpoint_is_a_url(api: Client, place: Place, source: str, url: str) -> None:
    trigger = await api.made("/v2/triggers", place.document(source=source))
    assert trigger["annotations"] == {ENDPOINT: f"http://{HOST}/t/demo/{url}"}


async def test_dates_that_are_unset_are_none(api: Client, place: Place) -> None:
    """Fn's command-line client sends them."""
    document = place.document(created_at=UNSET_DATE, updated_at=UNSET_DATE)
    assert (await api.made("/v2/triggers", document))["created_at"] != UNSET_DATE


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": "x"}, "ID cannot be provided for Trigger creation"),
        ({"created_at": "2025-09-26T12:57:15Z"}, "Trigger Created At Provided for Create"),
        ({"created_at": "yesterday"}, "Invalid JSON"),
        ({"app_id": ""}, "Missing App ID on Trigger"),
        ({"name": ""}, "Missing name on Trigger"),
        ({"name": "a" * 256}, "Trigger name must be 255 characters or less"),
        ({"name": "a.b"}, "Invalid name for Trigger"),
        ({"fn_id": ""}, "Missing Fn ID on Trigger"),
        ({"type": ""}, "Trigger Type Not Supported"),
        ({"type": "cron"}, "Trigger Type Not Supported"),
        ({"source": ""}, "Missing Trigger Source"),
        ({"source": "s"}, "Missing Trigger Source Prefix '/'"),
        ({"source": "/\0"}, "source must not have NUL characters"),
    ],
)
async def test_bad_triggers_get_fns_texts(
    api: Client, place: Place, fields: dict[str, Any], message: str
) -> None:
    assert (await api.post("/v2/triggers", place.document(**fields))).fails(400, message)


async def test_weakness_05_12_a_date_of_update_is_named(api: Client, place: Place) -> None:
    answer = await api.post("/v2/triggers", place.document(updated_at="2025-09-26T12:57:15Z"))
    assert answer.fails(400, "Trigger Updated At Provided for Create")


async def test_what_a_trigger_names_must_be_there(api: Client, place: Place) -> None:
    other = await make_place(api, "other")
    answer = await api.post("/v2/triggers", place.document(app_id="none"))
    assert answer.fails(404, "App not found")
    answer = await api.post("/v2/triggers", place.document(fn_id="none"))
    assert answer.fails(404, "Fn not found")
    answer = await api.post("/v2/triggers", place.document(fn_id=other.fn))
    assert answer.fails(400, "Invalid Fn ID - not owned by specified app")


async def test_source_and_name_are_there_once(api: Client, place: Place, trigger: Any) -> None:
    answer = await api.post("/v2/triggers", place.document(name="u"))
    assert answer.fails(409, "Trigger with the same type and source exists on this app")
    answer = await api.post("/v2/triggers", place.document(source="/other"))
    assert answer.fails(409, "Trigger already exists")


async def test_weakness_05_2_an_update_passes_the_checks_of_create(
    api: Client, place: Place, trigger: Any
) -> None:
    """In Fn two triggers may get one source, and a taken name is a 500."""
    other = await make_place(api, "other")
    second = await api.made("/v2/triggers", place.document(name="u", source="/u"))
    path = f"/v2/triggers/{second['id']}"
    answer = await api.put(path, {"source": "/s"})
    assert answer.fails(409, "Trigger with the same type and source exists on this app")
    assert (await api.put(path, {"name": "t"})).fails(409, "Trigger already exists")
    answer = await api.put(path, {"fn_id": other.fn})
    assert answer.fails(400, "Invalid Fn ID - not owned by specified app")
    assert (await api.get(path)).json == second


async def test_weakness_05_1_a_wrong_id_in_the_body_changes_no_trigger(
    api: Client, place: Place, trigger: Any
) -> None:
    other = await api.made("/v2/triggers", place.document(name="u", source="/u"))
    body = {"id": other["id"], "source": "/v"}
    answer = await api.put(f"/v2/triggers/{trigger['id']}", body)
    assert answer.fails(400, "ID in path does not match ID in body")
    for before in (trigger, other):
        assert (await api.get(f"/v2/triggers/{before['id']}")).json == before


async def test_update_changes_what_is_given(api: Client, trigger: Any) -> None:
    path = f"/v2/triggers/{trigger['id']}"
    changed = (await api.put(path, {**trigger, "source": "/new", "type": "ignored"})).json
    assert (changed["name"], changed["source"], changed["type"]) == ("t", "/new", "http")
    assert "annotations" not in changed
    read = (await api.get(path)).json
    assert read["annotations"] == {ENDPOINT: f"http://{HOST}/t/demo/new"}


@pytest.mark.parametrize("path", ["//s", "/s"])
async def test_an_lb_finds_a_trigger_by_its_source(
    api: Client, place: Place, trigger: Any, path: str
) -> None:
    """The source's own slash makes two; a proxy may have merged them."""
    base = f"/v2/runner/apps/{place.app}/triggerBySource"
    found = (await api.get(f"{base}/http{path}")).json
    assert (found["id"], found["fn_id"]) == (trigger["id"], place.fn)
    assert (await api.get(f"{base}/http{path}/")).fails(404, "Trigger not found")
    assert (await api.get(f"{base}/other{path}")).fails(404, "Trigger not found")


async def test_an_lb_finds_the_trigger_of_the_root(api: Client, place: Place) -> None:
    trigger = await api.made("/v2/triggers", place.document(source="/"))
    for path in ("/", "//"):
        answer = await api.get(f"/v2/runner/apps/{place.app}/triggerBySource/http{path}")
        assert answer.json["id"] == trigger["id"]


async def test_what_is_not_there(api: Client) -> None:
    assert (await api.get("/v2/triggers/none")).fails(404, "Trigger not found")
    assert (await api.put("/v2/triggers/none", {})).fails(404, "Trigger not found")
    assert (await api.delete("/v2/triggers/none")).fails(404, "Trigger not found")


async def test_delete(api: Client, trigger: Any) -> None:
    assert (await api.delete(f"/v2/triggers/{trigger['id']}")).status == 204
    assert (await api.get(f"/v2/triggers/{trigger['id']}")).status == 404
