"""``/v2/apps``."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import UNSET

from hostler._asgi import Reply
from hostler.datastore import AppFilter
from hostler.rules import parse_per_page

from . import _documents as documents
from ._answers import NO_CONTENT, document_reply
from ._convert import app_document, app_patch, new_app
from ._operation import Link, Query
from ._request import ApiRequest
from ._resource import Resource
from ._routes import Route


async def _list(request: ApiRequest) -> Reply:
    query = request.query
    where = AppFilter(
        name=query.get("name", ""),
        cursor=query.get("cursor", ""),
        per_page=parse_per_page(query.get("per_page", "")),
    )
    page = await request.store.list_apps(where)
    items = [app_document(app) for app in page.items]
    return document_reply(documents.AppList(next_cursor=page.next_cursor or UNSET, items=items))


async def _create(request: ApiRequest) -> Reply:
    app = new_app(request.decode(documents.NewApp))
    return document_reply(app_document(await request.store.create_app(app)))


async def _get(request: ApiRequest) -> Reply:
    app = await request.store.get_app(request.params["app_id"])
    return document_reply(app_document(app))


async def _update(request: ApiRequest) -> Reply:
    patch = app_patch(request.decode(documents.AppChange))
    app = await request.store.update_app(request.params["app_id"], patch)
    return document_reply(app_document(app))


async def _delete(request: ApiRequest) -> Reply:
    await request.store.delete_app(request.params["app_id"])
    return NO_CONTENT


def app_routes() -> Iterator[Route]:
    return Resource(
        path="/v2/apps",
        name="App",
        noun="an app",
        listed="apps",
        deleted="an app with its functions and triggers",
        list=_list,
        create=_create,
        get=_get,
        update=_update,
        delete=_delete,
        page=documents.AppList,
        one=documents.App,
        new=documents.NewApp,
        change=documents.AppChange,
        query=(Query("name", "Only the app with this name."),),
        create_errors=(409,),
        update_errors=(404, 409),
        next=(Link("CreateFn", body={"app_id": "id"}),),
    ).routes()
