"""Access rules: host names, origins, bearer tokens and sessions.

A browser carries requests of any page to whatever its user can reach. It can be told by three
marks, which no page can change: ``Host`` has the page's own name if that was rebound to an address
of ours; ``Sec-Fetch-Site`` (https://www.w3.org/TR/fetch-metadata) and ``Origin`` name other pages.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Iterable

import attrs

from ..errors import APIError
from .replies import Reply, error_reply
from .types import ASGIApp, Handler, HeadReader, RawHeaders, Receive, Scope, Send, head_reader

SESSION_SECONDS = 12 * 3600
"""How long a browser that has shown a token stays logged in."""

_COOKIE = "hostler-"
_BEARER = b"bearer "


class Tokens:
    """Texts, each of which is as good as the others. Without any it is false, and accepts none.

    Comparisons take the same time for all tokens of a length.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._keys = [text.encode() for text in texts]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __repr__(self) -> str:
        return f"<{len(self._keys)} tokens>"

    def accepts(self, token: bytes) -> bool:
        """Whether it is one of them. Synchronous."""
        # All are compared, whichever is right.
        return sum(hmac.compare_digest(token, key) for key in self._keys) > 0

    def session(self) -> tuple[str, str]:
        """Name and value of a cookie that stands for a token, which can't be found out from it, and
        lasts `SESSION_SECONDS` (12 hours). Only where there are tokens.

        Browsers send it to all ports of a host; so nodes with other tokens have other names.
        """
        until, key = int(time.time()) + SESSION_SECONDS, self._keys[0]
        return _COOKIE + _signed(key, b"name")[:12], f"{until}.{_signed(key, b'until %d' % until)}"

    def has_session(self, cookies: bytes) -> bool:
        """Whether one of the cookies of a request is a `session` that still lasts."""
        values = [
            pair.partition("=")[2].strip()
            for pair in cookies.decode("latin-1").split(";")
            if pair.strip().startswith(_COOKIE)
        ]
        return any(map(self._is_session, values))

    def _is_session(self, value: str) -> bool:
        until, _, signature = value.partition(".")
        if not (until.isascii() and until.isdigit() and len(until) <= 12):
            return False
        text = b"until %d" % int(until)
        right = [_signed(key, text).encode() for key in self._keys]
        signed = sum(hmac.compare_digest(signature.encode(), each) for each in right) > 0
        return signed and int(until) > time.time()


def bearer(authorization: bytes) -> bytes:
    """The token of an ``Authorization`` header, b"" if it has none."""
    if authorization[: len(_BEARER)].lower() != _BEARER:
        return b""
    return authorization[len(_BEARER) :].strip()


def _signed(key: bytes, text: bytes) -> str:
    return hmac.new(key, b"hostler session: " + text, hashlib.sha256).hexdigest()


OPEN = frozenset({"/", "/version", "/healthz", "/readyz"})
"""Paths that tell nothing of functions. Probes ask them by whatever name, or none."""

_CALLS = frozenset({"invoke", "t"})

_MARKS = frozenset(
    {
        b"host",
        b"origin",
        b"sec-fetch-site",
        b"sec-fetch-mode",
        b"sec-fetch-dest",
        b"authorization",
        b"cookie",
    }
)

_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]@/\s]*))(?::[0-9]*)?")
_LOCAL = frozenset({"localhost"})
_LOCAL_DOMAIN = ".localhost"
_MAX_KNOWN, _MAX_KNOWN_SIZE = 1024, 256


class Hosts:
    """The values of ``Host`` that requests may have, with any port.

    Always: IP addresses, which cannot be rebound, and the names of the loopback interface
    (``localhost`` and all below it). Of ``names`` one with a leading dot is a domain with all
    below it, ``*`` is any name.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        plain = [name.lower().rstrip(".") for name in names]
        self._any = "*" in plain
        self._names = _LOCAL | {name.removeprefix(".") for name in plain}
        self._domains = (_LOCAL_DOMAIN, *(name for name in plain if name.startswith(".")))
        self._known: dict[bytes, bool] = {}

    def __contains__(self, host: bytes) -> bool:
        known = self._known.get(host)
        if known is not None:
            return known
        found = self._look(host)
        if len(host) <= _MAX_KNOWN_SIZE:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[host] = found
        return found

    def _look(self, host: bytes) -> bool:
        name = name_of(host)
        if name is None:
            return False
        return (
            self._any
            or name in self._names
            or name.endswith(self._domains)
            or _address(name) is not None
        )


def name_of(host: bytes) -> str | None:
    """The name or address in a ``Host``: in lower case, without port, brackets and the dot at the
    end. ``None`` if it is no such thing."""
    match = _HOST.fullmatch(host)
    if match is None:
        return None
    if match[1] is not None:
        name = match[1].decode().lower()
        return name if isinstance(_address(name), ipaddress.IPv6Address) else None
    return match[2].decode("latin-1").lower().removesuffix(".") or None


def is_loopback(name: str) -> bool:
    """Whether only this machine is reached by ``name``, a name or an address in lower case."""
    address = _address(name)
    if address is None:
        return name in _LOCAL or name.endswith(_LOCAL_DOMAIN)
    # (Of mapped addresses only Python 3.13 sees it by itself.)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


@attrs.frozen(kw_only=True)
class Access:
    """The rules of one node."""

    hosts: Hosts = attrs.Factory(Hosts)
    origins: tuple[str, ...] = ()
    """Pages that may make requests, as for `cors`."""
    local: bool = True
    """Only this machine reaches the node: pages of the internet have no business with its
    functions. Else those are there for everybody, and know themselves whom they answer."""
    tokens: Tokens = attrs.Factory(Tokens)
    """For all but calls and metrics, if there are any."""
    call_tokens: Tokens = attrs.Factory(Tokens)
    """For calls, if there are any; `tokens` are good for them, too."""
    login: ASGIApp | None = None
    """Serves what is below ``/ui`` to browsers without a session, and ``/ui/login`` to all."""


class AccessControl(HeadReader):
    """``app`` for those who may ask it.

    ==========================  =======  ============  ================
    path                        `Host`   other pages   token
    ==========================  =======  ============  ================
    `OPEN`                      any      may           none
    ``/invoke``, ``/t``         checked  see `Access`  ``call_tokens``
    ``/metrics``                checked  may not       none
    all others                  checked  may not       ``tokens``
    ==========================  =======  ============  ================

    Links of other pages may be followed: what they lead to, the other page can't see.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access
        self._reader = head_reader(app)
        self._origins = {origin.rstrip("/").lower().encode() for origin in access.origins}
        self._everyone = access.origins[:1] == ("*",)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        found = self._admitted(scope)
        if isinstance(found, Reply):
            await found.send(send)
        else:
            app, scope = found
            await app(scope, receive, send)

    def handler(self, scope: Scope) -> Handler | None:
        """See `HeadReader`: a head that may pass is looked at once."""
        found = self._admitted(scope) if self._reader else None
        if found is None or isinstance(found, Reply) or found[0] is not self._app:
            return None
        assert self._reader is not None
        return self._reader.handler(found[1])

    def _admitted(self, scope: Scope) -> tuple[ASGIApp, Scope] | Reply:
        """What serves the request, and how it is to see it; or the answer."""
        path: str = scope["path"]
        if path in OPEN:
            return self._app, scope
        marks = [pair for pair in scope["headers"] if pair[0] in _MARKS]
        first = path[1:].partition("/")[0]
        is_call = first in _CALLS
        if is_call and len(marks) == 1 and not self._access.call_tokens:
            name, value = marks[0]  # a program's call, as most are
            if name == b"host" and value in self._access.hosts:
                return self._app, scope
        fields = dict(marks)
        hosts = [value for name, value in marks if name == b"host"]
        if error := (
            _twice(marks, fields)
            or self._wrong_host(hosts)
            or self._wrong_page(scope, fields, hosts, is_call)
        ):
            return error_reply(error)
        if is_call:
            return self._call(scope, fields)
        access = self._access
        if not access.tokens or first == "metrics":
            return self._app, scope
        token = bearer(fields.get(b"authorization", b""))
        if access.tokens.accepts(token):
            return self._app, scope
        if first == "ui" and access.login is not None:
            logged_in = access.tokens.has_session(fields.get(b"cookie", b""))
            return (self._app if logged_in and path != "/ui/login" else access.login), scope
        return unauthorised(token, "FN_TOKEN")

    def _call(self, scope: Scope, fields: dict[bytes, bytes]) -> tuple[ASGIApp, Scope] | Reply:
        access = self._access
        if not access.tokens and not access.call_tokens:
            return self._app, scope
        token = bearer(fields.get(b"authorization", b""))
        is_known = any([access.tokens.accepts(token), access.call_tokens.accepts(token)])
        if access.call_tokens and not is_known:
            return unauthorised(token, "FN_INVOKE_TOKEN")
        if not is_known:
            return self._app, scope
        # It was for us: a function must not get to know it.
        rest = [pair for pair in scope["headers"] if pair[0] != b"authorization"]
        return self._app, {**scope, "headers": rest}

    def _wrong_host(self, hosts: list[bytes]) -> APIError | None:
        # No browser leaves it out.
        if not hosts or not hosts[0] or hosts[0] in self._access.hosts:
            return None
        shown = hosts[0].decode("latin-1")[:_MAX_KNOWN_SIZE]
        return APIError(403, f"Host {shown!r} is no name of this node: see FN_ALLOWED_HOSTS")

    def _wrong_page(
        self, scope: Scope, fields: dict[bytes, bytes], hosts: list[bytes], is_call: bool
    ) -> APIError | None:
        access = self._access
        if is_call and not access.local:
            return None
        site, origin = fields.get(b"sec-fetch-site"), fields.get(b"origin")
        if site is None and origin is None:
            return None
        if origin is not None and (self._everyone or origin.lower() in self._origins):
            return None
        if site is None:
            is_own = origin == b"" or _host_in(origin) in [host.lower() for host in hosts]
        else:
            is_own = site in (b"same-origin", b"none")
        if is_own or _is_link(scope["method"], fields):
            return None
        if is_call and (site == b"same-site" or is_loopback(name_of(_host_in(origin)) or "")):
            return None
        return APIError(403, "Pages of other origins may not ask for this: see FN_API_CORS_ORIGINS")


def _twice(marks: RawHeaders, fields: dict[bytes, bytes]) -> APIError | None:
    """Who reads the first of two sees another request than who reads the last."""
    if len(fields) == len(marks):
        return None
    names = [name for name, _ in marks if name != b"cookie"]
    twice = next((name for name in names if names.count(name) > 1), None)
    return None if twice is None else APIError(400, f"{twice.decode().title()} is there twice")


def _host_in(origin: bytes | None) -> bytes:
    return (origin or b"").lower().partition(b"://")[2]


def _is_link(method: str, fields: dict[bytes, bytes]) -> bool:
    """The user goes there, the other page is left (or another one is opened beside it)."""
    return (
        method in ("GET", "HEAD")
        and fields.get(b"sec-fetch-mode") == b"navigate"
        and fields.get(b"sec-fetch-dest") == b"document"
    )


CHALLENGE = (b"www-authenticate", b'Bearer realm="hostler"')


def unauthorised(token: bytes, variable: str) -> Reply:
    """The answer to a request with a wrong ``token``, or without one. ``variable`` is the one from
    which clients take it."""
    text = "This is not the token of this node" if token else "This needs a token"
    error = APIError(401, f"{text}, as Authorization: Bearer; clients send what {variable} has")
    return error_reply(error, [CHALLENGE])
