"""Handlers of apps, functions and triggers, with endpoint annotations."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import attrs
import msgspec
from msgspec import UNSET

from .. import models
from .._asgi import Reply, encoded_reply
from ..datastore import AppFilter, Datastore, FnFilter, TriggerFilter
from ..errors import APIError
from ..rules import parse_per_page
from ..rules.errors import AppNotFound
from . import documents
from .documents import (
    app_document,
    app_patch,
    fn_document,
    fn_patch,
    new_app,
    new_fn,
    new_trigger,
    trigger_document,
    trigger_patch,
)
from .request import ApiRequest
from .routes import Query, Resource, ResponseLink, Route


async def _list_apps(request: ApiRequest) -> Reply:
    query = request.query
    where = AppFilter(
        name=query.get("name", ""),
        cursor=query.get("cursor", ""),
        per_page=parse_per_page(query.get("per_page", "")),
    )
    page = await request.store.list_apps(where)
    items = [app_document(app) for app in page.items]
    return document_reply(documents.AppList(next_cursor=page.next_cursor or UNSET, items=items))


async def _create_app(request: ApiRequest) -> Reply:
    app = new_app(request.decode(documents.NewApp))
    return document_reply(app_document(await request.store.create_app(app)))


async def _get_app(request: ApiRequest) -> Reply:
    app = await request.store.get_app(request.params["app_id"])
    return document_reply(app_document(app))


async def _update_app(request: ApiRequest) -> Reply:
    patch = app_patch(request.decode(documents.AppChange))
    app = await request.store.update_app(request.params["app_id"], patch)
    return document_reply(app_document(app))


async def _delete_app(request: ApiRequest) -> Reply:
    await request.store.delete_app(request.params["app_id"])
    return NO_CONTENT


def app_routes() -> Iterator[Route]:
    return Resource(
        path="/v2/apps",
        name="App",
        noun="an app",
        listed="apps",
        deleted="an app with its functions and triggers",
        list=_list_apps,
        create=_create_app,
        get=_get_app,
        update=_update_app,
        delete=_delete_app,
        page=documents.AppList,
        one=documents.App,
        new=documents.NewApp,
        change=documents.AppChange,
        query=(Query("name", "Only the app with this name."),),
        create_errors=(409,),
        update_errors=(404, 409),
        next=(ResponseLink("CreateFn", body={"app_id": "id"}),),
    ).routes()


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


_PATH = "/v2/fns"


@attrs.frozen
class FnHandlers:
    """The handlers, which tell where functions can be called."""

    endpoints: Endpoints

    async def list(self, request: ApiRequest) -> Reply:
        query = request.query
        where = FnFilter(
            app_id=query.get("app_id", ""),
            name=query.get("name", ""),
            cursor=query.get("cursor", ""),
            per_page=parse_per_page(query.get("per_page", "")),
        )
        page = await request.store.list_fns(where)
        items = [fn_document(fn, self.endpoints.of_fn(request, fn)) for fn in page.items]
        return document_reply(documents.FnList(next_cursor=page.next_cursor or UNSET, items=items))

    async def create(self, request: ApiRequest) -> Reply:
        fn = await request.store.create_fn(new_fn(request.decode(documents.NewFn)))
        return document_reply(fn_document(fn, self.endpoints.of_fn(request, fn)))

    async def get(self, request: ApiRequest) -> Reply:
        fn = await request.store.get_fn(request.params["fn_id"])
        return document_reply(fn_document(fn, self.endpoints.of_fn(request, fn)))


async def _update_fn(request: ApiRequest) -> Reply:
    patch = fn_patch(request.decode(documents.FnChange))
    fn = await request.store.update_fn(request.params["fn_id"], patch)
    return document_reply(fn_document(fn))


async def _delete_fn(request: ApiRequest) -> Reply:
    await request.store.delete_fn(request.params["fn_id"])
    return NO_CONTENT


async def _gone(_request: ApiRequest) -> Reply:
    raise APIError(410, "Calls and their logs are not kept")


def fn_routes(endpoints: Endpoints) -> Iterator[Route]:
    handlers = FnHandlers(endpoints)
    yield from Resource(
        path=_PATH,
        name="Fn",
        noun="a function",
        listed="the functions of an app",
        deleted="a function with its triggers",
        list=handlers.list,
        create=handlers.create,
        get=handlers.get,
        update=_update_fn,
        delete=_delete_fn,
        page=documents.FnList,
        one=documents.Fn,
        new=documents.NewFn,
        change=documents.FnChange,
        query=(
            Query("app_id", "The app.", required=True),
            Query("name", "Only the function with this name."),
        ),
        create_errors=(404, 409),
        update_errors=(404,),
        next=(ResponseLink("CreateTrigger", body={"app_id": "app_id", "fn_id": "id"}),),
    ).routes()
    for path in ("/calls", "/calls/{call_id}", "/calls/{call_id}/log"):
        yield Route("GET", f"{_PATH}/{{fn_id}}{path}", _gone)


_BY_SOURCE = "/v2/runner/apps/{app_id}/triggerBySource/{trigger_type}{trigger_source:path}"


@attrs.frozen
class TriggerHandlers:
    """The handlers, which tell where triggers can be called."""

    endpoints: Endpoints

    async def list(self, request: ApiRequest) -> Reply:
        query = request.query
        where = TriggerFilter(
            app_id=query.get("app_id", ""),
            fn_id=query.get("fn_id", ""),
            name=query.get("name", ""),
            cursor=query.get("cursor", ""),
            per_page=parse_per_page(query.get("per_page", "")),
        )
        page = await request.store.list_triggers(where)
        of_app = await self.endpoints.of_app(request, where.app_id) if page.items else ""
        items = [trigger_document(item, trigger_endpoint(of_app, item)) for item in page.items]
        document = documents.TriggerList(next_cursor=page.next_cursor or UNSET, items=items)
        return document_reply(document)

    async def create(self, request: ApiRequest) -> Reply:
        trigger = new_trigger(request.decode(documents.NewTrigger))
        return await self._reply(request, await request.store.create_trigger(trigger))

    async def get(self, request: ApiRequest) -> Reply:
        return await self._reply(
            request, await request.store.get_trigger(request.params["trigger_id"])
        )

    async def _reply(self, request: ApiRequest, trigger: models.Trigger) -> Reply:
        of_app = await self.endpoints.of_app(request, trigger.app_id)
        return document_reply(trigger_document(trigger, trigger_endpoint(of_app, trigger)))


async def _by_source(request: ApiRequest) -> Reply:
    """For LBs. The source has a slash of its own behind the one of the path; clients and proxies
    that merge the two mean the same."""
    params = request.params
    rest = params["trigger_source"]
    source = rest[1:] if rest[1:2] == "/" else rest
    trigger = await request.store.trigger_by_source(
        params["app_id"], params["trigger_type"], source
    )
    return document_reply(trigger_document(trigger))


async def _update_trigger(request: ApiRequest) -> Reply:
    patch = trigger_patch(request.decode(documents.TriggerChange))
    trigger = await request.store.update_trigger(request.params["trigger_id"], patch)
    return document_reply(trigger_document(trigger))


async def _delete_trigger(request: ApiRequest) -> Reply:
    await request.store.delete_trigger(request.params["trigger_id"])
    return NO_CONTENT


def trigger_routes(endpoints: Endpoints) -> Iterator[Route]:
    handlers = TriggerHandlers(endpoints)
    yield from Resource(
        path="/v2/triggers",
        name="Trigger",
        noun="a trigger",
        listed="the triggers of an app",
        deleted="a trigger",
        list=handlers.list,
        create=handlers.create,
        get=handlers.get,
        update=_update_trigger,
        delete=_delete_trigger,
        page=documents.TriggerList,
        one=documents.Trigger,
        new=documents.NewTrigger,
        change=documents.TriggerChange,
        query=(
            Query("app_id", "The app.", required=True),
            Query("fn_id", "Only triggers of this function."),
            Query("name", "Only triggers with this name."),
        ),
        create_errors=(404, 409),
        update_errors=(404, 409),
    ).routes()
    yield Route("GET", _BY_SOURCE, _by_source)


NO_CONTENT = Reply(204)


def document_reply(document: msgspec.Struct) -> Reply:
    """200 and the document, in the order of its fields, escaped as by Go's encoder."""
    return encoded_reply(msgspec.json.encode(document))
