"""Bearer tokens (RFC 6750), and what a browser gets in the place of one."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Iterable

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
        # All are compared, whichever is right.
        return sum(hmac.compare_digest(token, key) for key in self._keys) > 0

    def session(self) -> tuple[str, str]:
        """Name and value of a cookie that stands for a token, which can't be found out from it.

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
