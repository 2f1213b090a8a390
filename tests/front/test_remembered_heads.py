"""What is made of a request's head serves the next request of a connection that has the same."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from hostler.bodies import BodyBudget
from hostler.config import NodeConfig
from hostler.front import FrontMetrics
from hostler.front._invoke import Invoker
from hostler.front._routes import CallRoutes

from ._agent import TABLE, ScriptedAgent
from ._own_server import FakeServer


@pytest.fixture
def routes() -> CallRoutes:
    metrics = FrontMetrics(CollectorRegistry())
    return CallRoutes(Invoker(ScriptedAgent(), NodeConfig(), metrics, BodyBudget()), TABLE)


def test_the_same_head_is_looked_at_once(routes: CallRoutes) -> None:
    server = FakeServer()
    assert routes.remembered(server.scope()) is None
    way = routes.way(server.scope())
    assert way is not None
    assert routes.remembered(server.scope()) is way


def test_another_application_may_have_other_ways(routes: CallRoutes) -> None:
    server = FakeServer()
    assert routes.way(server.scope())
    assert CallRoutes(routes.invoker, TABLE).remembered(server.scope()) is None


def test_another_server_remembers_nothing(routes: CallRoutes) -> None:
    scope = FakeServer().scope(extensions={})
    assert routes.way(scope)
    assert routes.remembered(scope) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "/invoke/b", "raw_path": b"/invoke/b"},
        {"raw_path": None},
        {"query_string": b"q"},
        {"method": "GET"},
        {"headers": [(b"host", b"y")]},
        {"scheme": "https"},
        {"http_version": "2"},
    ],
)
def test_an_application_in_between_may_change_what_the_client_has_sent(
    routes: CallRoutes, changes: dict[str, Any]
) -> None:
    server = FakeServer()
    assert routes.way(server.scope())
    assert routes.remembered(server.scope(**changes)) is None


def test_an_application_in_between_may_change_the_headers_in_place(routes: CallRoutes) -> None:
    server = FakeServer()
    scope = server.scope()
    assert routes.way(scope)
    scope["headers"].append((b"x-more", b"1"))
    assert routes.remembered(scope) is None


def test_an_application_in_between_may_leave_out_the_raw_path(routes: CallRoutes) -> None:
    server = FakeServer()
    scope = server.scope()
    del scope["raw_path"]
    assert routes.way(scope)
    assert routes.remembered(server.scope()) is None
    assert routes.way(server.scope())
    assert routes.remembered(scope) is None
