"""Rendezvous hashing moves as few functions as possible, and spreads them evenly."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from hostler.pool.runner_set import mix64

from .placers import ranking

names = st.lists(
    st.from_regex(r"[a-z]{1,8}:[1-9][0-9]{0,3}", fullmatch=True), unique=True, max_size=12
)


def order(key: str, addresses: list[str]) -> list[str]:
    return [addresses[index] for index in ranking(key, tuple(addresses))]


@given(key=st.text(), addresses=names, data=st.data())
def test_the_order_is_the_runners_own_whatever_the_list_is(
    key: str, addresses: list[str], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(addresses))
    assert order(key, shuffled) == order(key, addresses)
    assert sorted(order(key, addresses)) == sorted(addresses)


@given(key=st.text(), addresses=names, data=st.data())
def test_a_runner_that_leaves_changes_nothing_among_the_others(
    key: str, addresses: list[str], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(addresses or ["none:1"]))
    left = [address for address in addresses if address != gone]
    assert order(key, left) == [name for name in order(key, addresses) if name != gone]


def test_one_more_runner_takes_its_share_from_all_and_no_more() -> None:
    addresses = [f"10.0.0.{number}:9190" for number in range(1, 10)]
    more = [*addresses, "10.0.0.10:9190"]
    keys = [f"fn{number}" for number in range(4000)]
    moved = [key for key in keys if order(key, addresses)[0] != order(key, more)[0]]
    assert all(order(key, more)[0] == more[-1] for key in moved)
    assert 300 < len(moved) < 500  # 400 expected, standard deviation 19


def test_functions_spread_evenly() -> None:
    addresses = [f"10.0.0.{number}:9190" for number in range(1, 11)]
    firsts = Counter(order(f"fn{number}", addresses)[0] for number in range(10_000))
    assert len(firsts) == 10
    assert all(850 < count < 1150 for count in firsts.values())  # standard deviation 30


def test_the_second_choice_spreads_too() -> None:
    """What a lost runner had goes to all others, not to a neighbour."""
    addresses = [f"r{number}:1" for number in range(10)]
    orders = [order(f"fn{number}", addresses) for number in range(10_000)]
    seconds = Counter(names[1] for names in orders if names[0] == "r3:1")
    assert len(seconds) == 9
    assert all(60 < count < 170 for count in seconds.values())  # 111 expected


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_mixing_loses_nothing(one: int, other: int) -> None:
    assert 0 <= mix64(one) < 2**64
    assert (mix64(one) == mix64(other)) == (one == other)


def test_mixing_is_splitmix64s() -> None:
    """Against splitmix64 with seed 0, whose state grows by the golden gamma."""
    gamma = 0x9E3779B97F4A7C15
    outputs = [mix64(step * gamma & 2**64 - 1) for step in (1, 2, 3)]
    assert outputs == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
