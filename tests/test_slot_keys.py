"""Remembered slot keys are those that would be computed."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
import pytest

from hostler import slot_key as slot_key_module
from hostler.models import Call
from hostler.slot_key import SlotKeys, slot_key

CALL = Call(
    app_id="a",
    fn_id="f",
    image="i",
    timeout=1,
    idle_timeout=2,
    memory=3,
    config={"K": "v"},
    annotations={"n": msgspec.Raw(b"1")},
)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"id": "another call", "headers": {"A": ["b"]}},
        {"app_id": "b"},
        {"syslog_url": "tcp://x"},
        {"image": "j"},
        {"timeout": 5},
        {"idle_timeout": 5},
        {"tmpfs_size": 5},
        {"memory": 5},
        {"cpus": 5},
        {"config": {"K": "w"}},
        {"config": {"K": "v", "L": ""}},
        {"annotations": {"n": msgspec.Raw(b"2")}},
        {"annotations": {}},
    ],
)
def test_a_change_is_seen(change: dict[str, Any]) -> None:
    keys = SlotKeys()
    assert keys.key(CALL, "") == keys.key(CALL, "") == slot_key(CALL)
    other = attrs.evolve(CALL, **change)
    assert keys.key(other, "") == slot_key(other)
    assert keys.key(CALL, "x") == slot_key(CALL, "x")
    assert keys.key(CALL, "") == slot_key(CALL)


def test_a_change_in_place_is_seen() -> None:
    keys = SlotKeys()
    call = attrs.evolve(CALL, config={"K": "v"}, annotations=dict(CALL.annotations))
    keys.key(call, "")
    call.config["K"] = "w"
    assert keys.key(call, "") == slot_key(call)
    del call.annotations["n"]
    assert keys.key(call, "") == slot_key(call)


def test_there_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot_key_module, "MAX_KEYS", 2)
    keys = SlotKeys()
    for number in range(5):
        call = attrs.evolve(CALL, fn_id=f"f{number}")
        assert keys.key(call, "") == slot_key(call)
    assert repr(keys) == "<SlotKeys of 1 functions>"
