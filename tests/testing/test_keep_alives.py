"""Every keep-alive policy keeps the contract, and the suite finds those that don't."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import pytest

from hostler.abc import KeepAlive, KeptContainer
from hostler.keep_alive import KEEP_ALIVES, FixedKeepAlive
from hostler.testing import ContractBroken, check_keep_alive


@pytest.mark.parametrize("make", [*KEEP_ALIVES.values()])
async def test_policies_keep_the_contract(make: Callable[[], KeepAlive]) -> None:
    await check_keep_alive(make)


class Hoarder(FixedKeepAlive):
    def keep_until(self, container: KeptContainer, now: float) -> float:
        return math.inf


class Stutterer(FixedKeepAlive):
    """Says the same start again and again."""

    starts_ahead = True

    def starts(self, now: float) -> Sequence[Hashable]:
        return (0,) if now > 100 else ()

    def next_start(self) -> float:
        return 100.0


class Forgetful(FixedKeepAlive):
    def rank(self, container: KeptContainer, now: float) -> float:
        return math.nan


class Moody(FixedKeepAlive):
    asked = 0

    def rank(self, container: KeptContainer, now: float) -> float:
        self.asked += 1
        return float(self.asked)


class IgnoresIdleTimeout(FixedKeepAlive):
    def keep_until(self, container: KeptContainer, now: float) -> float:
        return container.idle_since + 30.0


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (Hoarder, "nobody calls"),
        (Stutterer, "tells a start twice"),
        (Forgetful, "is no number"),
        (Moody, "where it has said"),
        (IgnoresIdleTimeout, "does not go after its idle timeout"),
    ],
)
async def test_a_broken_policy_is_found(broken: Callable[[], KeepAlive], text: str) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await check_keep_alive(broken)
    found = caught.value.exceptions
    assert all(isinstance(error, ContractBroken) for error in found)
    assert any(text in str(error) for error in found)
