"""``/v2/triggers``, and the look-up of a trigger for a call."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from msgspec import UNSET

from hostler import models
from hostler._asgi import Reply
from hostler.datastore import TriggerFilter
from hostler.rules import parse_per_page

from . import _documents as documents
from ._answers import NO_CONTENT, document_reply
from ._convert import new_trigger, trigger_document, trigger_patch
from ._endpoints import Endpoints, trigger_endpoint
from ._operation import Query
from ._request import ApiRequest
from ._resource import Resource
from ._routes import Route

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


async def _update(request: ApiRequest) -> Reply:
    patch = trigger_patch(request.decode(documents.TriggerChange))
    trigger = await request.store.update_trigger(request.params["trigger_id"], patch)
    return document_reply(trigger_document(trigger))


async def _delete(request: ApiRequest) -> Reply:
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
        update=_update,
        delete=_delete,
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
