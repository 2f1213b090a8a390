"""The OpenAPI description, made of the routes and of the types that they decode and encode."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import attrs
import msgspec

from .. import _api_documents as documents
from ..rules import Limits
from .routes import ApiOperation, Query, ResponseLink, Route

OPENAPI_VERSION = "3.1.0"
_REF = "#/components/schemas/{name}"
_PARAM = re.compile(r"\{(\w+)\}", re.ASCII)
_ANY = {
    400: "The request is not valid.",
    404: "There is no such thing.",
    408: "The request's body did not arrive in time.",
    409: "It does not go with what is there.",
    413: "The request's body is too large.",
    415: "The request's body does not say that it is JSON.",
    500: "An internal error.",
    503: "The datastore can't be reached; try again later.",
}
_BODY_ERRORS = (408, 413, 415)
_COMMON_ERRORS = (400, 500, 503)


def describe(routes: Iterable[Route], limits: Limits) -> dict[str, Any]:
    """The document (https://spec.openapis.org/oas/v3.1.0) of those ``routes`` that have an
    `ApiOperation`; ``limits`` are those of the datastore.

    Raises `ValueError` for two types with one name.
    """
    paths: dict[str, dict[str, Any]] = {}
    operations = [(route, route.operation) for route in routes if route.operation is not None]
    for route, operation in operations:
        item = paths.setdefault(route.path, _path_item(route.path))
        item[route.method.lower()] = _operation(route, operation)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "hostler",
            "version": version("hostler"),
            "summary": "Apps, functions and triggers. Compatible with Fn's API, version 2.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": _schemas([op for _, op in operations], limits)},
    }


def _path_item(path: str) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PARAM.findall(path)
    ]
    return {"parameters": parameters} if parameters else {}


def _operation(route: Route, operation: ApiOperation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": _responses(route, operation),
    }
    if operation.query:
        described["parameters"] = [_parameter(query) for query in operation.query]
    if operation.request is not None:
        described["requestBody"] = {"required": True, "content": _content(operation.request)}
    return described


def _parameter(query: Query) -> dict[str, Any]:
    return {
        "name": query.name,
        "in": "query",
        "description": query.text,
        "required": query.required,
        "schema": {"type": "integer"}
        if query.number
        else {"type": "string", **({"minLength": 1} if query.required else {})},
    }


def _responses(route: Route, operation: ApiOperation) -> dict[str, Any]:
    """All that the operation may answer, in order."""
    if operation.response is None:
        responses: dict[str, Any] = {"204": {"description": "Done."}}
    else:
        content = _content(operation.response)
        responses = {"200": {"description": operation.summary, "content": content}}
        if operation.links:
            responses["200"]["links"] = {link.operation: _link(link) for link in operation.links}
    errors = {*_COMMON_ERRORS, *operation.errors, *(_BODY_ERRORS if route.takes_body else ())}
    for status in sorted(errors):
        responses[str(status)] = {
            "description": _ANY[status],
            "content": _content(documents.Error),
        }
    return responses


def _link(link: ResponseLink) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": link.operation}
    for name, fields in (("parameters", link.parameters), ("requestBody", link.body)):
        if fields:
            described[name] = {key: f"$response.body#/{field}" for key, field in fields.items()}
    return described


def _content(type_: type[msgspec.Struct]) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name=type_.__name__)}
    return {"application/json": {"schema": schema}}


def _schemas(operations: Iterable[ApiOperation], limits: Limits) -> dict[str, Any]:
    types: dict[str, type[msgspec.Struct]] = {"Error": documents.Error}
    for operation in operations:
        for type_ in (operation.request, operation.response):
            if type_ is not None and types.setdefault(type_.__name__, type_) is not type_:
                raise ValueError(f"two types are called {type_.__name__}")
    _, schemas = msgspec.json.schema_components(types.values(), ref_template=_REF)
    for name, type_ in types.items():
        if issubclass(type_, documents.Document):
            _tighten(schemas[name], type_, limits)
    return schemas


def _tighten(schema: dict[str, Any], type_: type[documents.Document], limits: Limits) -> None:
    """Describe what the decoder does in addition to the types: null stands for a missing field."""
    fields: dict[str, dict[str, Any]] = schema["properties"]
    for name, limit in attrs.asdict(limits).items():
        if name in fields:
            fields[name]["maximum"] = limit
    for name, field in fields.items():
        field.pop("default", None)
        if name not in type_.required:
            field["type"] = [field["type"], "null"]
            if "enum" in field:
                field["enum"] = [*field["enum"], None]
    if type_.required:
        schema["required"] = list(type_.required)
