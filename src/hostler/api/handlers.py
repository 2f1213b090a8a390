"""Handlers of apps, functions and triggers, with endpoint annotations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

import attrs
import msgspec
from msgspec import UNSET

from .. import models
from .._api_documents import APPS, FNS, TRIGGERS, Kind, model_of
from .._asgi.replies import Reply, encoded_reply
from ..datastore import Collection, Datastore
from ..errors import APIError
from ..rules import parse_per_page
from ..rules.errors import AppNotFound
from .request import ApiRequest
from .routes import PAGE, ApiOperation, Query, ResponseLink, Route


async def _no_urls(request: ApiRequest, things: Sequence[models.App]) -> list[str]:
    return [""] * len(things)


@attrs.frozen(kw_only=True)
class Resource:
    """The operations on one kind of thing: their handlers, routes and descriptions."""

    path: str
    kind: Kind[Any, Any]
    noun: str
    """What one is called, with an article."""
    listed: str
    """What a list has, for its description."""
    deleted: str
    """What is deleted, for the description."""
    collection: Callable[[Datastore], Collection[Any, Any, Any]]
    urls: Callable[[ApiRequest, Sequence[Any]], Awaitable[list[str]]] = _no_urls
    """URLs at which things can be called. As in Fn, the answer to an update has none."""
    query: Sequence[Query]
    """Query parameters of a list, without those of its pages."""
    create_errors: Sequence[int]
    update_errors: Sequence[int]
    next: Sequence[ResponseLink] = ()
    """What can be created for a new thing."""

    @property
    def _parameter(self) -> str:
        return f"{self.kind.name.lower()}_id"

    async def list(self, request: ApiRequest) -> Reply:
        query = request.query
        names = (*(each.name for each in self.query), "cursor")
        where = self.kind.filter(
            **{name: query.get(name, "") for name in names},
            per_page=parse_per_page(query.get("per_page", "")),
        )
        page = await self.collection(request.store).list(where)
        urls = await self.urls(request, page.items)
        items = [self.kind.document(*pair) for pair in zip(page.items, urls, strict=True)]
        return document_reply(self.kind.page(next_cursor=page.next_cursor or UNSET, items=items))

    async def create(self, request: ApiRequest) -> Reply:
        new = model_of(self.kind.model, request.decode(self.kind.new))
        return await self._reply(request, await self.collection(request.store).create(new))

    async def get(self, request: ApiRequest) -> Reply:
        found = await self.collection(request.store).get(request.params[self._parameter])
        return await self._reply(request, found)

    async def _reply(self, request: ApiRequest, thing: Any) -> Reply:
        (url,) = await self.urls(request, [thing])
        return document_reply(self.kind.document(thing, url))

    async def update(self, request: ApiRequest) -> Reply:
        patch = model_of(self.kind.patch, request.decode(self.kind.change))
        id = request.params[self._parameter]
        updated = await self.collection(request.store).update(id, patch)
        return document_reply(self.kind.document(updated))

    async def delete(self, request: ApiRequest) -> Reply:
        await self.collection(request.store).delete(request.params[self._parameter])
        return NO_CONTENT

    def routes(self) -> Iterator[Route]:
        path, kind, name, noun = self.path, self.kind, self.kind.name, self.noun
        parameter = self._parameter
        one = f"{path}/{{{parameter}}}"
        links = [
            ResponseLink(f"{verb}{name}", {parameter: "id"}) for verb in ("Get", "Update", "Delete")
        ]
        listing = ApiOperation(
            id=f"List{name}s",
            summary=f"A page of {self.listed}, by name.",
            tag=f"{name}s",
            response=kind.page,
            query=(*self.query, *PAGE),
        )
        creating = ApiOperation(
            id=f"Create{name}",
            summary=f"Create {noun}.",
            tag=f"{name}s",
            request=kind.new,
            response=kind.one,
            errors=self.create_errors,
            links=(*self.next, *links),
        )
        getting = ApiOperation(
            id=f"Get{name}",
            summary=f"{noun.capitalize()}.",
            tag=f"{name}s",
            response=kind.one,
            errors=(404,),
        )
        updating = ApiOperation(
            id=f"Update{name}",
            summary=f"Change {noun}. What is not given stays; the answer is all of it.",
            tag=f"{name}s",
            request=kind.change,
            response=kind.one,
            errors=self.update_errors,
        )
        deleting = ApiOperation(
            id=f"Delete{name}", summary=f"Delete {self.deleted}.", tag=f"{name}s", errors=(404,)
        )
        yield Route("GET", path, self.list, listing)
        yield Route("POST", path, self.create, creating)
        yield Route("GET", one, self.get, getting)
        yield Route("PUT", one, self.update, updating)
        yield Route("DELETE", one, self.delete, deleting)


_UNESCAPED = "/$&+,:;=@!'()*"
"""Beside letters, digits and ``-._~``: what a path may have (RFC 3986, section 3.3)."""


@attrs.frozen
class Endpoints:
    """Makes URLs.

    ``store`` knows the names of apps. It has no listeners: a client that may read a trigger may
    know the trigger's URL. ``public_url`` is the base; "" = scheme and host of the request. A proxy
    that ends TLS hides the scheme, so a node behind such a proxy needs ``FN_PUBLIC_LB_URL``.
    """

    store: Datastore
    public_url: str = ""

    async def of_fns(self, request: ApiRequest, fns: Sequence[models.Fn]) -> list[str]:
        return [f"{self._base(request)}/invoke/{fn.id}" for fn in fns]

    async def of_triggers(
        self, request: ApiRequest, triggers: Sequence[models.Trigger]
    ) -> list[str]:
        """URLs of triggers of one app; "" if the app has just been deleted."""
        if not triggers:
            return []
        try:
            app = await self.store.apps.get(triggers[0].app_id)
        except AppNotFound:
            return [""] * len(triggers)
        of_app = f"{self._base(request)}/t/{quote(app.name)}/"
        return [trigger_endpoint(of_app, trigger) for trigger in triggers]

    def _base(self, request: ApiRequest) -> str:
        if self.public_url:
            return self.public_url.removesuffix("/")
        return f"{request.scope['scheme']}://{request.header('host') or 'localhost'}"


def trigger_endpoint(of_app: str, trigger: models.Trigger) -> str:
    """ "" for a trigger that is not called over HTTP."""
    if trigger.type != "http":
        return ""
    return of_app + quote(trigger.source.removeprefix("/"), safe=_UNESCAPED)


def routes(endpoints: Endpoints) -> Iterator[Route]:
    """All routes of the API. ``endpoints`` makes the URLs of functions and triggers."""
    yield from Resource(
        path="/v2/apps",
        kind=APPS,
        noun="an app",
        listed="apps",
        deleted="an app with its functions and triggers",
        collection=lambda store: store.apps,
        query=(Query("name", "Only the app with this name."),),
        create_errors=(409,),
        update_errors=(404, 409),
        next=(ResponseLink("CreateFn", body={"app_id": "id"}),),
    ).routes()
    yield from Resource(
        path="/v2/fns",
        kind=FNS,
        noun="a function",
        listed="the functions of an app",
        deleted="a function with its triggers",
        collection=lambda store: store.fns,
        urls=endpoints.of_fns,
        query=(
            Query("app_id", "The app.", required=True),
            Query("name", "Only the function with this name."),
        ),
        create_errors=(404, 409),
        update_errors=(404,),
        next=(ResponseLink("CreateTrigger", body={"app_id": "app_id", "fn_id": "id"}),),
    ).routes()
    for path in ("/calls", "/calls/{call_id}", "/calls/{call_id}/log"):
        yield Route("GET", f"/v2/fns/{{fn_id}}{path}", _gone)
    yield from Resource(
        path="/v2/triggers",
        kind=TRIGGERS,
        noun="a trigger",
        listed="the triggers of an app",
        deleted="a trigger",
        collection=lambda store: store.triggers,
        urls=endpoints.of_triggers,
        query=(
            Query("app_id", "The app.", required=True),
            Query("fn_id", "Only triggers of this function."),
            Query("name", "Only triggers with this name."),
        ),
        create_errors=(404, 409),
        update_errors=(404, 409),
    ).routes()
    yield Route("GET", _BY_SOURCE, _by_source)


async def _gone(_request: ApiRequest) -> Reply:
    raise APIError(410, "Calls and their logs are not kept")


_BY_SOURCE = "/v2/runner/apps/{app_id}/triggerBySource/{trigger_type}{trigger_source:path}"


async def _by_source(request: ApiRequest) -> Reply:
    """For LBs. The source's own slash follows the slash of the path. Clients and proxies that merge
    the two mean the same source."""
    params = request.params
    rest = params["trigger_source"]
    source = rest[1:] if rest[1:2] == "/" else rest
    trigger = await request.store.trigger_by_source(
        params["app_id"], params["trigger_type"], source
    )
    return document_reply(TRIGGERS.document(trigger))


NO_CONTENT = Reply(204)


def document_reply(document: msgspec.Struct) -> Reply:
    """200 and the document, in the order of its fields, escaped as by Go's encoder."""
    return encoded_reply(msgspec.json.encode(document))
