"""What holds for all requests: decoding, routing, queries."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from hostler._api_documents import FNS, NewApp, NewFn, NewTrigger, decode, model_of
from hostler.api import Reply, Route
from hostler.api.request import parse_query
from hostler.api.routes import Match, Router
from hostler.errors import InvalidJSON
from hostler.models import Fn

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
FIELDS = st.sampled_from(["name", "ID", "Config", "annotations", "memory", "type", "x"])
SEGMENT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1)


@given(st.binary())
def test_bytes_are_a_document_or_invalid(body: bytes) -> None:
    with contextlib.suppress(InvalidJSON):
        decode(body, NewApp)


@given(st.dictionaries(FIELDS, JSON), st.sampled_from([NewApp, NewFn, NewTrigger]))
def test_any_json_is_a_document_or_invalid(fields: dict[str, Any], type_: type) -> None:
    with contextlib.suppress(InvalidJSON):
        assert isinstance(decode(msgspec.json.encode(fields), type_), type_)


@given(
    st.fixed_dictionaries(
        {
            "name": TEXT,
            "memory": st.integers(-(2**60), 2**60),
            "config": st.dictionaries(TEXT, TEXT),
            "annotations": st.dictionaries(TEXT, JSON),
        }
    )
)
def test_what_is_decoded_is_what_is_encoded(fields: dict[str, Any]) -> None:
    fn = model_of(Fn, decode(msgspec.json.encode(fields), NewFn))
    encoded = msgspec.json.decode(msgspec.json.encode(FNS.document(fn)))
    assert {"annotations": {}, **encoded} | fields == {"annotations": {}, **encoded}


@given(st.dictionaries(TEXT, TEXT))
def test_queries_are_read_as_they_are_written(query: dict[str, str]) -> None:
    assert parse_query(urlencode(query).encode()) == query


@given(st.binary())
def test_any_query_can_be_read(query: bytes) -> None:
    assert all(isinstance(value, str) for value in parse_query(query).values())


async def _handler(_request: Any) -> Reply:
    raise AssertionError("only looked up")


ROUTER = Router(
    [
        Route("GET", "/v2/a/{one}", _handler),
        Route("GET", "/v2/a/{one}/b/{two}", _handler),
        Route("GET", "/v2/c/{one}{rest:path}", _handler),
    ]
)


def find(path: str) -> Match | Reply:
    return ROUTER.find(
        {"method": "GET", "path": path, "raw_path": quote(path).encode(), "query_string": b""}
    )


@given(SEGMENT, SEGMENT, st.text(st.characters(exclude_categories=["Cs"])))
def test_parts_of_a_path_come_out_as_they_went_in(one: str, two: str, rest: str) -> None:
    for path, params in (
        (f"/v2/a/{one}", {"one": one}),
        (f"/v2/a/{one}/b/{two}", {"one": one, "two": two}),
        (f"/v2/c/{one}/{rest}", {"one": one, "rest": f"/{rest}"}),
    ):
        found = find(path)
        assert isinstance(found, Match)
        assert found.params == params
    redirected = find(f"/v2/a/{one}/")
    assert isinstance(redirected, Reply)
    assert redirected.headers == [(b"location", f"/v2/a/{quote(one)}".encode())]
