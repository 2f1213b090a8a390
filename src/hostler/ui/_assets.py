"""The files of the page, and the headers that keep it to itself."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

import attrs

from hostler._asgi import RawHeaders

_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}

_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS: RawHeaders = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
"""With every answer: nothing but the page's own files is loaded or run, and nobody frames it."""
LOGIN_HEADERS: RawHeaders = [
    (b"content-security-policy", _POLICY.replace(b"form-action 'none'", b"form-action 'self'")),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
]
"""Those of the login form. Without its referrer, browsers would send ``Origin: null`` with it,
which is all that tells of its page where there is no TLS."""


@attrs.frozen
class Asset:
    data: bytes
    content_type: bytes
    etag: bytes


@cache
def assets() -> dict[str, Asset]:
    """By file name. Read once: an upgrade restarts the node."""
    found = {}
    for file in files("hostler.ui").joinpath("static").iterdir():
        content_type = _TYPES.get(file.name[file.name.rfind(".") :])
        if content_type is not None:
            data = file.read_bytes()
            etag = b'"%s"' % hashlib.sha256(data).hexdigest()[:20].encode()
            found[file.name] = Asset(data, content_type, etag)
    return found
