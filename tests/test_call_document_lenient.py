from __future__ import annotations

import json
from typing import Any

import pytest

from hostler._call_document import decode_call
from hostler.errors import InvalidCPUs, InvalidJSON
from hostler.models import Call, StatSample


@pytest.mark.parametrize(
    ("document", "call"),
    [
        ({}, Call()),
        ({"unknown": {"a": [1]}}, Call()),
        ({"Timeout": 5, "FN_ID": "f"}, Call(timeout=5, fn_id="f")),
        ({"id": "1", "timeout": None, "config": None, "created_at": None}, Call(id="1")),
        ({"config": {"a": None, "b": "c"}}, Call(config={"a": "", "b": "c"})),
        ({"headers": {"A": None, "B": [None, "c"]}}, Call(headers={"A": [], "B": ["", "c"]})),
        ({"annotations": {"a": None}}, Call()),
        ({"cpus": ""}, Call()),
        ({"cpus": None}, Call()),
        ({"cpus": "0.5"}, Call(cpus=500)),
        ({"memory": 2**64 - 1}, Call(memory=2**64 - 1)),
        ({"delay": -(2**31)}, Call(delay=-(2**31))),
        (
            {"stats": [{"Timestamp": "2025-09-26T12:57:15.1Z", "METRICS": {"a": 1, "b": None}}]},
            Call(stats=[StatSample("2025-09-26T12:57:15.1Z", {"a": 1, "b": 0})]),
        ),
        ({"stats": [None, {"metrics": None}]}, Call(stats=[StatSample("", {})] * 2)),
    ],
    ids=str,
)
def test_what_go_takes_is_taken(document: dict[str, Any], call: Call) -> None:
    assert decode_call(json.dumps(document)) == call


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"timeout": 1.5}, "timeout: Expected `int`, got `float`"),
        ({"timeout": 30.0}, "timeout: Expected `int`, got `float`"),
        ({"timeout": "30"}, "timeout: Expected `int`, got `str`"),
        ({"IDLE_timeout": 2**31}, "idle_timeout: Expected `int` <= 2147483647"),
        ({"delay": -(2**31) - 1}, "delay: Expected `int` >= -2147483648"),
        ({"tmpfs_size": -1}, "tmpfs_size: Expected `int` >= 0"),
        ({"tmpfs_size": 2**32}, "tmpfs_size: Expected `int` <= 4294967295"),
        ({"memory": -1}, "memory: Expected `int` >= 0"),
        ({"memory": 2**64}, "memory: Expected `int` <= 18446744073709551615"),
        ({"execution_duration": 2**63}, "execution_duration: Expected `int` <= "),
        ({"cpus": 5}, "cpus: Expected `str`, got `int`"),
        ({"id": 5}, "id: Expected `str`, got `int`"),
        ({"type": "async"}, "type: Invalid enum value 'async'"),
        ({"config": {"a": 1}}, "config: Expected `str | null`, got `int`"),
        ({"config": []}, "config: Expected `object`, got `array`"),
        ({"annotations": []}, "annotations: Expected `object`, got `array`"),
        ({"headers": {"A": "b"}}, "headers: Expected `array | null`, got `str`"),
        ({"started_at": "yesterday"}, "started_at: not an RFC 3339 date: 'yesterday'"),
        ({"completed_at": 5}, "completed_at: Expected `str`, got `int`"),
        ({"stats": [{}, {"metrics": {"a": -1}}]}, "stats[1].metrics: Expected `int` >= 0"),
        ({"stats": [{"metrics": {"a": 2**64}}]}, "stats[0].metrics: Expected `int` <= 18446"),
        ({"stats": [{"timestamp": "x"}]}, "stats[0].timestamp: not an RFC 3339 date: 'x'"),
        ({"stats": [5]}, "stats: Expected `object | null`, got `int`"),
    ],
    ids=str,
)
def test_refusals_name_the_field(document: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidJSON) as caught:
        decode_call(json.dumps(document))
    assert caught.value.message.startswith(f"Invalid JSON: {message}")
    assert caught.value.code == 400


@pytest.mark.parametrize("cpus", ["-1", "1024.1", "1024001m", "much"])
def test_cpus_out_of_range_have_an_error_of_their_own(cpus: str) -> None:
    with pytest.raises(InvalidCPUs):
        decode_call(json.dumps({"cpus": cpus}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Input data was truncated"),
        ("{", "Input data was truncated"),
        ('{"id":1', "Input data was truncated"),
        ("{}x", "JSON is malformed"),
        ("[]", "Expected `object`, got `array`"),
        ("null", "Expected `object`, got `null`"),
        ('{"annotations":{"a":' + "[" * 100_000, "it is nested too deeply"),
        ('{"id":"\ud800"}', "'utf-8' codec can't encode"),
    ],
    ids=["nothing", "open", "cut", "more", "array", "null", "deep", "surrogate"],
)
def test_other_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidJSON) as caught:
        decode_call(text)
    assert caught.value.message.startswith(f"Invalid JSON: {message}")
