"""``/v2/fns``."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from msgspec import UNSET

from hostler._asgi import Reply
from hostler.datastore import FnFilter
from hostler.errors import APIError
from hostler.rules import parse_per_page

from . import _documents as documents
from ._answers import NO_CONTENT, document_reply
from ._convert import fn_document, fn_patch, new_fn
from ._endpoints import Endpoints
from ._operation import Link, Query
from ._request import ApiRequest
from ._resource import Resource
from ._routes import Route

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


async def _update(request: ApiRequest) -> Reply:
    patch = fn_patch(request.decode(documents.FnChange))
    fn = await request.store.update_fn(request.params["fn_id"], patch)
    return document_reply(fn_document(fn))


async def _delete(request: ApiRequest) -> Reply:
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
        update=_update,
        delete=_delete,
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
        next=(Link("CreateTrigger", body={"app_id": "app_id", "fn_id": "id"}),),
    ).routes()
    for path in ("/calls", "/calls/{call_id}", "/calls/{call_id}/log"):
        yield Route("GET", f"{_PATH}/{{fn_id}}{path}", _gone)
