"""A call overrider that no call could use is found out before there are calls."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from hostler.agent import open_agent
from hostler.call import check_overrider
from hostler.config import AgentConfig
from hostler.drivers.sim import open_sim_driver
from hostler.errors import ConfigError
from hostler.lb import open_lb_agent
from hostler.pool import NaivePlacer, StaticPool


def good(request: object, model: object, extensions: object) -> dict[str, str]:
    return {}


def with_more(request: object, model: object, extensions: object, more: int = 0) -> dict[str, str]:
    return {}


def any_of_them(*args: object) -> dict[str, str]:
    return {}


def short(model: object) -> dict[str, str]:
    return {}


def long(request: object, model: object, extensions: object, more: object) -> dict[str, str]:
    return {}


def by_name(*, request: object, model: object, extensions: object) -> dict[str, str]:
    return {}


@functools.wraps(short)
def decorated(request: object, model: object, extensions: object) -> dict[str, str]:
    return short(model)


async def asynchronous(request: object, model: object, extensions: object) -> dict[str, str]:
    return {}


class Provider:
    def override(self, request: object, model: object, extensions: object) -> dict[str, str]:
        return {}

    def __call__(self, request: object, model: object, extensions: object) -> dict[str, str]:
        return {}


class AsynchronousProvider:
    async def __call__(self, request: object, model: object, extensions: object) -> dict[str, str]:
        return {}


class Unreadable(Provider):
    __signature__ = "none"


GOOD: list[Callable[..., Any] | None] = [
    None,
    good,
    with_more,
    any_of_them,
    decorated,
    lambda *_: {},
    functools.partial(long, more=1),
    Provider().override,
    Provider(),
    Unreadable(),
    Mock(),
    dict.__new__,  # in C: nobody can tell
]


@pytest.mark.parametrize("overrider", GOOD)
def test_what_may_work_is_let_pass(overrider: Any) -> None:
    check_overrider(overrider)


@pytest.mark.parametrize(
    ("overrider", "why"),
    [
        (short, "too many positional arguments"),
        (long, "missing a required argument: 'more'"),
        (by_name, "too many positional arguments"),
        (Provider.override, "missing a required argument: 'extensions'"),
        (asynchronous, "must not be asynchronous"),
        (AsynchronousProvider(), "must not be asynchronous"),
        (AsynchronousProvider().__call__, "must not be asynchronous"),
    ],
)
async def test_what_can_not_work_is_refused(overrider: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)) as caught:
        check_overrider(overrider, "--overrider 'mine:x'")
    assert str(caught.value).startswith("--overrider 'mine:x': a call overrider ")
    refused = pytest.raises(ConfigError, match=r"^call_overrider: a call overrider ")
    with refused:
        async with open_lb_agent(StaticPool([]), NaivePlacer(), call_overrider=overrider):
            pytest.fail("opened")
    async with open_sim_driver() as driver:
        config = AgentConfig(iofs_path=str(tmp_path))
        with refused:
            async with open_agent(driver, config=config, call_overrider=overrider):
                pytest.fail("opened")
