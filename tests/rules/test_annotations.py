"""Annotations at the exact byte."""

from __future__ import annotations

import msgspec
import pytest

from hostler.rules import errors
from hostler.rules.values import check_annotations


def _check(key: str, value: bytes) -> None:
    check_annotations({key: msgspec.Raw(value)})


@pytest.mark.parametrize("key", ["a", "!", "~", "fnproject.io/fn/x", "x" * 128])
def test_keys(key: str) -> None:
    _check(key, b"1")


@pytest.mark.parametrize("key", ["", "a b", "é", "a\n", "\x7f", "\ud800", "é" * 200])
def test_keys_of_other_characters(key: str) -> None:
    with pytest.raises(errors.InvalidAnnotationKey):
        _check(key, b"1")


def test_a_long_key() -> None:
    with pytest.raises(errors.InvalidAnnotationKeyLength):
        _check("x" * 129, b'""')


@pytest.mark.parametrize("value", [b"0", b"false", b"{}", b"[]", b'" "', b'"%s"' % (b"x" * 510)])
def test_values(value: bytes) -> None:
    _check("k", value)


@pytest.mark.parametrize("value", [b'""', b"null", b"{", b"", b"nul", b'"\xff"', b"1 2"])
def test_values_that_are_empty_or_no_json(value: bytes) -> None:
    with pytest.raises(errors.InvalidAnnotationValue):
        _check("k", value)


def test_a_long_value() -> None:
    with pytest.raises(errors.InvalidAnnotationValueLength):
        _check("k", b'"%s"' % (b"x" * 511))
    with pytest.raises(errors.InvalidAnnotationValueLength):
        _check("k", b"[" * 100_000 + b"]" * 100_000)


def test_a_hundred_keys() -> None:
    values = {f"k{number}": msgspec.Raw(b"1") for number in range(100)}
    check_annotations(values)
    with pytest.raises(errors.TooManyAnnotationKeys):
        check_annotations({**values, "one-more": msgspec.Raw(b"1")})
