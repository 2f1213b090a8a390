from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler import ids
from hostler.ids import IdGenerator, format_id, machine_id_of
from tests.support.ids import MAX_ID, IdParts, parse_id

parts = st.builds(
    IdParts,
    time_ms=st.integers(0, 2**48 - 1),
    machine_id=st.integers(0, 2**48 - 1),
    counter=st.integers(0, 2**32 - 1),
)


def test_known_text() -> None:
    assert format_id(0, 0, 0) == "0" * 26
    assert format_id(2**48 - 1, 2**48 - 1, 2**32 - 1) == MAX_ID
    # the ten characters of the time are those of the ULID specification's example
    assert parse_id("01ARZ3NDEKTSV4RRFFQ69G5FAV").time_ms == 1469922850259


@given(parts)
def test_what_is_written_is_read_back(given_parts: IdParts) -> None:
    text = format_id(*given_parts)
    assert len(text) == 26
    assert parse_id(text) == given_parts


@given(parts, parts)
def test_texts_sort_as_their_parts(one: IdParts, other: IdParts) -> None:
    def order(item: IdParts) -> tuple[int, int, int]:
        return item.time_ms, item.machine_id, item.counter

    assert (order(one) < order(other)) == (format_id(*one) < format_id(*other))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0" * 25,
        "0" * 27,
        "8" + "0" * 25,
        "0" * 25 + "U",
        "0" * 25 + "I",
        "0" * 25 + "a",
        "0" * 25 + "٣",
        "0" * 25 + "\n",
    ],
)
def test_other_texts_are_no_ids(text: str) -> None:
    with pytest.raises(ValueError, match="id"):
        parse_id(text)


@pytest.mark.parametrize(
    "bad", [IdParts(-1, 0, 0), IdParts(2**48, 0, 0), IdParts(0, 2**48, 0), IdParts(0, 0, 2**32)]
)
def test_parts_out_of_range(bad: IdParts) -> None:
    with pytest.raises(ValueError, match="out of range"):
        format_id(*bad)


def test_machine_id_of_an_address() -> None:
    assert machine_id_of("10.0.0.1", 8080) == 0x0A000001_1F90
    with pytest.raises(ValueError, match="not a port: 65536"):
        machine_id_of("10.0.0.1", 65536)
    with pytest.raises(ValueError, match="::1"):
        machine_id_of("::1", 80)


class Clock:
    """Tells the given milliseconds, one after the other."""

    def __init__(self, unix_ms: Sequence[int]) -> None:
        self._unix_ms = iter(unix_ms)

    def time_ns(self) -> int:
        return next(self._unix_ms) * 1_000_000


def test_ids_carry_time_machine_and_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "time", Clock([1_000, 1_000]))
    generator = IdGenerator(7, counter=41)
    assert parse_id(generator.new()) == IdParts(1_000, 7, 41)
    assert parse_id(generator.new()) == IdParts(1_000, 7, 42)
    assert repr(generator) == "<IdGenerator machine_id=0x7 next=43>"


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=30))
def test_ids_sort_in_order_of_making_whatever_the_clock_does(clock: list[int]) -> None:
    generator = IdGenerator(1, counter=2**32 - 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids, "time", Clock(clock))
        made = [generator.new() for _ in clock]
    assert made == sorted(set(made))


def test_threads_never_get_the_same_id() -> None:
    generator = IdGenerator(1)
    with ThreadPoolExecutor(4) as pool:
        batches = pool.map(lambda _: [generator.new() for _ in range(500)], range(8))
    made = [text for batch in batches for text in batch]
    assert len(set(made)) == len(made) == 4_000


def test_the_process_generator_takes_a_machine_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_process_ids", IdGenerator(0))
    ids.set_machine_id(machine_id_of("127.0.0.1", 1))
    before = time.time_ns() // 1_000_000
    made = parse_id(ids.new_id())
    assert made.machine_id == machine_id_of("127.0.0.1", 1)
    assert before <= made.time_ms <= time.time_ns() // 1_000_000
    with pytest.raises(ValueError, match="out of range"):
        ids.set_machine_id(2**48)
