from __future__ import annotations

import datetime as dt
import json
import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler._call_document import _decode_fast, compact, decode_call, decode_lenient, encode_call
from hostler.models import Call, StatSample

FULL = """
{"id":"01BX5ZZKBKACTAV9WEVGEMMVRZ","status":"","image":"fnproject/hello:0.0.1","type":"sync",
"url":"http://h/invoke/fn1","method":"POST","timeout":30,"idle_timeout":45,"tmpfs_size":7,
"memory":128,"cpus":"500m","config":{"A":"1","B":"2","FN_MEMORY":"128"},
"annotations":{"k/one":{"a":1},"k/two":"v"},
"headers":{"Content-Type":["text/plain"],"X-A":["1","2"]},"syslog_url":"tcp://log:514",
"completed_at":"0001-01-01T00:00:00.000Z","created_at":"2025-09-26T12:57:15.123Z",
"started_at":"0001-01-01T00:00:00.000Z","app_id":"app1","app_name":"","trigger_id":"",
"fn_id":"fn1"}
""".replace("\n", "")

FULL_CALL = Call(
    id="01BX5ZZKBKACTAV9WEVGEMMVRZ",
    image="fnproject/hello:0.0.1",
    type="sync",
    url="http://h/invoke/fn1",
    method="POST",
    timeout=30,
    idle_timeout=45,
    tmpfs_size=7,
    memory=128,
    cpus=500,
    config={"FN_MEMORY": "128", "B": "2", "A": "1"},
    annotations={"k/one": msgspec.Raw(b'{"a":1}'), "k/two": msgspec.Raw(b'"v"')},
    headers={"X-A": ["1", "2"], "Content-Type": ["text/plain"]},
    syslog_url="tcp://log:514",
    created_at=dt.datetime(2025, 9, 26, 12, 57, 15, 123_000, dt.UTC),
    app_id="app1",
    fn_id="fn1",
)

EMPTY = """
{"id":"","status":"","completed_at":"0001-01-01T00:00:00.000Z",
"created_at":"0001-01-01T00:00:00.000Z","started_at":"0001-01-01T00:00:00.000Z",
"app_id":"","app_name":"","trigger_id":"","fn_id":""}
""".replace("\n", "")

ALL_NAMES = [
    *("id", "status", "image", "delay", "type", "payload", "url", "method", "timeout"),
    *("idle_timeout", "tmpfs_size", "memory", "cpus", "config", "annotations", "headers"),
    *("syslog_url", "completed_at", "created_at", "started_at", "execution_duration", "stats"),
    *("error", "app_id", "app_name", "trigger_id", "fn_id"),
]


@pytest.mark.parametrize(("text", "call"), [(FULL, FULL_CALL), (EMPTY, Call())])
def test_golden_documents(text: str, call: Call) -> None:
    assert encode_call(call) == text
    assert decode_call(text) == call


@pytest.mark.parametrize("text", [FULL, EMPTY])
def test_golden_documents_take_the_fast_path_and_both_paths_agree(text: str) -> None:
    assert _decode_fast(text) == decode_lenient(text)


def test_every_field_is_written_in_the_order_of_fn() -> None:
    call = Call(
        id="1",
        status="running",
        image="i",
        delay=1,
        type="detached",
        payload="p",
        url="u",
        method="GET",
        timeout=2,
        idle_timeout=3,
        tmpfs_size=4,
        memory=5,
        cpus=6,
        config={"a": "b"},
        annotations={"a": msgspec.Raw(b"[1]")},
        headers={"A": ["b"]},
        syslog_url="s",
        execution_duration_ns=7,
        stats=[StatSample("2025-09-26T12:57:15.123Z", {"mem": 8})],
        error="e",
        app_id="a",
        app_name="n",
        trigger_id="t",
        fn_id="f",
    )
    document = json.loads(encode_call(call))
    assert list(document) == ALL_NAMES
    assert document["execution_duration"] == 7
    assert document["cpus"] == "6m"
    assert document["stats"] == [{"timestamp": "2025-09-26T12:57:15.123Z", "metrics": {"mem": 8}}]
    assert decode_call(encode_call(call)) == call


def test_annotations_are_kept_compact_and_in_order() -> None:
    text = (
        EMPTY[:-1] + ',"annotations": {"k" : { "b" : 1.50,\n\t"a" : [ "x y\\" z" , "\\u00e9" ] }}}'
    )
    call = decode_call(text)
    assert bytes(call.annotations["k"]) == b'{"b":1.50,"a":["x y\\" z","\\u00e9"]}'
    assert '"annotations":{"k":{"b":1.50,"a":["x y\\" z","\\u00e9"]}}' in encode_call(call)


def test_annotations_do_not_keep_the_document() -> None:
    call = decode_call(FULL)
    assert call.annotations["k/one"].copy() is call.annotations["k/one"]


def test_dates_keep_their_zone() -> None:
    zone = dt.timezone(dt.timedelta(hours=2))
    call = Call(started_at=dt.datetime(2025, 9, 26, 12, 57, 15, tzinfo=zone))
    text = encode_call(call)
    assert '"started_at":"2025-09-26T12:57:15.000+02:00"' in text
    started = decode_call(text).started_at
    assert started is not None
    assert started.utcoffset() == dt.timedelta(hours=2)


def test_an_empty_date_is_the_epoch() -> None:
    text = EMPTY.replace('"created_at":"0001-01-01T00:00:00.000Z"', '"created_at":""')
    assert decode_call(text).created_at == dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def test_a_date_without_zone_is_not_written() -> None:
    with pytest.raises(ValueError, match="needs a zone"):
        encode_call(Call(created_at=dt.datetime(2025, 1, 1)))


def test_half_of_a_surrogate_pair_is_not_written() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode_call(Call(payload="\ud800"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
dates = st.none() | st.datetimes(
    min_value=dt.datetime(2, 1, 1),
    timezones=st.integers(-720, 840).map(lambda m: dt.timezone(dt.timedelta(minutes=m))),
).map(lambda date: date.replace(microsecond=date.microsecond // 1000 * 1000))
int32 = st.integers(-(2**31), 2**31 - 1)
calls = st.builds(
    Call,
    id=texts,
    status=texts,
    image=texts,
    delay=int32,
    type=st.sampled_from(["", "sync", "detached"]),
    payload=texts,
    url=texts,
    method=texts,
    timeout=int32,
    idle_timeout=int32,
    tmpfs_size=st.integers(0, 2**32 - 1),
    memory=st.integers(0, 2**64 - 1),
    cpus=st.integers(0, 1_024_000),
    config=st.dictionaries(texts, texts, max_size=3),
    annotations=st.dictionaries(
        texts,
        json_values.filter(lambda value: value is not None).map(
            lambda value: msgspec.Raw(msgspec.json.encode(value))
        ),
        max_size=3,
    ),
    headers=st.dictionaries(texts, st.lists(texts, max_size=3), max_size=3),
    completed_at=dates,
    created_at=dates,
    started_at=dates,
    execution_duration_ns=st.integers(-(2**63), 2**63 - 1),
    stats=st.lists(
        st.builds(
            StatSample,
            st.just("2025-09-26T12:57:15.000Z"),
            st.dictionaries(texts, st.integers(0, 2**64 - 1), max_size=3),
        ),
        max_size=2,
    ),
    error=texts,
    app_id=texts,
    fn_id=texts,
)


@given(calls)
def test_what_is_written_is_read_back_on_both_paths(call: Call) -> None:
    text = encode_call(call)
    json.loads(text)
    assert decode_call(text) == call
    assert decode_lenient(text) == call


@given(json_values, st.sampled_from([None, 1, "\t"]))
def test_compact_only_drops_white_space(value: object, indent: int | str | None) -> None:
    loose = json.dumps(value, indent=indent, ensure_ascii=False)
    tight = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    assert bytes(compact(msgspec.Raw(loose.encode("utf-8", "surrogatepass")))) == tight.encode(
        "utf-8", "surrogatepass"
    )


@given(st.sampled_from(ALL_NAMES), st.lists(st.booleans(), min_size=30, max_size=30))
def test_names_match_in_any_case(name: str, upper: list[bool]) -> None:
    spelled = "".join(char.upper() if up else char for char, up in zip(name, upper, strict=False))
    assert decode_call(FULL.replace(f'"{name}":', f'"{spelled}":')) == FULL_CALL
    assert set(name) <= set(string.ascii_lowercase + "_")
