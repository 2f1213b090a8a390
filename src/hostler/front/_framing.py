"""Requests whose end, or whose host, another server on the way may see differently.

h11 refuses much of what request smuggling is made of: lengths that contradict each other or are no
numbers, other transfer codings than ``chunked``, more than one ``Host``, blanks before a header's
colon. It is lenient with the rest, as HTTP allows: folded lines, a bare LF as the end of a line,
lists of equal lengths, any version. All of that is refused here, by what was sent, not by what h11
has made of it: the head, and the lines of a chunked body, have to be in the one form that
RFC 9112 lets a sender use.
"""

from __future__ import annotations

import re

import h11

_HOST = re.compile(rb"[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]]*")
"""Characters of RFC 3986, section 3.2, but for the ``@`` of user names."""

# No repetition can match what follows it, so a match takes linear time; possessive, no memory.
_FIELD = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t -~\x80-\xff]*+"
_TRAILER = re.compile(_FIELD)
_HEAD = re.compile(rb"[^\r\n]*+\r\n(?:%b\r\n)*+\r\n" % _FIELD)
_LENGTH = re.compile(rb"\r\nContent-Length:[ \t]*+([^\r]*+)", re.IGNORECASE)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t -~\x80-\xff]*+)?")
_VERSIONS = (b"1.0", b"1.1")


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
    host = next((value for name, value in request.headers if name == b"host"), b"")
    if not _HOST.fullmatch(host):
        return 400, "invalid Host header"
    return None


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
