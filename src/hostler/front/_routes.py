"""The paths that call functions."""

from __future__ import annotations

import attrs

from .._asgi import Scope
from ..functions import FunctionSource, TriggerSource
from ..http1.server import INVOKE_PATH, TRIGGER_PATH
from ._entries import Entry, InvokeEntry, TriggerEntry, Way
from ._head import Head
from ._invoke import Invoker


@attrs.frozen(eq=False)
class CallRoutes:
    """``/invoke`` and, with ``triggers``, ``/t``. Paths are URL-decoded."""

    invoker: Invoker
    functions: FunctionSource
    triggers: TriggerSource | None = None

    def way(self, scope: Scope) -> Way | None:
        """How requests with this head get to their function; ``None`` if they call none."""
        entry = self._entry(scope["path"], scope["method"])
        return Way.of(entry, Head.of(scope)) if entry else None

    def is_invoke(self, path: str) -> bool:
        fn_id = path.removeprefix(INVOKE_PATH)
        return path.startswith(INVOKE_PATH) and bool(fn_id) and "/" not in fn_id

    def _entry(self, path: str, method: str) -> Entry | None:
        """What the request enters by; ``None`` if there is no such path, or not with ``method``.

        A trigger's source is all that follows the app's name, with its leading slash, and is not
        changed: ``/t/app/a/`` and ``/t/app//a`` are other sources than ``/a``.
        """
        if method == "POST" and self.is_invoke(path):
            return InvokeEntry(self.functions, path.removeprefix(INVOKE_PATH))
        if self.triggers is not None and path.startswith(TRIGGER_PATH):
            app_name, _, rest = path.removeprefix(TRIGGER_PATH).partition("/")
            if app_name:
                return TriggerEntry(self.triggers, app_name, "/" + rest, method)
        return None
