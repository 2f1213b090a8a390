"""Fixtures of the contract tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from hostler.protocol import RunnerClient, RunnerService

from .services import OPENERS, OpenClient


@pytest.fixture(params=OPENERS)
def open_client(request: pytest.FixtureRequest) -> OpenClient:
    opener = OPENERS[request.param]

    @asynccontextmanager
    async def limited(service: RunnerService) -> AsyncIterator[RunnerClient]:
        with trio.fail_after(60):
            async with opener(service) as client:
                yield client

    return limited
