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
from ._operation import PAGE, Link, Operation, Query
from ._request import ApiRequest
from ._routes import Route

_PATH = "/v2/apps"
_ONE = "/v2/apps/{app_id}"
_TAG = "Apps"
_LINKS = [Link(operation, {"app_id": "id"}) for operation in ("GetApp", "UpdateApp", "DeleteApp")]


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
    yield Route(
        "GET",
        _PATH,
        _list,
        Operation(
            id="ListApps",
            summary="A page of apps, by name.",
            tag=_TAG,
            response=documents.AppList,
            query=(Query("name", "Only the app with this name."), *PAGE),
        ),
    )
    yield Route(
        "POST",
        _PATH,
        _create,
        Operation(
            id="CreateApp",
            summary="Create an app.",
            tag=_TAG,
            request=documents.NewApp,
            response=documents.App,
            errors=(409,),
            links=(Link("CreateFn", body={"app_id": "id"}), *_LINKS),
        ),
    )
    yield Route(
        "GET",
        _ONE,
        _get,
        Operation(id="GetApp", summary="An app.", tag=_TAG, response=documents.App, errors=(404,)),
    )
    yield Route(
        "PUT",
        _ONE,
        _update,
        Operation(
            id="UpdateApp",
            summary="Change an app. What is not given stays; the answer is the whole app.",
            tag=_TAG,
            request=documents.AppChange,
            response=documents.App,
            errors=(404, 409),
        ),
    )
    yield Route(
        "DELETE",
        _ONE,
        _delete,
        Operation(
            id="DeleteApp",
            summary="Delete an app with its functions and triggers.",
            tag=_TAG,
            errors=(404,),
        ),
    )
