from __future__ import annotations

import datetime as dt

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.models import Call
from hostler.slot_key import slot_key

VECTOR = Call(
    app_id="app1",
    syslog_url="tcp://log:514",
    fn_id="fn1",
    image="fnproject/hello:0.0.1",
    timeout=30,
    idle_timeout=45,
    tmpfs_size=7,
    memory=128,
    cpus=500,
    config={"FN_MEMORY": "128", "B": "2", "A": "1"},
    annotations={"k/two": msgspec.Raw(b'"v"'), "k/one": msgspec.Raw(b'{"a":1}')},
)


@pytest.mark.parametrize(
    ("call", "extension", "expected"),
    [
        (VECTOR, "", "674df84e4bb07fc8f09a391c569fbc24ec98467e77cf3833457b058cb099e711"),
        (VECTOR, "ext", "111ef4e7dfcd38b5d150fff28b518d50719c066d7580376ca8ac20df05684764"),
        (Call(), "", "eb142b0cae0baa72a767ebc0823d1be94e14c5bfc52d8e417fc4302fceb6240c"),
    ],
    ids=["full", "extension", "empty"],
)
def test_fn_vectors(call: Call, extension: str, expected: str) -> None:
    assert slot_key(call, extension).hex() == expected


@pytest.mark.parametrize(
    "change",
    [
        {"app_id": "app2"},
        {"syslog_url": ""},
        {"fn_id": "fn2"},
        {"image": "fnproject/hello:0.0.2"},
        {"timeout": 31},
        {"idle_timeout": 46},
        {"tmpfs_size": 8},
        {"memory": 129},
        {"cpus": 501},
        {"config": {"A": "1", "B": "2"}},
        {"config": {"A": "1", "B": "3", "FN_MEMORY": "128"}},
        {"annotations": {}},
        {"annotations": {"k/one": msgspec.Raw(b'{"a":2}'), "k/two": msgspec.Raw(b'"v"')}},
    ],
    ids=lambda change: ",".join(change),
)
def test_what_a_container_is_made_from_changes_the_key(change: dict[str, object]) -> None:
    assert slot_key(attrs.evolve(VECTOR, **change)) != slot_key(VECTOR)  # type: ignore[arg-type]


def test_what_belongs_to_one_call_does_not() -> None:
    other = attrs.evolve(
        VECTOR,
        id="x",
        type="detached",
        method="PUT",
        url="http://elsewhere",
        headers={"A": ["1"]},
        app_name="name",
        trigger_id="t",
        created_at=dt.datetime.now(dt.UTC),
    )
    assert slot_key(other) == slot_key(VECTOR)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.dictionaries(texts, texts, max_size=5), st.randoms())
def test_order_of_the_config_does_not_matter(config: dict[str, str], random: object) -> None:
    items = list(config.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert slot_key(Call(config=dict(items))) == slot_key(Call(config=config))


@given(st.lists(texts, min_size=2, max_size=6, unique=True))
def test_keys_sort_as_their_bytes(keys: list[str]) -> None:
    assert sorted(keys) == [key.decode() for key in sorted(key.encode() for key in keys)]


def test_negative_timeouts_have_a_key_as_in_go() -> None:
    assert slot_key(Call(timeout=-1)) == slot_key(Call(timeout=2**32 - 1))


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=f"memory={2**64}"):
        slot_key(Call(memory=2**64))
