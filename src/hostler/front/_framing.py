"""Requests whose end, or whose host, another server on the way may see differently.

h11 refuses most of what request smuggling is made of: lengths that contradict each other or are no
numbers, other transfer codings than ``chunked``, chunks with bad sizes, more than one ``Host``,
blanks before a header's colon. What it lets pass is refused here.
"""

from __future__ import annotations

import re

import h11

_HOST = re.compile(rb"[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]]*")
"""Characters of RFC 3986, section 3.2, but for the ``@`` of user names."""


def head_size(request: h11.Request) -> int:
    """Bytes of the head, as it is usually written."""
    headers = sum(len(name) + len(value) + 4 for name, value in request.headers.raw_items())
    return len(request.method) + len(request.target) + len(b"  HTTP/1.1\r\n\r\n") + headers


def framing_fault(request: h11.Request) -> str | None:
    """What is wrong with the request, ``None`` if nothing is. The connection has to end then."""
    names = {name for name, _ in request.headers}
    if b"transfer-encoding" in names:
        if b"content-length" in names:  # RFC 9112, section 6.1: may be refused
            return "Content-Length and Transfer-Encoding exclude each other"
        if request.http_version == b"1.0":  # the same section: framing is faulty
            return "HTTP/1.0 has no Transfer-Encoding"
    host = next((value for name, value in request.headers if name == b"host"), b"")
    if not _HOST.fullmatch(host):
        return "invalid Host header"
    return None
