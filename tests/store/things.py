"""Apps, functions and triggers as requests have them."""

from __future__ import annotations

from typing import Any

import msgspec

from hostler.models import App, Fn, Trigger


def raw(**values: str) -> dict[str, msgspec.Raw]:
    """Annotations of JSON texts; keys have ``_`` for ``/``."""
    return {key.replace("_", "/"): msgspec.Raw(text.encode()) for key, text in values.items()}


def an_app(name: str = "shop", **fields: Any) -> App:
    return App(id="", name=name, **fields)


def a_fn(app: App, name: str = "pay", **fields: Any) -> Fn:
    return Fn(**{"id": "", "name": name, "app_id": app.id, "image": "shop/pay:1", **fields})


def a_trigger(fn: Fn, name: str = "web", source: str = "/pay", **fields: Any) -> Trigger:
    values = {"id": "", "app_id": fn.app_id, "fn_id": fn.id, "type": "http"}
    return Trigger(**{**values, "name": name, "source": source, **fields})
