"""How long the clients of a function wait before they leave."""

from __future__ import annotations

import math
import random

import pytest

from hostler._launch_policy import EDGES, FORGET_CLIENTS, LEAST, SHORTEST_PATIENCE, ClientPatience


def test_nobody_knows_at_first_nor_by_two_clients() -> None:
    patience = ClientPatience()
    assert patience.bound(0.0) == math.inf
    for _ in range(int(LEAST) - 1):
        patience.left(3.0, 0.0)
    assert patience.bound(0.0) == math.inf
    patience.left(3.0, 0.0)
    assert 2.0 < patience.bound(0.0) < 3.0


@pytest.mark.parametrize("impatient", [3, 20])
def test_a_client_that_always_leaves_early_binds_nobody_who_is_served_later(impatient: int) -> None:
    patience = ClientPatience()
    for number in range(100 * impatient):
        patience.served(2.0, number / 1000)
    for number in range(impatient):
        patience.left(0.3, 1 + number / 1000)
    assert patience.bound(1.5) == math.inf


def test_half_of_them_bind_all() -> None:
    patience, rng = ClientPatience(), random.Random(1)
    for number in range(200):
        if rng.random() < 0.5:
            patience.left(2.0, number / 100)
        else:
            patience.served(5.0, number / 100)
    assert 1.3 < patience.bound(2.0) < 2.0


def test_waits_of_uniform_length_are_bound_where_one_in_twenty_leaves() -> None:
    patience, rng = ClientPatience(), random.Random(1)
    for number in range(2000):
        waits, bears = 6.0, rng.uniform(1, 30)
        now = number / 200
        if bears < waits:
            patience.left(bears, now)
        else:
            patience.served(waits, now)
    assert 1.3 < patience.bound(10.0) < 2.6  # 5 % bear less than 2.45 s


def test_it_is_forgotten() -> None:
    patience = ClientPatience()
    for _ in range(10):
        patience.left(1.0, 0.0)
    assert patience.bound(1.0) < 1.0
    assert patience.bound(10 * FORGET_CLIENTS) == math.inf
    assert patience.bound(20 * FORGET_CLIENTS) == math.inf


def test_what_is_too_short_has_other_reasons() -> None:
    patience = ClientPatience()
    for _ in range(100):
        patience.left(EDGES[0] / 2, 0.0)
    assert patience.bound(0.0) == math.inf
    for _ in range(100):
        patience.left(EDGES[0], 0.0)
    assert patience.bound(0.0) == SHORTEST_PATIENCE
    assert "bound=0.25" in repr(patience)
