"""A startup action: keep the declared functions ready that ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from hostler import options
from hostler.abc import CallRequest
from hostler.errors import APIError
from hostler.functions import FunctionTable

from ._plan import min_warm

if TYPE_CHECKING:
    from ._agent import Agent, StartupAction

log = structlog.get_logger(__name__)


def keep_declared_warm(functions: FunctionTable) -> StartupAction:
    """For `open_agent`: launch the containers that the functions' annotation
    ``hostler/min-warm`` asks for, before their first calls and for as long as the agent lives.

    Does not wait for them. A function that can't be kept ready (too big, or refused by the call
    overrider) is logged and left out.
    """

    async def action(agent: Agent) -> None:
        await trio.lowlevel.checkpoint()
        for app, fn in map(functions.lookup, functions.fns):
            if count := min_warm({**app.annotations, **fn.annotations}):
                request = CallRequest(method="POST", url="/", headers={})
                try:
                    call = agent.get_call(options.from_http_fn_request(app, fn, request))
                    agent.keep_warm(call, count)
                except APIError as error:
                    log.warning("can't keep a function ready", fn_id=fn.id, reason=str(error))

    return action
