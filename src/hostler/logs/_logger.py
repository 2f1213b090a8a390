"""The loggers of a node: structlog's, without its chain of processors.

A chain hands all details of an event on from link to link, which costs several times what the line
itself does, and a node writes a line for each call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import structlog

Render = Callable[[str, str, dict[str, Any]], str]
"""Makes a line of an event's level, its name and its details, which it may change."""


def logger_class(min_level: int, render: Render) -> type[structlog.typing.FilteringBoundLogger]:
    """For `structlog.configure`: loggers that hand lines of ``render`` to a `LogWriter`. What is
    bound to a logger or to the context is among an event's details."""
    merge = structlog.contextvars.merge_contextvars

    class Logger(structlog.make_filtering_bound_logger(min_level)):  # type: ignore[misc]
        def _proxy_to_logger(
            self, method: str, event: str | None = None, /, **details: Any
        ) -> None:
            self._tell(method, event, details)

        def _tell(self, method: str, event: str | None, details: dict[str, Any]) -> None:
            if self._context:
                details = {**self._context, **details}
            merge(self._logger, method, details)
            self._logger.msg(render(method, event or "", details))

        if min_level <= logging.INFO:
            # As structlog's own, which hands the details on as arguments: most of what a line with
            # twenty of them costs beside its text. (Names of parameters would be compared with
            # each of theirs.)
            def info(self, /, *args: Any, **details: Any) -> None:
                if len(args) == 1:
                    self._tell("info", args[0], details)
                else:
                    super().info(*args, **details)

    return Logger
