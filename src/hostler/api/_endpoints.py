"""Where functions and triggers can be called: the endpoint annotations."""

from __future__ import annotations

from urllib.parse import quote

import attrs

from hostler import models
from hostler.datastore import Datastore
from hostler.rules.errors import AppNotFound

from ._request import ApiRequest

_UNESCAPED = "/$&+,:;=@!'()*"
"""Beside letters, digits and ``-._~``: what a path may have (RFC 3986, section 3.3)."""


@attrs.frozen
class Endpoints:
    """Makes URLs.

    ``store`` knows the names of apps; it has no listeners, as a client that may read a trigger
    may know its URL. ``public_url`` is the base; "" = scheme and host as the client has them. A
    proxy that ends TLS hides the scheme, so a node behind one needs ``FN_PUBLIC_LB_URL``.
    """

    store: Datastore
    public_url: str = ""

    def of_fn(self, request: ApiRequest, fn: models.Fn) -> str:
        return f"{self._base(request)}/invoke/{fn.id}"

    async def of_app(self, request: ApiRequest, app_id: str) -> str:
        """What the URLs of the app's triggers begin with; "" if the app has just been deleted."""
        try:
            app = await self.store.get_app(app_id)
        except AppNotFound:
            return ""
        return f"{self._base(request)}/t/{quote(app.name)}/"

    def _base(self, request: ApiRequest) -> str:
        if self.public_url:
            return self.public_url.removesuffix("/")
        return f"{request.scope['scheme']}://{request.header('host') or 'localhost'}"


def trigger_endpoint(of_app: str, trigger: models.Trigger) -> str:
    """ "" for a trigger that is not called over HTTP."""
    if not of_app or trigger.type != "http":
        return ""
    return of_app + quote(trigger.source.removeprefix("/"), safe=_UNESCAPED)
