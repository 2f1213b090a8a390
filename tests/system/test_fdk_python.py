"""A function on Fn's unmodified Python kit, in containers of a node."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.functions.build import fdk_image

from .kits import Kit, deployed_directory, open_kit_node, run_scenarios

pytestmark = [pytest.mark.docker, pytest.mark.slow]

DIRECTORY = {
    "func.py": """
from fdk import response
from parts import words

def handler(ctx, data=None):
    return response.Response(ctx, response_data=words.TEXT)
""",
    "parts/words.py": "TEXT = 'of two files'",
}
KIT = Kit("python", fdk_image, "fdk-python/", DIRECTORY)


async def test_python_kit(tmp_path: Path, docker_host: str) -> None:
    async with open_kit_node(KIT, tmp_path, docker_host) as on:
        await run_scenarios(on)
        await deployed_directory(on, tmp_path / "function", docker_host)
