"""Tests of engagements run twice: on a stream for each call, and on one that they share."""

from __future__ import annotations

import pytest

from . import services

CARRIERS = {"stream": {"share_limit": 0}, "shared stream": {"share_streamed": True}}


@pytest.fixture(params=CARRIERS)
def carrier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What carries the calls of `open_pair`."""
    name: str = request.param
    monkeypatch.setattr(services, "sharing", CARRIERS[name])
    return name
