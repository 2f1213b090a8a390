"""Names, sources, images, URLs: what may be, to the byte."""

from __future__ import annotations

import contextlib
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.models import App, Fn, Trigger
from hostler.rules import Limits, check_new_app, check_new_fn, check_new_trigger, errors

LIMITS = Limits()


def app(**fields: Any) -> App:
    return check_new_app(App(**{"id": "", "name": "shop", **fields}))


def fn(**fields: Any) -> Fn:
    values = {"id": "", "name": "pay", "app_id": "a", "image": "i"}
    return check_new_fn(Fn(**{**values, **fields}), LIMITS)


def trigger(**fields: Any) -> Trigger:
    values = {"id": "", "name": "web", "app_id": "a", "fn_id": "f", "type": "http", "source": "/"}
    return check_new_trigger(Trigger(**{**values, **fields}))


@pytest.mark.parametrize(
    "name", ["a", "A-b_9", "é", "名前", "Ⅷ", "½", "٣", "ʰ", "x" * 255, "é" * 127]
)
def test_names_of_apps_and_triggers(name: str) -> None:
    assert app(name=name).name == trigger(name=name).name == name


@pytest.mark.parametrize(
    "name", ["a b", "a/b", "a.b", "a\0", "e\u0301", "😀", "a\n", "\ud800", "‿", "a~"]
)
def test_other_characters(name: str) -> None:
    with pytest.raises(errors.AppInvalidName):
        app(name=name)
    with pytest.raises(errors.TriggerInvalidName):
        trigger(name=name)


@pytest.mark.parametrize("name", ["x" * 256, "é" * 128, "\ud800" * 90])
def test_names_are_measured_in_bytes(name: str) -> None:
    with pytest.raises(errors.AppNameTooLong):
        app(name=name)
    with pytest.raises(errors.TriggerNameTooLong):
        trigger(name=name)
    with pytest.raises(errors.FnNameTooLong):
        fn(name=name)


@pytest.mark.parametrize("name", ["a", "a.b~c-d_e", "$&+=:@", ".", "x" * 255])
def test_names_of_functions_are_their_own_path_escape(name: str) -> None:
    assert fn(name=name).name == name


@pytest.mark.parametrize(
    "name", ["a b", "a/b", "a,b", "a;b", "a?", "a%20", "é", "a\0", "(", "'", "#"]
)
def test_names_of_functions_that_would_be_escaped(name: str) -> None:
    with pytest.raises(errors.FnInvalidName):
        fn(name=name)


@given(st.text(max_size=20))
def test_any_name_is_taken_or_refused(name: str) -> None:
    letters = all(c in "_-" or unicodedata.category(c) in LETTERS_AND_NUMBERS for c in name)
    try:
        taken = app(name=name).name == name
    except errors.AppMissingName:
        assert name == ""
    except errors.AppInvalidName:
        assert not letters
    else:
        assert letters
        assert taken


LETTERS_AND_NUMBERS = ("Lu", "Ll", "Lt", "Lm", "Lo", "Nd", "Nl", "No")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: fn(image="a\0"), "image must not have NUL characters"),
        (lambda: fn(image="\udfff"), "image must be Unicode text"),
        (lambda: fn(image="é" * 2049), "image must be 4096 bytes or less"),
        (lambda: trigger(source="/\0"), "source must not have NUL characters"),
        (lambda: trigger(source="/" + "é" * 512), "source must be 1024 bytes or less"),
        (lambda: app(syslog_url="udp://a\0"), "syslog_url must not have NUL characters"),
        (lambda: app(config={"\ud800": ""}), "config must be Unicode text"),
        (lambda: fn(config={"a": "x" * 1048576}), "config as JSON must be 1048576 bytes or less"),
    ],
)
def test_what_some_database_could_not_keep(make: Any, text: str) -> None:
    with pytest.raises(errors.InvalidText) as caught:
        make()
    assert (caught.value.code, caught.value.message) == (400, text)


def test_what_just_fits() -> None:
    assert len(fn(image="é" * 2048).image) == 2048
    assert len(trigger(source="/" + "é" * 511 + "x").source) == 513
    config = {"a": "x" * (1048576 - len('{"a":""}'))}
    assert app(config=config).config == config


@pytest.mark.parametrize(
    "url",
    [
        *("", "udp://logs", "tcp://logs:514", "tcp+tls://[::1]:6514", " tcp://logs:1 "),
        *("unix:///dev/log", "unixgram:///dev/log"),
    ],
)
def test_syslog_urls(url: str) -> None:
    assert app(syslog_url=url).syslog_url == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://x", "invalid scheme, only [tcp, udp, unix, unixgram, tcp+tls] are supported"),
        ("logs:514", "invalid scheme, only [tcp, udp, unix, unixgram, tcp+tls] are supported"),
        ("tcp://", "it names no target"),
        ("unix://", "it names no target"),
        ("tcp://[::1", "Invalid IPv6 URL"),
        ("tcp://a:99999", "Port out of range 0-65535"),
    ],
)
def test_bad_syslog_urls(url: str, reason: str) -> None:
    with pytest.raises(errors.InvalidSyslogURL) as caught:
        app(syslog_url=url)
    assert caught.value.message == f'invalid syslog url: "{url}" {reason}'


@given(st.text(max_size=30))
def test_any_syslog_url_is_taken_or_refused(url: str) -> None:
    with contextlib.suppress(errors.InvalidSyslogURL, errors.InvalidText):
        assert app(syslog_url=f"tcp://{url}").syslog_url == f"tcp://{url}"


@pytest.mark.parametrize("shape", ["", "GENERIC_X86", "GENERIC_ARM", "GENERIC_X86_ARM"])
def test_shapes(shape: str) -> None:
    assert app(shape=shape).shape == shape
