"""Lists and their pages."""

from __future__ import annotations

import pytest

from ._client import Client


async def make_apps(api: Client, number: int) -> list[str]:
    names = [f"app-{index:03}" for index in range(number)]
    for name in reversed(names):
        await api.made("/v2/apps", {"name": name})
    return names


async def names_of(api: Client, path: str) -> list[str]:
    return [item["name"] for item in (await api.get(path)).json["items"]]


async def test_an_empty_list_is_no_null(api: Client) -> None:
    assert (await api.get("/v2/apps")).content == b'{"items":[]}'
    assert (await api.get("/v2/fns?app_id=none")).content == b'{"items":[]}'
    assert (await api.get("/v2/triggers?app_id=none")).content == b'{"items":[]}'


async def test_pages_follow_each_other_to_an_empty_last_one(api: Client) -> None:
    names = await make_apps(api, 4)
    first = (await api.get("/v2/apps?per_page=2")).json
    assert [item["name"] for item in first["items"]] == names[:2]
    second = (await api.get(f"/v2/apps?per_page=2&cursor={first['next_cursor']}")).json
    assert [item["name"] for item in second["items"]] == names[2:]
    last = await api.get(f"/v2/apps?per_page=2&cursor={second['next_cursor']}")
    assert last.content == b'{"items":[]}'


async def test_a_cursor_is_the_last_name_in_base64(api: Client) -> None:
    await make_apps(api, 2)
    assert (await api.get("/v2/apps?per_page=1")).json["next_cursor"] == "YXBwLTAwMA"


@pytest.mark.parametrize("per_page", ["", "0", "-1", "many", "1.5"])
async def test_what_is_no_number_over_0_is_30(api: Client, per_page: str) -> None:
    names = await make_apps(api, 31)
    assert await names_of(api, f"/v2/apps?per_page={per_page}") == names[:30]


async def test_a_page_has_100_items_at_most(api: Client) -> None:
    names = await make_apps(api, 101)
    assert await names_of(api, "/v2/apps?per_page=1000") == names[:100]


@pytest.mark.parametrize("cursor", ["!", "%2B", "a", "_w", "%80"])
async def test_weakness_05_7_a_bad_cursor_is_400(api: Client, cursor: str) -> None:
    for path in ("/v2/apps?", "/v2/fns?app_id=a&", "/v2/triggers?app_id=a&"):
        assert (await api.get(f"{path}cursor={cursor}")).fails(400, "Invalid cursor")


async def test_the_first_of_several_values_counts(api: Client) -> None:
    await make_apps(api, 2)
    assert await names_of(api, "/v2/apps?name=app-001&name=app-000") == ["app-001"]


async def test_filters_must_all_hold(api: Client) -> None:
    app = (await api.made("/v2/apps", {"name": "demo"}))["id"]
    fns = [
        (await api.made("/v2/fns", {"name": name, "app_id": app, "image": "i"}))["id"]
        for name in ("f", "g")
    ]
    for name, fn in (("t", fns[0]), ("u", fns[0]), ("v", fns[1])):
        document = {"name": name, "app_id": app, "fn_id": fn, "type": "http"}
        await api.made("/v2/triggers", {**document, "source": f"/{name}"})
    base = f"/v2/triggers?app_id={app}"
    assert await names_of(api, base) == ["t", "u", "v"]
    assert await names_of(api, f"{base}&fn_id={fns[0]}") == ["t", "u"]
    assert await names_of(api, f"{base}&fn_id={fns[0]}&name=u") == ["u"]
    assert await names_of(api, f"{base}&fn_id={fns[1]}&name=u") == []
    assert await names_of(api, f"/v2/fns?app_id={app}&name=g") == ["g"]


async def test_lists_of_functions_and_triggers_need_an_app(api: Client) -> None:
    """Weakness 05.1: Fn writes this error twice."""
    assert (await api.get("/v2/fns")).fails(400, "Missing AppID on Fn")
    assert (await api.get("/v2/triggers")).fails(400, "Missing App ID on Trigger")
