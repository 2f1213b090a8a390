"""The five routes that apps, functions and triggers have alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import msgspec

from ._operation import PAGE, Link, Operation, Query
from ._routes import Handler, Route


@attrs.frozen(kw_only=True)
class Resource:
    """What the routes of one kind of thing, and their description, are made of."""

    path: str
    name: str
    """In the ids of operations: ``Fn`` makes ``GetFn``; and of the path's parameter, ``fn_id``."""
    noun: str
    """For people, with its article."""
    listed: str
    """What a list is of."""
    deleted: str
    """What is deleted."""

    list: Handler
    create: Handler
    get: Handler
    update: Handler
    delete: Handler

    page: type[msgspec.Struct]
    one: type[msgspec.Struct]
    new: type[msgspec.Struct]
    change: type[msgspec.Struct]
    """The documents."""

    query: Sequence[Query]
    """Of a list, beside its pages."""
    create_errors: Sequence[int]
    update_errors: Sequence[int]
    next: Sequence[Link] = ()
    """What can be made of a new thing."""

    def routes(self) -> Iterator[Route]:
        path, name, noun = self.path, self.name, self.noun
        parameter = f"{name.lower()}_id"
        one = f"{path}/{{{parameter}}}"
        links = [Link(f"{verb}{name}", {parameter: "id"}) for verb in ("Get", "Update", "Delete")]
        listing = Operation(
            id=f"List{name}s",
            summary=f"A page of {self.listed}, by name.",
            tag=f"{name}s",
            response=self.page,
            query=(*self.query, *PAGE),
        )
        creating = Operation(
            id=f"Create{name}",
            summary=f"Create {noun}.",
            tag=f"{name}s",
            request=self.new,
            response=self.one,
            errors=self.create_errors,
            links=(*self.next, *links),
        )
        getting = Operation(
            id=f"Get{name}",
            summary=f"{noun.capitalize()}.",
            tag=f"{name}s",
            response=self.one,
            errors=(404,),
        )
        updating = Operation(
            id=f"Update{name}",
            summary=f"Change {noun}. What is not given stays; the answer is all of it.",
            tag=f"{name}s",
            request=self.change,
            response=self.one,
            errors=self.update_errors,
        )
        deleting = Operation(
            id=f"Delete{name}", summary=f"Delete {self.deleted}.", tag=f"{name}s", errors=(404,)
        )
        yield Route("GET", path, self.list, listing)
        yield Route("POST", path, self.create, creating)
        yield Route("GET", one, self.get, getting)
        yield Route("PUT", one, self.update, updating)
        yield Route("DELETE", one, self.delete, deleting)
