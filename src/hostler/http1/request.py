"""Request heads of either parser, remembered, and the checks against request smuggling.

h11 refuses much of what request smuggling is made of: lengths that contradict each other or are no
numbers, other transfer codings than ``chunked``, more than one ``Host``, blanks before a header's
colon. It is lenient with the rest, as HTTP allows: folded lines, a bare LF as the end of a line,
lists of equal lengths, any version. All of that is refused here, by the bytes that were sent: the
head, and the lines of a chunked body, have to be in the one form that RFC 9112 lets a sender use.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import attrs
import h11

from .._asgi.types import Handler, Scope
from ..headers import SECRET
from .plain import Pairs, PlainHead, read_head


@attrs.define
class RequestHead:
    """Names of ``fields`` are in lower case. The next request often has the same."""

    method: bytes
    target: bytes
    fields: Pairs
    version: str
    scheme: str
    handler: Handler | None = None
    """What serves requests with it, once that is known."""
    _scope: dict[str, Any] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        target, _, query = self.target.partition(b"?")
        headers = self.fields
        if not target.startswith(b"/") and b"://" in target:  # the absolute form of proxies
            host, _, path = target.split(b"://", 1)[1].partition(b"/")
            target = b"/" + path
            # It counts for more than the header (RFC 9112, section 3.2.2).
            headers = [pair for pair in headers if pair[0] != b"host"]
            headers.append((b"host", host))
        self._scope = {
            "type": "http",
            "http_version": self.version,
            "method": self.method.decode("ascii"),
            "scheme": self.scheme,
            "path": unquote(target.decode("ascii")),
            "raw_path": target,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "server": None,
            "asgi": {},
            "client": None,
            "extensions": {},
        }

    @classmethod
    def of(cls, event: h11.Request, scheme: str) -> RequestHead:
        version = event.http_version.decode("ascii")
        return cls(event.method, event.target, list(event.headers), version, scheme)

    @classmethod
    def of_plain(cls, plain: PlainHead, scheme: str) -> RequestHead:
        return cls(plain.method, plain.target, plain.fields, "1.1", scheme)

    def scope(self, client: tuple[str, int] | None, extensions: dict[str, object]) -> Scope:
        """A new scope, which belongs to the application."""
        scope = self._scope.copy()
        scope["headers"] = [*scope["headers"]]
        scope["asgi"] = {"version": "3.0", "spec_version": "2.4"}
        scope["client"] = client
        scope["extensions"] = extensions
        return scope


MAX_REMEMBERED = 2048
"""Heads that are kept in case another request, of any connection, has the same."""

MAX_REMEMBERED_SIZE = 2048
"""Bytes of one of them."""

_SECRET = frozenset(name.encode() for name in SECRET)


class Heads:
    """Reads the heads of plain requests: most clients send the same again and again, if only with
    a new connection each time. None is longer than ``max_head``. ``scheme`` is that of the server's
    URLs: ``http`` or ``https``."""

    def __init__(self, max_head: int, scheme: str = "http") -> None:
        self.max_head = max_head
        self.scheme = scheme
        self._known: dict[bytes, tuple[PlainHead, RequestHead]] = {}

    def read(self, data: bytes) -> tuple[PlainHead, RequestHead] | None:
        """The head that ``data`` begins with; ``None`` if it is not plain."""
        raw = data[: data.find(b"\r\n\r\n", 0, MAX_REMEMBERED_SIZE) + 4]
        known = self._known.get(raw)
        if known is not None:
            return known
        plain = read_head(data, self.max_head)
        if plain is None:
            return None
        known = plain, RequestHead.of_plain(plain, self.scheme)
        if plain.raw == raw and _SECRET.isdisjoint([name for name, _ in plain.fields]):
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[raw] = known
        return known


_HOST_CHARS = rb"[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]]"
_HOST = re.compile(_HOST_CHARS + rb"*+")
"""Characters of RFC 3986, section 3.2, but for the ``@`` of user names."""

_TARGET = re.compile(rb"/[^#]*+|\*|https?://" + _HOST_CHARS + rb"++(?:[/?][^#]*+)?", re.IGNORECASE)
"""RFC 9112, section 3.2; nobody tunnels through a node."""

# No repetition can match what follows it, so a match takes linear time; possessive, no memory.
_FIELD = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t -~\x80-\xff]*+"
_TRAILER = re.compile(_FIELD)
_HEAD = re.compile(rb"[^\r\n]*+\r\n(?:%b\r\n)*+\r\n" % _FIELD)
_LENGTH = re.compile(rb"\r\nContent-Length:[ \t]*+([^\r]*+)", re.IGNORECASE)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t -~\x80-\xff]*+)?")
_VERSIONS = (b"1.0", b"1.1")
_EXPECTED = (b"", b"100-continue")
_SHOWN = re.compile(r":? *(bytearray\()?b(['\"]).*\2\)?", re.DOTALL)
"""Bytes as Python shows them."""


def head_size(request: h11.Request) -> int:
    """Bytes of the head, as it is usually written."""
    headers = sum(len(name) + len(value) + 4 for name, value in request.headers.raw_items())
    return len(request.method) + len(request.target) + len(b"  HTTP/1.1\r\n\r\n") + headers


def framing_fault(request: h11.Request, raw: bytes) -> tuple[int, str] | None:
    """The status and the text that tell what is wrong with the ``request``, which was sent as
    ``raw``; ``None`` if nothing is. The connection has to end then."""
    if request.http_version not in _VERSIONS:
        return 505, "HTTP version not supported"
    if not _HEAD.fullmatch(raw):
        return 400, "a header line is folded, ends without CR LF, or has a control character"
    lengths = _LENGTH.findall(raw)
    if len(lengths) > 1 or (lengths and not lengths[0].rstrip(b" \t").isdigit()):
        return 400, "Content-Length is not one number"
    if b"transfer-encoding" in {name for name, _ in request.headers}:
        if lengths:  # RFC 9112, section 6.1: may be refused
            return 400, "Content-Length and Transfer-Encoding exclude each other"
        if request.http_version == b"1.0":  # the same section: framing is faulty
            return 400, "HTTP/1.0 has no Transfer-Encoding"
    if any(name == b"expect" and value.lower() not in _EXPECTED for name, value in request.headers):
        return 417, "the only expectation that this server knows is 100-continue"
    if not _TARGET.fullmatch(request.target):
        return 400, "invalid request target"
    host = next((value for name, value in request.headers if name == b"host"), b"")
    if not _HOST.fullmatch(host):
        return 400, "invalid Host header"
    return None


def fault_of(error: h11.RemoteProtocolError, max_head: int) -> tuple[int, str]:
    """The status and the text for a head that h11 refuses. h11's own text may show what the client
    sent as Python shows it."""
    status = error.error_status_hint
    return status, head_too_large(max_head) if status == 431 else _SHOWN.sub("", str(error))


def head_too_large(max_head: int) -> str:
    """The text for a head of more than ``max_head`` bytes."""
    return f"Request header too large for this server, max {max_head} bytes"


class ChunkLines:
    """Looks at the lines of a chunked body: those with sizes, and the trailers. h11 sees to the
    rest, and to their length."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._skip = 0
        """Bytes of data, with the line end behind them, that come before the next line."""
        self._last = False
        self._ended = False

    def check(self, data: bytes) -> None:
        """``data`` comes next, of which the end may be the next request. Raises
        `h11.RemoteProtocolError`."""
        at = min(self._skip, len(data))
        self._skip -= at
        while at < len(data) and not self._ended:
            end = data.find(b"\n", at) + 1 or len(data)
            self._line += data[at:end]
            if not self._line.endswith(b"\n"):
                return
            self._take_line(bytes(self._line))
            self._line.clear()
            at = min(end + self._skip, len(data))
            self._skip -= at - end

    def _take_line(self, line: bytes) -> None:
        text = line[:-2] if line.endswith(b"\r\n") else b"\n"
        if self._last:
            self._ended = not text
            if text and not _TRAILER.fullmatch(text):
                raise h11.RemoteProtocolError("bad trailer of a chunked body")
            return
        size = _CHUNK.fullmatch(text)
        if size is None:
            raise h11.RemoteProtocolError("bad size of a chunk")
        self._skip = int(size[1], 16) + 2
        if self._skip == 2:
            self._skip, self._last = 0, True
