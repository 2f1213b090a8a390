"""Documents of the API, apart from HTTP."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest

from hostler import models
from hostler._api_documents import APPS, FNS, TRIGGERS
from hostler.api.handlers import trigger_endpoint
from tests.front._asgi_client import AsgiRequest

from ._client import HOST, Client

UNSET_DATE = "0001-01-01T00:00:00.000Z"


def a_trigger(type_: str) -> models.Trigger:
    return models.Trigger(id="t1", name="t", app_id="a1", fn_id="f1", type=type_, source="/s")


def test_unset_dates_are_printed() -> None:
    fn = models.Fn(id="f1", name="f", app_id="a1", image="i")
    documents: list[Any] = [
        APPS.document(models.App(id="a1", name="a")),
        FNS.document(fn),
        TRIGGERS.document(a_trigger("http")),
    ]
    for document in documents:
        assert (document.created_at, document.updated_at) == (UNSET_DATE, UNSET_DATE)


def test_dates_have_three_digits_that_are_cut_off() -> None:
    date = dt.datetime(2025, 9, 26, 12, 57, 15, 123_999, tzinfo=dt.UTC)
    document: Any = APPS.document(models.App(id="a1", name="a", created_at=date))
    assert document.created_at == "2025-09-26T12:57:15.123Z"


def test_triggers_that_are_not_called_over_http_have_no_endpoint() -> None:
    assert trigger_endpoint("http://lb/t/a/", a_trigger("http")) == "http://lb/t/a/s"
    assert trigger_endpoint("http://lb/t/a/", a_trigger("timer")) == ""
    assert b"annotations" not in msgspec.json.encode(TRIGGERS.document(a_trigger("timer")))


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_endpoint_has_the_scheme_and_host_of_the_request(
    api: Client, scheme: str
) -> None:
    app = (await api.made("/v2/apps", {"name": "demo"}))["id"]
    fn = (await api.made("/v2/fns", {"name": "f", "app_id": app, "image": "i"}))["id"]
    request = AsgiRequest(f"/v2/fns/{fn}", method="GET", headers=[("Host", HOST)])
    request.scope["scheme"] = scheme
    await request.run(api.app)
    read = msgspec.json.decode(request.content)
    assert read["annotations"] == {
        "fnproject.io/fn/invokeEndpoint": f"{scheme}://{HOST}/invoke/{fn}"
    }
