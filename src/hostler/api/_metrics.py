"""Counts requests to the API, as the front end counts those of calls."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import attrs

from hostler._asgi import BodyBroken, Reply
from hostler.errors import Blame, ClientCancelled, public_error

from ._routes import Route

_REST = re.compile(r"\{(\w+):path\}", re.ASCII)
_PARAM = re.compile(r"\{(\w+)\}", re.ASCII)


class RequestMetrics(Protocol):
    """What the API tells of requests: a `hostler.front.FrontMetrics` is one."""

    def begun(self, path: str, method: str) -> None:
        """``path`` is that of the route, as Fn writes it (``/v2/apps/:app_id``)."""
        ...

    def answered(
        self,
        path: str,
        method: str,
        *,
        status: int,
        blame: Blame,
        fdk_version: str,
        duration_ns: int,
    ) -> None:
        """``fdk_version`` is "": no function was called."""
        ...


@attrs.define
class Outcome:
    """What became of a request; set by the one who answers it."""

    reply: Reply | None = None


@contextmanager
def counted(metrics: RequestMetrics | None, route: Route) -> Iterator[Outcome]:
    """Tell ``metrics``, if there are any, when the block begins and when it ends, and how."""
    outcome, status = Outcome(), ClientCancelled.default_code
    if metrics is None:
        yield outcome
        return
    path = _PARAM.sub(r":\1", _REST.sub(r"/*\1", route.path))
    started_ns = time.monotonic_ns()
    metrics.begun(path, route.method)
    try:
        yield outcome
        status = outcome.reply.status if outcome.reply is not None else status
    except BodyBroken:
        raise
    except Exception as error:
        status = public_error(error).code
        raise
    finally:
        metrics.answered(
            path,
            route.method,
            status=status,
            blame="user" if status < 400 else "service",
            fdk_version="",
            duration_ns=time.monotonic_ns() - started_ns,
        )
