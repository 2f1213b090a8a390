"""What the functions that open parts say of wrong arguments, before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

import hostler
from hostler import errors
from hostler.abc import CallListener
from hostler.testing import FakePool

Opener = Callable[[], AbstractAsyncContextManager[Any]]

AGENT: Any = hostler.AgentConfig()
POOL: Any = FakePool([])
ANY: Any = None
NOTHING: Any = {}
OPEN: Any = hostler  # (arguments that a type checker refuses)


class Listener(CallListener):
    pass


def not_entered() -> Any:
    return OPEN.open_sim_driver()


@pytest.mark.parametrize(
    ("opener", "text"),
    [
        (
            lambda: OPEN.open_agent(hostler.Driver),
            "driver: takes a Driver, not the class Dri",
        ),
        (lambda: OPEN.open_agent(not_entered()), "a context manager that was not entered"),
        (lambda: OPEN.open_agent(ANY), "open_agent: driver: takes a Driver, not None"),
        (
            lambda: OPEN.open_static_pool("a:1"),
            "addresses: takes a list of texts, not",
        ),
        (lambda: OPEN.open_static_pool([1, 2]), "addresses: takes texts, not an int"),
        (lambda: OPEN.open_static_pool(["a:1"], AGENT), "takes a RunnerAccess, not an AgentCon"),
        (lambda: OPEN.open_dynamic_pool("a:1"), "addresses: takes a list of texts"),
        (lambda: OPEN.open_dynamic_pool([], config=AGENT), "config: takes a PoolConfig, not an"),
        (lambda: OPEN.open_dns_pool("dns://a:1"), "targets: takes a list of texts"),
        (lambda: OPEN.open_lb_agent(POOL, hostler.WarmPlacer), "not the class WarmPlacer: give"),
        (lambda: OPEN.open_lb_agent(["a:1"], ANY), "pool: takes a RunnerPool, not a list"),
        (
            lambda: OPEN.open_lb_agent(POOL, hostler.WarmPlacer(), config=AGENT),
            "open_lb_agent: config: takes a LBConfig, not an AgentConfig",
        ),
        (
            lambda: OPEN.open_lb_agent(POOL, hostler.WarmPlacer(), listeners=Listener()),
            "listeners: takes a list of CallListener objects, not a Listener",
        ),
        (
            lambda: OPEN.open_lb_agent(POOL, hostler.WarmPlacer(), call_options=print),
            "call_options: takes a list of callables, not a builtin_function_or_method",
        ),
        (
            lambda: OPEN.open_pure_runner(POOL, ":0"),
            "agent: takes a RunnerAgent, not a Fake",
        ),
        (lambda: OPEN.open_docker_driver(ANY), "config: takes an AgentConfig, not None"),
        (lambda: OPEN.open_process_driver(AGENT), "takes a ProcessConfig, not an AgentConfig"),
        (lambda: OPEN.open_sim_driver(["echo"]), "images: takes a Mapping, not a list"),
        (lambda: OPEN.open_sim_driver({"echo": "e"}), "images: takes callables, not the text"),
        (lambda: OPEN.open_datastore(AGENT), "takes a StoreConfig, not an AgentConfig"),
    ],
)
async def test_a_wrong_argument_is_named(opener: Any, text: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        async with opener():
            pass
    assert text in str(caught.value)


async def test_an_agent_with_one_listener_for_a_list_says_so() -> None:
    """(It used to wait for ever.)"""
    async with OPEN.open_sim_driver() as driver:
        with pytest.raises(errors.ConfigError, match="listeners: takes a list of CallListener"):
            async with OPEN.open_agent(driver, config=AGENT, listeners=Listener()):
                pass
        with pytest.raises(errors.ConfigError, match="not the class Listener: give an object of"):
            async with OPEN.open_agent(driver, config=AGENT, listeners=[Listener]):
                pass


def test_an_app_needs_what_looks_functions_up() -> None:
    with pytest.raises(errors.ConfigError, match="functions: takes what has `find`, not a dict"):
        hostler.invoke_app(_agent(), NOTHING)
    table = hostler.FunctionTable.of([], [])
    with pytest.raises(errors.ConfigError, match="triggers: takes what has `find_trigger`, not a"):
        hostler.invoke_app(_agent(), table, triggers=AGENT)


def _agent() -> Any:
    from tests.front._agent import ScriptedAgent

    return ScriptedAgent()
