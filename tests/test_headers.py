from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler import headers as headers_module
from hostler.headers import (
    HOP_BY_HOP,
    are_canonical,
    canonical_header,
    canonical_headers,
    end_to_end,
    end_to_end_pairs,
)


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("content-type", "Content-Type"),
        ("CONTENT-TYPE", "Content-Type"),
        ("fn-http-h-x-forwarded-for", "Fn-Http-H-X-Forwarded-For"),
        ("ETag", "Etag"),
        ("x--y-", "X--Y-"),
        ("3d-a", "3d-A"),
        ("a_b.c", "A_b.c"),
        ("", ""),
        ("user agent", "user agent"),
        ("größe", "größe"),
        ("a:b", "a:b"),
    ],
)
def test_canonical_names(name: str, canonical: str) -> None:
    assert canonical_header(name) == canonical


@given(st.text())
def test_canonical_is_stable_and_only_changes_case(name: str) -> None:
    canonical = canonical_header(name)
    assert canonical_header(canonical) == canonical
    assert canonical.lower() == name.lower()


def test_long_names_are_not_kept() -> None:
    before = headers_module._cached.cache_info()
    assert canonical_header("x-" + "y" * 10_000) == "X-Y" + "y" * 9_999
    assert headers_module._cached.cache_info() == before


def test_hop_by_hop_names_are_canonical() -> None:
    assert {canonical_header(name) for name in HOP_BY_HOP} == HOP_BY_HOP


def test_copies_are_not_shared() -> None:
    given_headers = {"x-a": ["1"], "X-A": ["2"], "b": ["3"]}
    copy = canonical_headers(given_headers)
    assert copy == {"X-A": ["1", "2"], "B": ["3"]}
    copy["B"].append("4")
    assert given_headers["b"] == ["3"]

    kept = end_to_end(copy)
    kept["B"].append("5")
    assert copy["B"] == ["3", "4"]


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
def test_hop_by_hop_headers_stop(name: str) -> None:
    assert end_to_end({name: ["x"], "Content-Type": ["a/b"]}) == {"Content-Type": ["a/b"]}
    assert end_to_end_pairs([(name.upper(), "x"), ("a", "b")]) == [("A", "b")]


@pytest.mark.parametrize(
    ("values", "kept"),
    [(["trailers"], True), (["gzip"], False), (["trailers", "gzip"], False), (["Trailers"], False)],
)
def test_te_is_kept_if_it_is_exactly_trailers(values: list[str], kept: bool) -> None:
    assert ("Te" in end_to_end({"Te": values})) is kept


def test_headers_named_by_connection_stop() -> None:
    headers = {"Connection": ["close, x-secret", ",X-Other ,"], "X-Secret": ["1"], "X-Other": ["2"]}
    assert end_to_end({**headers, "X-Kept": ["3"]}) == {"X-Kept": ["3"]}
    pairs = [("x-secret", "1"), ("connection", "X-SECRET"), ("x-kept", "3")]
    assert end_to_end_pairs(pairs) == [("X-Kept", "3")]


def test_names_are_canonical_whether_they_were_seen_before_or_not() -> None:
    long = "X-X" + "x" * 100
    for _ in range(2):
        assert are_canonical([])
        assert are_canonical(["X-Never-Before", long])
        assert not are_canonical(["X-Never-Before", "x-never-before"])
        assert not are_canonical(["x-never-before", "X-Never-Before"])
