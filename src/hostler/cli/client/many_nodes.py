"""Commands that ask several nodes the same, of which some may fail."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import trio

from ...errors import APIError
from ..errors import tell
from .errors import UNAVAILABLE, CommandFailed, exit_code

if TYPE_CHECKING:
    from ...api_client import Answer


SECONDS = 10.0
"""For a node to answer."""


async def ask_each(servers: Sequence[str], ask: Callable[[str], Awaitable[None]]) -> None:
    """Ask all at once. A node that fails is told of at once and does not end the others; after
    them the command ends with its code, the greatest of several."""
    codes: list[int] = []

    async def ask_one(server: str) -> None:
        from ...api_client import ApiUnavailable

        try:
            await ask(server)
        except ApiUnavailable as error:
            tell(f"{server} does not answer as it should ({' '.join(error.reason.split())})")
            codes.append(UNAVAILABLE)
        except (APIError, CommandFailed) as error:
            tell(f"{server}: {error}")
            codes.append(exit_code(error))

    async with trio.open_nursery() as nursery:
        for server in servers:
            nursery.start_soon(ask_one, server)
    if codes:
        sys.exit(max(codes))


async def check(answer: Answer, missing: str) -> None:
    """Raises `CommandFailed` unless the node gives what it was asked for; for 404 ``missing`` says
    why it may not."""
    from ...api_client import message_of

    if answer.status == 200:
        return
    if answer.status == 404:
        raise CommandFailed(missing)
    body = b"".join([piece async for piece in answer.body])
    code = UNAVAILABLE if answer.status in (429, 503) else 1
    raise CommandFailed(f"{answer.status} {message_of(body) or answer.reason}", code)


def token_headers() -> dict[str, str]:
    """For nodes that ask for a token: that of ``FN_TOKEN``. Raises `ConfigError`."""
    from ...api_client import authorization
    from ...config import ApiConfig

    return authorization(ApiConfig.from_env().token)


def base_of(server: str) -> str:
    """The URL without a slash at its end, and with a scheme."""
    return (server if "://" in server else f"http://{server}").rstrip("/")
