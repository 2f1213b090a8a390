"""JSON objects as messages of ``google.protobuf.Struct``."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.wire.codec import messages as codec
from hostler.wire.codec.fast import varint

texts = st.text(st.characters(exclude_categories=["Cs"]))
jsons = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
"""Some levels deep, but small: hypothesis fails a test whose examples take it long to make."""


@given(st.dictionaries(texts, jsons, max_size=5))
def test_structs_keep_json(value: dict[str, Any]) -> None:
    assert json.loads(codec.decode_struct(codec.encode_struct(json.dumps(value)))) == value


def test_struct_numbers_are_doubles() -> None:
    wired = codec.encode_struct('{"a":1.5,"b":1e300,"c":-2,"d":0.0}')
    assert codec.decode_struct(wired) == '{"a":1.5,"b":1e300,"c":-2,"d":0}'


@pytest.mark.parametrize("text", ["", "[]", "1", '{"a":', "null"])
def test_struct_payload_must_be_an_object(text: str) -> None:
    with pytest.raises(ValueError, match="the payload is not a JSON object"):
        codec.encode_struct(text)


def _nested(levels: int) -> bytes:
    value = b"\x08\x00"  # null
    for _ in range(levels):
        listed = b"\x0a" + varint(len(value)) + value
        value = b"\x32" + varint(len(listed)) + listed
    entry = b"\x0a\x01a\x12" + varint(len(value)) + value
    return b"\x0a" + varint(len(entry)) + entry


def test_deep_structs_are_refused_before_they_overflow_the_stack() -> None:
    assert codec.decode_struct(_nested(100)).count("[") == 100
    with pytest.raises(codec.CodecError, match="nested too deeply"):
        codec.decode_struct(_nested(9000))
