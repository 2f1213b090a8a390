"""A function on Fn's unmodified Node kit, in containers of a node."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.functions.node_image import node_image

from .http import posting
from .kits import SECONDS, Kit, KitNode, deployed_directory, open_kit_node, run_scenarios

pytestmark = [pytest.mark.docker, pytest.mark.slow]

DIRECTORY = {
    "func.js": """
const fdk = require('@fnproject/fdk')
const { TEXT } = require('./parts/words')

fdk.handle(() => TEXT)
""",
    "parts/words.js": "exports.TEXT = 'of two files'",
}
KIT = Kit("node", node_image, "fdk-node/", DIRECTORY)


async def test_node_kit(tmp_path: Path, docker_host: str) -> None:
    async with open_kit_node(KIT, tmp_path, docker_host) as on:
        await run_scenarios(on)
        await first_part_of_a_response(on)
        await deployed_directory(on, tmp_path / "function", docker_host)


async def first_part_of_a_response(on: KitNode) -> None:
    """It arrives although the response does not end; when its reader leaves, so does the
    container. (The Python kit has no response in parts.)"""
    instance = await on.instance()
    path = f"/invoke/{on.fns['hello']}"
    with trio.fail_after(SECONDS):
        async with posting(on.node, path, b'{"stream": "one part"}') as exchange:
            assert (await exchange.head()).status == 200
            assert await exchange.piece() == b"one part"
        assert await on.instance() != instance
