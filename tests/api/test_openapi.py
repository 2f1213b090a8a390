"""The API's description: true, and what Fn's has wrong is right in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from hostler.api import ApiOperation, ApiRequest, Query, Reply, Route, api_app, json_reply
from hostler.datastore import Datastore
from hostler.front import HttpServer, serve_http
from hostler.rules import Limits

from ._client import NO_STORE, Client

CONFIG = Path(__file__).with_name("schemathesis.toml")
CHECKS = Path(__file__).with_name("schemathesis_checks.py")


async def described(**options: Any) -> Any:
    answer = await Client(api_app(NO_STORE, **options)).get("/v2/openapi.json")
    assert answer.status == 200
    return answer.json


async def test_it_has_the_operations_of_fns_clients() -> None:
    document = await described()
    assert document["openapi"] == "3.1.0"
    operations = {
        (method.upper(), path): operation["operationId"]
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }
    assert operations == {
        (method, path): name
        for kind, one in (("App", "app_id"), ("Fn", "fn_id"), ("Trigger", "trigger_id"))
        for base in [f"/v2/{kind.lower()}s"]
        for method, path, name in (
            ("GET", base, f"List{kind}s"),
            ("POST", base, f"Create{kind}"),
            ("GET", f"{base}/{{{one}}}", f"Get{kind}"),
            ("PUT", f"{base}/{{{one}}}", f"Update{kind}"),
            ("DELETE", f"{base}/{{{one}}}", f"Delete{kind}"),
        )
    }


async def test_what_fns_description_has_wrong() -> None:
    """05 section 8: the name as read-only, a list of syslog URLs with a ``tls`` scheme, sources
    without their slash."""
    schemas = (await described())["components"]["schemas"]
    app = schemas["NewApp"]
    assert app["required"] == ["name"]
    assert "readOnly" not in app["properties"]["name"]
    syslog = app["properties"]["syslog_url"]
    assert syslog["description"].startswith("One URL")
    assert "tcp+tls" in syslog["description"]
    assert schemas["NewTrigger"]["properties"]["source"]["pattern"].startswith("^/")


async def test_an_answer_says_what_can_be_done_with_it() -> None:
    paths = (await described())["paths"]
    links = paths["/v2/fns"]["post"]["responses"]["200"]["links"]
    assert links["CreateTrigger"]["requestBody"] == {
        "app_id": "$response.body#/app_id",
        "fn_id": "$response.body#/id",
    }
    assert links["GetFn"] == {
        "operationId": "GetFn",
        "parameters": {"fn_id": "$response.body#/id"},
    }


async def test_limits_are_those_of_the_datastore() -> None:
    document = await described(limits=Limits(memory=512, timeout=600, idle_timeout=9))
    fields = document["components"]["schemas"]["FnChange"]["properties"]
    assert [fields[name]["maximum"] for name in ("memory", "timeout", "idle_timeout")] == [
        *(512, 600, 9)
    ]


async def test_a_programs_own_endpoints_can_be_in_it() -> None:
    async def handler(_request: ApiRequest) -> Reply:
        await trio.lowlevel.checkpoint()
        return json_reply({})

    operation = ApiOperation(
        id="ListOwners", summary="Owners.", tag="Apps", query=(Query("q", "Text."),), errors=(404,)
    )
    silent = Route("GET", "/v2/silent", handler)
    spoken = Route("GET", "/v2/apps/{app_id}/owners", handler, operation)
    paths = (await described(endpoints=[silent, spoken]))["paths"]
    assert "/v2/silent" not in paths
    item = paths["/v2/apps/{app_id}/owners"]
    assert [parameter["name"] for parameter in item["parameters"]] == ["app_id"]
    assert list(item["get"]["responses"]) == ["204", "400", "404", "500", "503"]


def test_types_of_endpoints_need_names_of_their_own() -> None:
    class App(msgspec.Struct):
        """Not the API's."""

    async def handler(_request: ApiRequest) -> Reply:
        raise AssertionError("only described")

    operation = ApiOperation(id="Mine", summary="Mine.", tag="Apps", response=App)
    with pytest.raises(ValueError, match="two types are called App"):
        api_app(NO_STORE, endpoints=[Route("GET", "/v2/mine", handler, operation)])


@pytest.mark.slow
async def test_the_real_api_does_what_its_description_says(
    store: Datastore, tmp_path: Path
) -> None:
    """Generated requests, valid ones and others, also in sequences, over a socket and SQLite: no
    server error, no answer that is not described, nothing valid refused."""
    async with trio.open_nursery() as nursery:
        server: HttpServer = await nursery.start(serve_http, api_app(store), "127.0.0.1:0")
        url = f"http://{server.addresses[0]}/v2/openapi.json"
        command = [sys.executable, "-m", "schemathesis.cli", "--no-color"]
        done = await trio.run_process(
            [*command, "--config-file", str(CONFIG), "run", url],
            capture_stdout=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": str(CHECKS)},
        )
        nursery.cancel_scope.cancel()
    report = done.stdout.decode()
    assert done.returncode == 0, report
    assert "15 selected / 15 total" in report
    for phase in ("Coverage", "Fuzzing", "Stateful"):
        assert f"✅ {phase}" in report
