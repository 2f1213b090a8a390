"""A hostler that starts functions and is then killed. Prints one JSON line when they run."""

from __future__ import annotations

import json
import sys
import tempfile

import trio

from hostler.abc import ContainerTask
from hostler.drivers.process import ProcessContainer, open_process_driver
from hostler.testing import ReadyWatch, call_function


async def main(program: str, count: int) -> None:
    async with open_process_driver(images={"fnt": [program]}) as driver:
        pids = [driver.warden.pid]
        for number in range(count):
            folder = tempfile.mkdtemp(dir=sys.argv[3])
            task = ContainerTask(id=f"c{number}", image="fnt", iofs_agent_path=folder)
            cookie = await driver.create_cookie(task)
            await cookie.validate_image()
            await cookie.create_container()
            with ReadyWatch(folder) as watch:
                container = await cookie.run()
                path = await watch.ready()
            assert isinstance(container, ProcessContainer)
            child = await call_function(path, b"", [("Fnt-Do", "child")])
            pids += [container.pid, int(child.body)]
            if number % 2:
                await cookie.freeze()
        print(json.dumps(pids), flush=True)  # noqa: T201  (the test reads it)
        await trio.sleep_forever()


trio.run(main, sys.argv[1], int(sys.argv[2]))
