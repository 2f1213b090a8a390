"""Each rule with its status and text, and which of several broken ones is told: the first."""

from __future__ import annotations

import datetime as dt
from typing import Any

import attrs
import msgspec
import pytest

from hostler.errors import APIError
from hostler.models import App, Fn, Trigger
from hostler.rules import Limits, check_new_app, check_new_fn, check_new_trigger

BAD_URL = (
    'invalid syslog url: "x://y" invalid scheme, '
    "only [tcp, udp, unix, unixgram, tcp+tls] are supported"
)
DATE = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
BAD = {"bad key": msgspec.Raw(b"1")}
BAD_KEY = (
    "Invalid annotation key, annotation keys must be non-empty ascii strings excluding whitespace"
)

APP = [
    ({"id": "x"}, {"id": ""}, "App ID cannot be supplied on create"),
    ({"name": ""}, {"name": "x" * 256}, "Missing Name"),
    ({}, {"name": "a b"}, "App name must be 255 characters or less"),
    ({}, {"name": "shop"}, "Invalid app name"),
    ({"annotations": BAD}, {"annotations": {}}, BAD_KEY),
    (
        {"syslog_url": "x://y"},
        {"syslog_url": ""},
        BAD_URL,
    ),
    ({"shape": "X"}, {"shape": ""}, "Invalid app shape"),
]
FN = [
    ({"id": "x"}, {"id": ""}, "ID cannot be provided for Fn creation"),
    ({"app_id": ""}, {"app_id": "a"}, "Missing AppID on Fn"),
    ({"name": ""}, {"name": "x" * 256}, "Missing Fn name"),
    ({}, {"name": "a b"}, "Fn name must be 255 characters or less"),
    ({}, {"name": "pay"}, "name must be a valid string"),
    ({"image": ""}, {"image": "i"}, "Missing image on Fn"),
    (
        {"timeout": 301},
        {"timeout": 300},
        "timeout value is out of range, must be between 1 and 300",
    ),
    (
        {"idle_timeout": -1},
        {"idle_timeout": 3600},
        "idle_timeout value is out of range, must be between 1 and 3600",
    ),
    (
        {"memory": 8193},
        {"memory": 8192},
        "memory value is out of range. It should be between 1 and 8192",
    ),
    ({"annotations": BAD}, {"annotations": {}}, BAD_KEY),
]
TRIGGER = [
    ({"id": "x"}, {"id": ""}, "ID cannot be provided for Trigger creation"),
    ({"created_at": DATE}, {"created_at": None}, "Trigger Created At Provided for Create"),
    ({"updated_at": DATE}, {"updated_at": None}, "Trigger Updated At Provided for Create"),
    ({"app_id": ""}, {"app_id": "a"}, "Missing App ID on Trigger"),
    ({"name": ""}, {"name": "x" * 256}, "Missing name on Trigger"),
    ({}, {"name": "a b"}, "Trigger name must be 255 characters or less"),
    ({}, {"name": "web"}, "Invalid name for Trigger"),
    ({"fn_id": ""}, {"fn_id": "f"}, "Missing Fn ID on Trigger"),
    ({"type": "HTTP"}, {"type": "http"}, "Trigger Type Not Supported"),
    ({"source": ""}, {"source": "a/b"}, "Missing Trigger Source"),
    ({}, {"source": "/"}, "Missing Trigger Source Prefix '/'"),
    ({"annotations": BAD}, {"annotations": {}}, BAD_KEY),
]
CASES = [
    pytest.param(check_new_app, App(id="", name="shop"), APP, id="app"),
    pytest.param(
        lambda fn: check_new_fn(fn, Limits()),
        Fn(id="", name="pay", app_id="a", image="i"),
        FN,
        id="fn",
    ),
    pytest.param(
        check_new_trigger,
        Trigger(id="", name="web", app_id="a", fn_id="f", type="http", source="/"),
        TRIGGER,
        id="trigger",
    ),
]


@pytest.mark.parametrize(("check", "good", "rules"), CASES)
def test_the_first_broken_rule_is_told(check: Any, good: Any, rules: Any) -> None:
    """All rules are broken; they are mended one by one, and the next one shows."""
    value = good
    for broken, _, _ in rules:
        value = attrs.evolve(value, **broken)
    for _, mended, text in rules:
        with pytest.raises(APIError) as caught:
            check(value)
        assert (caught.value.code, caught.value.message) == (400, text)
        value = attrs.evolve(value, **mended)
    check(value)


def test_weakness_05_11_texts_have_the_limits_that_hold() -> None:
    fn = Fn(id="", name="pay", app_id="a", image="i", memory=20)
    with pytest.raises(APIError, match=r"between 1 and 10$"):
        check_new_fn(fn, Limits(memory=10))
    with pytest.raises(APIError, match=r"^timeout value .* between 1 and 10$"):
        check_new_fn(fn, Limits(timeout=10))
    with pytest.raises(APIError, match=r"^idle_timeout value .* between 1 and 10$"):
        check_new_fn(fn, Limits(idle_timeout=10))
    for field in ("timeout", "idle_timeout", "memory"):
        negative: dict[str, Any] = {field: -1}
        with pytest.raises(APIError, match="out of range"):
            check_new_fn(attrs.evolve(fn, **negative), Limits())


def test_what_is_given_is_not_changed() -> None:
    app = App(id="", name="a", annotations={"k": msgspec.Raw(b"[ 1 ]")}, config={"a": "1"})
    kept = check_new_app(app)
    kept.config["b"] = "2"
    assert (app.config, bytes(app.annotations["k"])) == ({"a": "1"}, b"[ 1 ]")
