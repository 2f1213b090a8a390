"""Whether memory grows: a slope, and how sure it is."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator

import pytest

from benchmarks._memory import MemoryLog, trend

X = [float(number) for number in range(60)]


def noise(seed: int, size: float) -> list[float]:
    dice = random.Random(seed)
    return [dice.gauss(0, size) for _ in X]


@pytest.mark.parametrize("slope", [0.0, 2.5, -1.0])
def test_a_line_is_found_exactly(slope: float) -> None:
    found, error = trend(X, [7 + slope * x for x in X])
    assert found == pytest.approx(slope)
    assert error == pytest.approx(0, abs=1e-6)


def test_the_error_is_such_that_the_true_slope_is_hardly_ever_beyond_it() -> None:
    misses = 0
    for seed in range(200):
        slope, error = trend(X, [3 * x + e for x, e in zip(X, noise(seed, 10), strict=True)])
        misses += abs(slope - 3) > error
    assert 2 <= misses <= 20  # 5 % are meant


def test_samples_that_depend_on_the_one_before_are_less_sure() -> None:
    last, walk = 0.0, []
    for step in noise(1, 10):
        last = 0.8 * last + step
        walk.append(last)
    shuffled = random.Random(1).sample(walk, len(walk))
    assert trend(X, walk)[1] > 1.5 * trend(X, shuffled)[1]


@pytest.fixture
def few_objects() -> Iterator[None]:
    """Each sample collects garbage, which takes long with all that a whole session has."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def test_a_leak_shows_in_the_blocks(few_objects: None) -> None:
    def slope(kept: int) -> tuple[float, float]:
        log, held = MemoryLog(), []
        for done in range(0, 8000, 800):
            held += [object() for _ in range(8 * kept)]
            log.sample(done)
        metrics = log.metrics()
        assert metrics["resident_kb_last"] > 1000
        slope = metrics["python_blocks_per_1000_calls"]
        return slope, metrics["python_blocks_per_1000_calls_error"]

    leaking, error = slope(50)
    assert leaking - error > 100
    assert slope(0)[0] < 100
