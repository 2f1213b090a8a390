from __future__ import annotations

import datetime as dt
from typing import Any

import attrs
import msgspec
import pytest

from hostler.abc import CallRequest
from hostler.bodies import BytesBody
from hostler.calls import CallDraft, DiscardWriter, build_call
from hostler.errors import APIError, HostlerError
from hostler.models import App, Call, Fn
from hostler.options import (
    from_http_fn_request,
    from_model,
    invoke_detached,
    with_extensions,
    with_request_id,
    with_slot_hash_id,
    with_trigger,
    with_writer,
)
from tests.support.ids import parse_id

APP = App(
    id="app1",
    name="shop",
    config={"A": "app", "B": "app", "FN_TYPE": "mine"},
    annotations={"x": msgspec.Raw(b"1"), "y": msgspec.Raw(b"1")},
    syslog_url="tcp://log:514",
)
FN = Fn(
    id="fn1",
    name="buy",
    app_id="app1",
    image="img",
    memory=256,
    timeout=10,
    idle_timeout=20,
    config={"B": "fn", "FN_MEMORY": "1"},
    annotations={"y": msgspec.Raw(b"2")},
)


def _request(**changes: Any) -> CallRequest:
    request = CallRequest(
        method="POST",
        url="http://h:8080/invoke/fn1?a=b",
        headers={"Content-Type": ["text/plain"], "X-A": ["1", "2"]},
        body=BytesBody(b"body"),
    )
    return attrs.evolve(request, **changes)


def test_a_call_of_an_http_request() -> None:
    before = dt.datetime.now(dt.UTC)
    request = _request()
    call = build_call([from_http_fn_request(APP, FN, request)])
    model = call.model
    assert parse_id(model.id).time_ms >= int(before.timestamp() * 1000)
    assert model.created_at is not None
    assert before <= model.created_at <= dt.datetime.now(dt.UTC)
    assert model == Call(
        id=model.id,
        created_at=model.created_at,
        type="sync",
        image="img",
        timeout=10,
        idle_timeout=20,
        memory=256,
        config={
            "A": "app",
            "B": "fn",
            "FN_MEMORY": "256",
            "FN_TYPE": "sync",
            "FN_FN_ID": "fn1",
            "FN_APP_ID": "app1",
        },
        annotations={"x": msgspec.Raw(b"1"), "y": msgspec.Raw(b"2")},
        headers={"Content-Type": ["text/plain"], "X-A": ["1", "2"]},
        url="http://h:8080/invoke/fn1?a=b",
        method="POST",
        syslog_url="tcp://log:514",
        app_id="app1",
        app_name="shop",
        fn_id="fn1",
    )
    assert call.request is request
    assert call.body is request.body
    assert isinstance(call.writer, DiscardWriter)


def test_nothing_is_shared_with_the_request_the_app_or_the_function() -> None:
    request = _request()
    model = build_call([from_http_fn_request(APP, FN, request)]).model
    model.headers["X-A"].append("3")
    model.headers["X-New"] = ["1"]
    model.config["NEW"] = "1"
    model.annotations.clear()
    assert request.headers == {"Content-Type": ["text/plain"], "X-A": ["1", "2"]}
    assert "NEW" not in APP.config | FN.config
    assert APP.annotations
    assert FN.annotations


def test_each_use_of_an_option_makes_a_new_call() -> None:
    option = from_http_fn_request(APP, FN, _request())
    one, other = build_call([option]).model, build_call([option]).model
    assert one.id != other.id
    assert one.headers is not other.headers


@pytest.mark.parametrize(
    ("url", "headers", "expected"),
    [
        ("/invoke/fn1", {"Host": ["shop.example"]}, "http://shop.example/invoke/fn1"),
        ("/invoke/fn1", {"host": ["shop.example"]}, "http://shop.example/invoke/fn1"),
        ("/invoke/fn1", {}, "/invoke/fn1"),
        ("https://a/b", {"Host": ["shop.example"]}, "https://a/b"),
    ],
)
def test_the_url_is_absolute_and_the_host_no_header(
    url: str, headers: dict[str, list[str]], expected: str
) -> None:
    model = build_call([from_http_fn_request(APP, FN, _request(url=url, headers=headers))]).model
    assert model.url == expected
    assert model.headers == {}


def test_names_of_headers_become_canonical() -> None:
    request = _request(headers={"x-a": ["1"], "X-A": ["2"]})
    assert build_call([from_http_fn_request(APP, FN, request)]).model.headers == {"X-A": ["1", "2"]}


def test_a_call_of_a_model() -> None:
    model = Call(payload="päyload", url="http://h/", headers={"connection": ["close"]})
    call = build_call([from_model(model)])
    assert call.model is model
    assert call.body.data == "päyload".encode()
    assert model.headers == call.request.headers == {"Connection": ["close"]}
    assert model.headers is not call.request.headers
    assert (call.request.method, call.request.url) == ("GET", "http://h/")


def test_a_body_beats_the_payload() -> None:
    body = BytesBody(b"stream")
    assert build_call([from_model(Call(payload="p", method="PUT"), body)]).body is body


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Call(method="GE T"), "invalid method 'GE T'"),
        (Call(method="GÉT"), "invalid method 'GÉT'"),
        (Call(url="http://h/a b"), "invalid URL 'http://h/a b': it has blanks or control"),
        (Call(url="http://h/\r\nX: y"), "invalid URL 'http://h/\\r\\nX: y': it has blanks"),
        (Call(url="http://h:port/"), "invalid URL 'http://h:port/': Port could not be"),
        (Call(url="http://[::1/"), "invalid URL 'http://[::1/': Invalid IPv6 URL"),
    ],
)
def test_models_that_no_request_could_have(model: Call, message: str) -> None:
    with pytest.raises(APIError) as caught:
        build_call([from_model(model)])
    assert caught.value.code == 400
    assert caught.value.message.startswith(message)


def test_detached_and_trigger_change_the_model() -> None:
    call = build_call(
        [from_http_fn_request(APP, FN, _request()), invoke_detached(), with_trigger("t1")]
    )
    assert (call.model.type, call.model.trigger_id) == ("detached", "t1")
    assert call.model.config["FN_TYPE"] == "sync"


@pytest.mark.parametrize(
    ("option", "name"),
    [(invoke_detached(), "invoke_detached"), (with_trigger("t"), "with_trigger")],
)
def test_options_that_need_a_model_say_so(option: Any, name: str) -> None:
    with pytest.raises(HostlerError, match=f"{name} must come after the option that makes"):
        option(CallDraft())


def test_the_other_options_do_not_care_for_order() -> None:
    writer, extensions = DiscardWriter(), {"a": "b"}
    others = [
        with_writer(writer),
        with_extensions({"replaced": "1"}),
        with_extensions(extensions),
        with_request_id("r1"),
        with_slot_hash_id(b"key"),
    ]
    source = from_model(Call())
    for options in ([*others, source], [source, *others]):
        call = build_call(options)
        assert call.writer is writer
        assert call.extensions == {"a": "b"}
        assert call.extensions is not extensions
        assert (call.request_id, call.slot_hash_id) == ("r1", b"key")


@pytest.mark.parametrize("none", [None, b""])
def test_no_slot_key(none: bytes | None) -> None:
    options = [from_model(Call()), with_slot_hash_id(b"key"), with_slot_hash_id(none)]
    assert build_call(options).slot_hash_id is None


def test_time_in_functions_adds_up_and_is_told_in_the_model() -> None:
    """Reference 02, section 1.1: each attempt that ran adds its own."""
    call = build_call([from_model(Call(id="c"))])
    assert not call.user_execution_ns
    call.add_user_execution_ns(3)
    call.add_user_execution_ns(4)
    assert (call.user_execution_ns, call.model.execution_duration_ns) == (7, 7)
