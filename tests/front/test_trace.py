"""W3C trace context: kept if it is valid, begun if it is not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler._spans import trace_of
from tests.tracing.recorder import TRACE

from ._agent import TABLE, ScriptedAgent
from ._asgi_client import AsgiRequest
from ._handlers import app_with_triggers

NEW = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-00")


@pytest.mark.parametrize(
    "parent", [TRACE, TRACE[:-2] + "00", "cc" + TRACE[2:], "cc" + TRACE[2:] + "-what.the-future"]
)
def test_a_valid_context_is_passed_on_unchanged(parent: str) -> None:
    trace = trace_of({"Traceparent": [parent], "Tracestate": ["a=1,b@c=2 x", " d=3"]})
    assert trace.headers() == {"Traceparent": [parent], "Tracestate": ["a=1,b@c=2 x,d=3"]}
    assert trace.trace_id == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    "parents",
    [
        [],
        [""],
        [TRACE, TRACE],
        ["ff" + TRACE[2:]],
        [TRACE.upper()],
        [TRACE + "-"],
        [TRACE + "-more"],
        ["cc" + TRACE[2:] + "more"],
        ["cc" + TRACE[2:] + "-" + "x" * 300],
        ["00-" + "0" * 32 + "-b7ad6b7169203331-01"],
        ["00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01"],
        [" " + TRACE],
        [TRACE + "\n"],
    ],
)
def test_without_a_valid_parent_a_trace_begins(parents: list[str]) -> None:
    headers = {"Traceparent": parents, "Tracestate": ["a=1"]} if parents else {}
    trace = trace_of(headers)
    match = NEW.fullmatch(trace.parent)
    assert match is not None
    assert match[1] == trace.trace_id
    assert trace.state == ""
    assert trace_of(headers).trace_id != trace.trace_id


@pytest.mark.parametrize(
    "state", ["a", "=1", "a=1,a=2", "A=1", "a=1=2", "a=", ",".join(f"k{i}=1" for i in range(33))]
)
def test_a_bad_state_is_dropped_alone(state: str) -> None:
    trace = trace_of({"Traceparent": [TRACE], "Tracestate": [state]})
    assert trace.headers() == {"Traceparent": [TRACE]}


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_header_gives_a_valid_context(parent: str, state: str) -> None:
    first = trace_of({"Traceparent": [parent], "Tracestate": [state]})
    assert trace_of(first.headers()) == first


@pytest.mark.parametrize("path", ["/invoke/fn1", "/t/app/"])
async def test_the_function_gets_it(path: str) -> None:
    assert TABLE.fns
    agent = ScriptedAgent()
    headers = [("traceparent", TRACE), ("tracestate", "broken")]
    await AsgiRequest(path, headers=headers).body().run(app_with_triggers(agent))
    await AsgiRequest(path).body().run(app_with_triggers(agent))
    kept, begun = (call.model.headers for call in agent.submitted)
    assert kept["Traceparent"] == [TRACE]
    assert "Tracestate" not in kept
    assert NEW.fullmatch(begun["Traceparent"][0])
