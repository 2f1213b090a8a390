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
from ._operation import PAGE, Link, Operation, Query
from ._request import ApiRequest
from ._routes import Route

_PATH = "/v2/fns"
_ONE = "/v2/fns/{fn_id}"
_TAG = "Fns"
_LINKS = [Link(operation, {"fn_id": "id"}) for operation in ("GetFn", "UpdateFn", "DeleteFn")]


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
    yield Route(
        "GET",
        _PATH,
        handlers.list,
        Operation(
            id="ListFns",
            summary="A page of the functions of an app, by name.",
            tag=_TAG,
            response=documents.FnList,
            query=(
                Query("app_id", "The app.", required=True),
                Query("name", "Only the function with this name."),
                *PAGE,
            ),
        ),
    )
    yield Route(
        "POST",
        _PATH,
        handlers.create,
        Operation(
            id="CreateFn",
            summary="Create a function.",
            tag=_TAG,
            request=documents.NewFn,
            response=documents.Fn,
            errors=(404, 409),
            links=(Link("CreateTrigger", body={"app_id": "app_id", "fn_id": "id"}), *_LINKS),
        ),
    )
    yield Route(
        "GET",
        _ONE,
        handlers.get,
        Operation(
            id="GetFn", summary="A function.", tag=_TAG, response=documents.Fn, errors=(404,)
        ),
    )
    yield Route(
        "PUT",
        _ONE,
        _update,
        Operation(
            id="UpdateFn",
            summary="Change a function. What is not given stays; the answer is all of it.",
            tag=_TAG,
            request=documents.FnChange,
            response=documents.Fn,
            errors=(404,),
        ),
    )
    yield Route(
        "DELETE",
        _ONE,
        _delete,
        Operation(
            id="DeleteFn",
            summary="Delete a function with its triggers.",
            tag=_TAG,
            errors=(404,),
        ),
    )
    for path in ("/calls", "/calls/{call_id}", "/calls/{call_id}/log"):
        yield Route("GET", _ONE + path, _gone)
