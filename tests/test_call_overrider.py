"""What call overriders get and return; one that no call could use is found out before."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from hostler import options
from hostler.agent import open_agent
from hostler.calls import CallRequest, PendingCall, build_call, check_overrider
from hostler.config import AgentConfig
from hostler.drivers.sim import open_sim_driver
from hostler.errors import CallOverriderFailed, ConfigError
from hostler.lb import open_lb_agent
from hostler.models import App, Call, Fn, InvalidAnnotation, annotation
from hostler.pool import NaivePlacer, StaticPool
from tests.conftest import Logs


def good(request: object, model: object, extensions: object) -> dict[str, str]:
    return {}


def with_more(request: object, model: object, extensions: object, more: int = 0) -> dict[str, str]:
    return {}


def any_of_them(*args: object) -> dict[str, str]:
    return {}


def short(model: object) -> dict[str, str]:
    return {}


def long(request: object, model: object, extensions: object, more: object) -> dict[str, str]:
    return {}


def by_name(*, request: object, model: object, extensions: object) -> dict[str, str]:
    return {}


@functools.wraps(short)
def decorated(request: object, model: object, extensions: object) -> dict[str, str]:
    return short(model)


async def asynchronous(request: object, model: object, extensions: object) -> dict[str, str]:
    return {}


class Provider:
    def override(self, request: object, model: object, extensions: object) -> dict[str, str]:
        return {}

    def __call__(self, request: object, model: object, extensions: object) -> dict[str, str]:
        return {}


class AsynchronousProvider:
    async def __call__(self, request: object, model: object, extensions: object) -> dict[str, str]:
        return {}


class Unreadable(Provider):
    __signature__ = "none"


GOOD: list[Callable[..., Any] | None] = [
    None,
    good,
    with_more,
    any_of_them,
    decorated,
    lambda *_: {},
    functools.partial(long, more=1),
    Provider().override,
    Provider(),
    Unreadable(),
    Mock(),
    dict.__new__,  # in C: nobody can tell
]


@pytest.mark.parametrize("overrider", GOOD)
def test_what_may_work_is_let_pass(overrider: Any) -> None:
    check_overrider(overrider)


@pytest.mark.parametrize(
    ("overrider", "why"),
    [
        (short, "too many positional arguments"),
        (long, "missing a required argument: 'more'"),
        (by_name, "too many positional arguments"),
        (Provider.override, "missing a required argument: 'extensions'"),
        (asynchronous, "must not be asynchronous"),
        (AsynchronousProvider(), "must not be asynchronous"),
        (AsynchronousProvider().__call__, "must not be asynchronous"),
    ],
)
async def test_what_can_not_work_is_refused(overrider: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)) as caught:
        check_overrider(overrider, "--overrider 'mine:x'")
    assert str(caught.value).startswith("--overrider 'mine:x': a call overrider ")
    refused = pytest.raises(ConfigError, match=r"^call_overrider: a call overrider ")
    with refused:
        async with open_lb_agent(StaticPool([]), NaivePlacer(), call_overrider=overrider):
            pytest.fail("opened")
    async with open_sim_driver() as driver:
        config = AgentConfig(iofs_path=str(tmp_path))
        with refused:
            async with open_agent(driver, config=config, call_overrider=overrider):
                pytest.fail("opened")


APP = App(
    id="a",
    name="shop",
    annotations={"x/tier": msgspec.Raw(b'"gold"'), "x/shares": msgspec.Raw(b'"many"')},
)
FN = Fn(
    id="f",
    name="pay",
    app_id="a",
    image="pay",
    annotations={"x/tier": msgspec.Raw(b'"platinum"')},
)


def call_of(overrider: Any) -> PendingCall:
    request = CallRequest(method="POST", url="/", headers={})
    given = options.with_extensions({"before": "1"})
    return build_call([options.from_http_fn_request(APP, FN, request), given], overrider)


def test_it_sees_the_app_and_the_function_as_they_are_stored() -> None:
    def by_app(request: CallRequest, call: Call, extensions: Any) -> dict[str, str]:
        assert request.app is not None
        assert request.fn is not None
        own = annotation(request.fn, "x/tier", str)
        shown = annotation(call, "x/tier", str)
        return {"app": annotation(request.app, "x/tier", str), "fn": own, "call": shown}

    call = call_of(by_app)
    assert call.extensions == {"app": "gold", "fn": "platinum", "call": "platinum"}


def test_none_leaves_the_extensions_as_they_are() -> None:
    assert call_of(lambda *_: None).extensions == {"before": "1"}


def wanted_key(request: CallRequest, call: object, extensions: Mapping[str, str]) -> Any:
    return {"tier": extensions["tier"]}


def wanted_annotation(request: CallRequest, call: object, extensions: object) -> Any:
    assert request.app is not None
    return {"tier": annotation(request.app, "x/nothing", str)}


def wanted_number(request: CallRequest, call: object, extensions: object) -> Any:
    assert request.app is not None
    return {"shares": str(annotation(request.app, "x/shares", int))}


def number(request: CallRequest, call: object, extensions: object) -> Any:
    return {"shares": 7}


def numbered(request: CallRequest, call: object, extensions: object) -> Any:
    return {7: "shares"}


def pairs(request: CallRequest, call: object, extensions: object) -> Any:
    return [("shares", "7")]


def broken(request: CallRequest, call: object, extensions: object) -> Any:
    raise ValueError("of the password")


class Provided:
    def __call__(self, request: CallRequest, call: object, extensions: object) -> Any:
        return {"shares": None}


@pytest.mark.parametrize(
    ("overrider", "text"),
    [
        (wanted_key, "wanted_key: there is no key 'tier'"),
        (wanted_annotation, "wanted_annotation: app 'shop' has no annotation 'x/nothing'"),
        (
            wanted_number,
            "wanted_number: annotation 'x/shares' of app 'shop': Expected `int`, got `str`",
        ),
        (number, "number: extension 'shares' is a value of type int, not text"),
        (numbered, "numbered: the name 7 of an extension is not text"),
        (pairs, "pairs: it returned a value of type list instead of a mapping"),
        (broken, "broken: ValueError"),
        (Provided(), "Provided: extension 'shares' is a value of type NoneType, not text"),
    ],
)
def test_the_error_names_the_overrider_and_the_key(overrider: Any, text: str, logs: Logs) -> None:
    with pytest.raises(CallOverriderFailed) as caught:
        call_of(overrider)
    assert caught.value.code == 500
    assert caught.value.message == f"call overrider {__name__}.{text}"
    line = logs.expect_error("call overrider failed")
    assert line["overrider"] == f"{__name__}.{text.partition(':')[0]}"
    assert "Traceback" in str(line["exception"])


def test_one_that_blocks_the_node_is_told(monkeypatch: pytest.MonkeyPatch, logs: Logs) -> None:
    moments = iter([1.0, 3.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(moments, 4.0))
    call_of(lambda *_: None)
    [line] = logs.with_event("call overrider blocks the node")
    assert line["seconds"] == 2.5


def test_an_annotation_may_have_a_default() -> None:
    assert annotation(APP, "x/none", int, 7) == 7
    assert annotation(APP, "x/tier", str, "bronze") == "gold"
    with pytest.raises(InvalidAnnotation, match="has no annotation 'x/none'"):
        annotation(call_of(None).model, "x/none", int)
