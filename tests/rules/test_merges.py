"""How a patch changes a value: for each key on its own, and nothing else."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.datastore import AppPatch, FnPatch, TriggerPatch
from hostler.models import App, Fn, Trigger
from hostler.rules import Limits, errors, merge_app, merge_fn, merge_trigger
from hostler.rules.values import merge_annotations, merge_config

APP = App(id="1", name="shop", config={"a": "1"}, syslog_url="udp://x")
FN = Fn(id="2", name="pay", app_id="1", image="i")
TRIGGER = Trigger(id="3", name="web", app_id="1", fn_id="2", type="http", source="/")

KEYS = st.sampled_from("abcd")
CONFIGS = st.dictionaries(KEYS, st.sampled_from(["", "1", "2"]))
RAWS = st.sampled_from([b'""', b"null", b"1", b"[1, 2]", b' {"a": ""} ']).map(msgspec.Raw)
CHANGES = st.dictionaries(KEYS, RAWS)
KEPT = st.dictionaries(KEYS, st.sampled_from([b"1", b"[1,2]"]).map(msgspec.Raw))


@given(CONFIGS, CONFIGS)
def test_configurations_merge_key_by_key(old: dict[str, str], changes: dict[str, str]) -> None:
    merged = merge_config(old, changes)
    for key in "abcd":
        expected = changes.get(key) or None if key in changes else old.get(key)
        assert merged.get(key) == expected
    assert merge_config(merged, changes) == merged


@given(KEPT, CHANGES)
def test_annotations_merge_key_by_key(
    old: dict[str, msgspec.Raw], changes: dict[str, msgspec.Raw]
) -> None:
    merged = merge_annotations(old, changes)
    for key in "abcd":
        if key not in changes:
            assert merged.get(key) == old.get(key)
        elif bytes(changes[key]) in (b'""', b"null"):
            assert key not in merged
        else:
            assert bytes(merged[key]) == bytes(changes[key]).replace(b" ", b"")
    assert merge_annotations(merged, changes) == merged


def test_a_patch_of_defaults_changes_nothing() -> None:
    assert merge_app(APP, AppPatch()) is APP
    assert merge_app(APP, AppPatch(name="shop", config={"b": ""})) is APP
    assert merge_fn(FN, FnPatch(), Limits()) is FN
    assert merge_trigger(TRIGGER, TriggerPatch()) is TRIGGER


def test_every_field_of_a_patch_changes_its_own() -> None:
    raw = {"k": msgspec.Raw(b"1")}
    assert merge_app(APP, AppPatch(annotations=raw)) == attrs.evolve(APP, annotations=raw)
    assert merge_app(APP, AppPatch(syslog_url="")) == attrs.evolve(APP, syslog_url="")
    fields: dict[str, Any] = {"image": "j", "memory": 1, "timeout": 2, "idle_timeout": 3}
    for field, value in fields.items():
        patch = FnPatch(**{field: value})
        assert merge_fn(FN, patch, Limits()) == attrs.evolve(FN, **{field: value})
    fields = {"name": "n", "app_id": "9", "fn_id": "9", "source": "/x"}
    for field, value in fields.items():
        merged = merge_trigger(TRIGGER, TriggerPatch(**{field: value}))
        assert merged == attrs.evolve(TRIGGER, **{field: value})


def test_the_result_is_checked_as_a_whole() -> None:
    with pytest.raises(errors.AppNameImmutable) as caught:
        merge_app(APP, AppPatch(name="other"))
    assert caught.value.code == 409
    with pytest.raises(errors.FnInvalidMemory):
        merge_fn(FN, FnPatch(memory=-1), Limits())
    with pytest.raises(errors.TriggerMissingSourcePrefix):
        merge_trigger(TRIGGER, TriggerPatch(source="x"))
    hundred = {f"k{number}": msgspec.Raw(b"1") for number in range(100)}
    full = merge_app(APP, AppPatch(annotations=hundred))
    with pytest.raises(errors.TooManyAnnotationKeys):
        merge_app(full, AppPatch(annotations={"one-more": msgspec.Raw(b"1")}))
    swap = {"k0": msgspec.Raw(b"null"), "one-more": msgspec.Raw(b"1")}
    assert len(merge_app(full, AppPatch(annotations=swap)).annotations) == 100
