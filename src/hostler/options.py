"""Call options: what `hostler.calls.build_call` makes a call of.

One option makes the model (`from_http_fn_request` or `from_model`); the others change the draft
and are applied in the order in which they were given.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio

from .bodies import BytesBody
from .calls import Body, CallRequest, ResponseWriter
from .errors import APIError, HostlerError
from .headers import TOKEN, are_canonical, canonical_headers
from .ids import new_id
from .models import App, Call, Fn

if TYPE_CHECKING:
    from .calls import CallDraft, CallOption, DockerAuth

__all__ = [
    "from_http_fn_request",
    "from_model",
    "invoke_detached",
    "with_docker_auth",
    "with_extensions",
    "with_logger",
    "with_request_id",
    "with_slot_hash_id",
    "with_time_limit",
    "with_trigger",
    "with_writer",
    "without_network",
]

_NO_URL = re.compile(r"[\x00-\x20\x7f]")
_SHORT_URL = 256
"""Characters of a URL that is checked only once, as long as it is not forgotten."""


def from_http_fn_request(app: App, fn: Fn, request: CallRequest) -> CallOption:
    """Make a call of ``fn`` of an HTTP request: what `hostler`'s own front end does.

    The call gets a new id, the function's limits, and as its configuration the app's, overlaid
    by the function's, overlaid by ``FN_MEMORY``, ``FN_TYPE``, ``FN_FN_ID`` and ``FN_APP_ID``.
    Headers, configuration and annotations are copied. ``request`` gets the app and the function,
    for the call overrider. A URL without a host gets that of the
    ``Host`` header, which itself is no header of the call.
    """

    def apply(draft: CallDraft) -> None:
        headers = canonical_headers(request.headers)
        host = headers.pop("Host", [""])[0]
        draft.request = request
        request.app, request.fn = app, fn
        draft.fn_name = fn.name
        config = {
            **app.config,
            **fn.config,
            "FN_MEMORY": str(fn.memory),
            "FN_TYPE": "sync",
            "FN_FN_ID": fn.id,
            "FN_APP_ID": app.id,
        }
        # By place: to look up so many names takes as long as all the rest.
        draft.model = Call(
            new_id(),
            "",  # status
            fn.image,
            0,  # delay
            "sync",
            "",  # payload
            _absolute(request.url, host),
            request.method,
            fn.timeout,
            fn.idle_timeout,
            0,  # tmpfs_size
            fn.memory,
            0,  # cpus
            config,
            {**app.annotations, **fn.annotations},
            headers,
            app.syslog_url,
            None,  # completed_at
            dt.datetime.now(dt.UTC),
            app_id=app.id,
            app_name=app.name,
            fn_id=fn.id,
        )

    return apply


def from_model(model: Call, body: Body | None = None) -> CallOption:
    """Take ``model`` as it is and rebuild the request from it: what a runner does.

    Without a ``body`` it is the model's payload. The model's header names are made canonical,
    since a peer may send others and filters compare exactly. Applying raises a 400 `APIError`
    for a method or a URL that no HTTP request could have.
    """

    def apply(draft: CallDraft) -> None:
        method = model.method or "GET"
        if not TOKEN.fullmatch(method):
            raise APIError(400, f"invalid method {method!r}")
        (_check_url if len(model.url) > _SHORT_URL else _check_short_url)(model.url)
        if not are_canonical(model.headers):
            model.headers = canonical_headers(model.headers)
        draft.model = model
        draft.request = CallRequest(
            method,
            model.url,
            {name: [*values] for name, values in model.headers.items()},
            body or BytesBody(model.payload.encode()),
        )

    return apply


def invoke_detached() -> CallOption:
    """Let the caller go as soon as the function runs. Must follow the option that makes the
    model: applying raises `HostlerError` otherwise."""

    def apply(draft: CallDraft) -> None:
        _model(draft, "invoke_detached").type = "detached"

    return apply


def with_trigger(trigger_id: str) -> CallOption:
    """Note the trigger that the request came through. Must follow the option that makes the
    model: applying raises `HostlerError` otherwise."""

    def apply(draft: CallDraft) -> None:
        _model(draft, "with_trigger").trigger_id = trigger_id

    return apply


def with_writer(writer: ResponseWriter) -> CallOption:
    """Send the response to ``writer``; without this option it is discarded."""

    def apply(draft: CallDraft) -> None:
        draft.writer = writer

    return apply


def with_extensions(extensions: Mapping[str, str]) -> CallOption:
    """Replace the extensions by a copy of ``extensions``. They travel to the runner and its
    driver; ``FN_REGISTRY_TOKEN`` is reserved for a token that pulls the image."""

    def apply(draft: CallDraft) -> None:
        draft.extensions = dict(extensions)

    return apply


def with_request_id(request_id: str) -> CallOption:
    """The id that logs of all nodes show for this request; "" = none."""

    def apply(draft: CallDraft) -> None:
        draft.request_id = request_id

    return apply


def with_time_limit(seconds: float) -> CallOption:
    """The client gives up ``seconds`` from now: an LB refuses the call at once if no runner would
    have taken it by then, and cancels it if it still runs."""

    def apply(draft: CallDraft) -> None:
        draft.deadline = trio.current_time() + seconds

    return apply


def without_network() -> CallOption:
    """Launch a container for this call without a network. It is no part of the slot key that a
    runner computes, so give the call a key of its own (`with_slot_hash_id`)."""

    def apply(draft: CallDraft) -> None:
        draft.disable_net = True

    return apply


def with_docker_auth(auth: DockerAuth) -> CallOption:
    """Pull the image with the credentials that ``auth`` gives, if a container that is launched for
    this call has to pull it. For an agent that runs calls itself: a load balancer's refuses it, as
    ``FN_REGISTRY_TOKEN`` among the extensions is what travels."""

    def apply(draft: CallDraft) -> None:
        draft.docker_auth = auth

    return apply


def with_logger(write: Callable[[bytes], object]) -> CallOption:
    """Give what the function prints for this call to ``write``, stdout and stderr together, up to
    FN_MAX_LOG_SIZE_BYTES and a line that says that there was more. ``write`` must not block; if it
    raises, that is logged, and it gets nothing more. What the function prints last may come when
    the call has ended. For an agent that runs calls itself and captures output (``keep_logs`` of
    `open_agent`): others refuse it."""

    def apply(draft: CallDraft) -> None:
        draft.logger = write

    return apply


def with_slot_hash_id(slot_hash_id: bytes | None) -> CallOption:
    """Use this raw slot key instead of the one that the runner would compute; ``None`` = don't.

    Calls with equal keys share containers, so a key must tell apart all that a container is made
    from: see `hostler.slot_key`.
    """

    def apply(draft: CallDraft) -> None:
        draft.slot_hash_id = slot_hash_id or None

    return apply


def _model(draft: CallDraft, option: str) -> Call:
    if draft.model is None:
        raise HostlerError(f"{option} must come after the option that makes the call's model")
    return draft.model


def _absolute(url: str, host: str) -> str:
    return f"http://{host}{url}" if host and url.startswith("/") else url


def _check_url(url: str) -> None:
    if _NO_URL.search(url):
        raise APIError(400, f"invalid URL {url!r}: it has blanks or control characters")
    try:
        _ = urlsplit(url).port
    except ValueError as error:
        raise APIError(400, f"invalid URL {url!r}: {error}") from error


_check_short_url = lru_cache(maxsize=1024)(_check_url)
