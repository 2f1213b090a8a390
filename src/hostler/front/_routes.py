"""The paths that call functions."""

from __future__ import annotations

from operator import itemgetter

import attrs

from hostler._asgi import Scope, own_server
from hostler.functions import FunctionSource, TriggerSource

from ._entries import Entry, InvokeEntry, TriggerEntry, Way
from ._head import Head
from ._invoke import Invoker

_INVOKE = "/invoke/"
_TRIGGER = "/t/"
CALL_PATHS = (_INVOKE.encode(), _TRIGGER.encode())
"""Beginnings of the targets that call functions."""


_seen = itemgetter(
    "http_version", "method", "scheme", "path", "raw_path", "query_string", "headers"
)
"""What of a scope a way depends on. Raises `KeyError` if something is not there."""


@attrs.frozen(eq=False)
class CallRoutes:
    """``/invoke`` and, with ``triggers``, ``/t``. Paths are URL-decoded."""

    invoker: Invoker
    functions: FunctionSource
    triggers: TriggerSource | None = None

    def remembered(self, scope: Scope) -> Way | None:
        """The way of an earlier request with the same head."""
        server = own_server(scope)
        known = server.memo.get(self) if server is not None else None
        if known is None:
            return None
        seen, way = known
        try:
            # An application in between may have changed the scope.
            return way if _seen(scope) == seen else None
        except KeyError:
            return None

    def way(self, scope: Scope) -> Way | None:
        """How the request gets to its function; ``None`` if it calls none."""
        entry = self._entry(scope["path"], scope["method"])
        if entry is None:
            return None
        way = Way(entry, Head.of(scope))
        server = own_server(scope)
        if server is not None and "raw_path" in scope:
            *seen, headers = _seen(scope)
            server.memo[self] = (*seen, [*headers]), way
        return way

    def is_invoke(self, path: str) -> bool:
        fn_id = path.removeprefix(_INVOKE)
        return path.startswith(_INVOKE) and bool(fn_id) and "/" not in fn_id

    def _entry(self, path: str, method: str) -> Entry | None:
        """What the request enters by; ``None`` if there is no such path, or not with ``method``.

        A trigger's source is all that follows the app's name, with its leading slash, and is not
        changed: ``/t/app/a/`` and ``/t/app//a`` are other sources than ``/a``.
        """
        if method == "POST" and self.is_invoke(path):
            return InvokeEntry(self.functions, path.removeprefix(_INVOKE))
        if self.triggers is not None and path.startswith(_TRIGGER):
            app_name, _, rest = path.removeprefix(_TRIGGER).partition("/")
            if app_name:
                return TriggerEntry(self.triggers, app_name, "/" + rest, method)
        return None
