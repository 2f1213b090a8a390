"""Shows the main job step by step: one LB, two runners, a real function, custom settings.

python examples/demo --image IMAGE            # Docker, at DOCKER_HOST
python examples/demo --command 'python …'     # local processes instead
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import urllib.request
from contextlib import AsyncExitStack
from email.message import Message
from pathlib import Path
from typing import Any

import attrs
import docker
import trio
from nodes import Node, NodeFailed, running

HERE = Path(__file__).resolve().parent
LABEL = "hostler-demo"
NETWORK_IMAGE = "hostler-pause:1"
"""Image of the containers that keep network name spaces ready."""


@attrs.frozen
class Answer:
    status: int
    headers: Message
    body: bytes
    milliseconds: float


def post(url: str, body: bytes, **headers: str) -> Answer:
    """POST and time it. Blocks."""
    began = time.perf_counter()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body, named)  # noqa: S310  (our own loopback URL)
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        return Answer(
            response.status,
            response.headers,
            response.read(),
            (time.perf_counter() - began) * 1000,
        )


class Demo:
    """Does the steps, and prints each one."""

    def __init__(self, image: str, engine: docker.APIClient | None) -> None:
        self._image = image
        self._engine = engine
        self._step = 0

    def say(self, text: str) -> None:
        print(f"   {text}", flush=True)

    def step(self, text: str) -> None:
        self._step += 1
        print(f"\n{self._step}. {text}", flush=True)

    async def run(self) -> None:
        with tempfile.TemporaryDirectory(prefix="hostler-demo-") as folder:
            functions = Path(folder) / "functions.yaml"
            template = (HERE / "functions.yaml").read_text()
            functions.write_text(template.replace("@IMAGE@", self._image.replace('"', '\\"')))
            async with AsyncExitStack() as stack:
                runners = await self._start_runners(stack, folder)
                lb = await self._start_lb(stack, functions, runners)
                await self._call(lb, "shop-hello", "A first call: it starts a container.")
                await self._call(lb, "shop-hello", "The same call again: now the container is hot.")
                await self._call(
                    lb, "blog-hello", "The other app has another tier: it gets its own container."
                )
                await self._call_detached(lb)
                await self._inspect()
                self.step("Stopping: each node drains and removes what it made.")
        await self._count_leftovers()

    async def _start_runners(self, stack: AsyncExitStack, folder: str) -> dict[str, str]:
        self.step("Starting two runners, in the zones north and south.")
        opener = "open_driver" if self._engine else "open_driver_without_docker"
        zones = {}
        for zone in ("north", "south"):
            arguments = ["runner", "--bind", "127.0.0.1:0", "--driver", f"provider:{opener}"]
            arguments += ["--overrider", "provider:runner_overrider"]
            environment = {
                "ZONE": zone,
                "FN_IOFS_PATH": folder,
                "FN_CONTAINER_LABEL_TAG": f"{LABEL}-{zone}",
            }
            node = await stack.enter_async_context(running(zone, arguments, environment))
            zones[str(node.addresses["grpc"])] = zone
            self.say(f"runner {zone}: {node.addresses['grpc']}, process {node.process.pid}")
        return zones

    async def _start_lb(
        self, stack: AsyncExitStack, functions: Path, runners: dict[str, str]
    ) -> Node:
        self.step("Starting a load balancer over both, with a consistent-hash placer.")
        arguments = ["lb", "--bind", "127.0.0.1:0", "--runners", ",".join(runners)]
        arguments += ["--placer", "ch", "--functions", str(functions)]
        arguments += ["--overrider", "provider:lb_overrider"]
        node = await stack.enter_async_context(running("lb", arguments, {}))
        self._zones = runners
        self._url = f"http://{node.addresses['http'][0]}"
        self.say(f"load balancer: {self._url}, process {node.process.pid}")
        return node

    async def _call(self, lb: Node, fn: str, title: str) -> None:
        self.step(title)
        url = f"{self._url}/invoke/{fn}"
        answer = await trio.to_thread.run_sync(post, url, b'{"name": "Ada"}')
        greeting: dict[str, Any] = json.loads(answer.body)
        self.say(f"POST {url}")
        self.say(f"{answer.status} {greeting['message']!r} after {answer.milliseconds:.1f} ms")
        self.say(
            f"the function sees TENANT_TIER={greeting['tier']} (the extension that the LB added) "
            f"and RUNNER_ZONE={greeting['zone']} (the runner's)"
        )
        await self._tell_stages(lb, answer)

    async def _tell_stages(self, lb: Node, answer: Answer) -> None:
        with trio.fail_after(10):
            line = await lb.wait_log("call finished", call_id=answer.headers["Fn-Call-Id"])
        zone = self._zones[line["runner"]]
        kind = "cold" if line["init_ms"] else "hot"
        self.say(f"ran on runner {zone} ({line['runner']}), {kind}, attempts: {line['attempts']}")
        stages = {
            "preparing": line["prep_ms"],
            "pulling": line["pull_ms"],
            "creating and starting": line["create_ms"],
            "until the function listens": line["init_ms"],
        }
        told = ", ".join(f"{name} {value:.1f}" for name, value in stages.items() if value)
        if told:
            self.say(f"waited {line['scheduler_ms']:.1f} ms for the container: {told}")
        self.say(f"{line['execution_ms']:.1f} ms in the function")

    async def _call_detached(self, lb: Node) -> None:
        self.step("A detached call: answered as soon as the function runs.")
        url = f"{self._url}/invoke/shop-hello"
        body = b'{"name": "later"}'
        answer = await trio.to_thread.run_sync(lambda: post(url, body, Fn_Invoke_Type="detached"))
        self.say(
            f"{answer.status} with {len(answer.body)} bytes after {answer.milliseconds:.1f} ms"
        )
        await self._tell_stages(lb, answer)

    async def _inspect(self) -> None:
        if self._engine is None:
            return
        self.step("What the engine says of the containers: CPU shares by tier.")
        for container in await trio.to_thread.run_sync(self._containers):
            if container["Config"]["Image"] == NETWORK_IMAGE:
                continue
            environment = dict(item.split("=", 1) for item in container["Config"]["Env"])
            self.say(
                f"{container['Name'].removeprefix('/')}: {environment['TENANT_TIER']}, "
                f"CpuShares={container['HostConfig']['CpuShares']}"
            )

    async def _count_leftovers(self) -> None:
        left = await trio.to_thread.run_sync(self._containers) if self._engine else []
        self.say(f"stopped. Containers left: {len(left)}")
        if left:
            raise SystemExit(1)

    def _containers(self) -> list[dict[str, Any]]:
        """All containers of the demo's runners. Blocks."""
        assert self._engine is not None
        labels = [f"fn-agent-classifier={LABEL}-{zone}" for zone in ("north", "south")]
        found = [
            entry["Id"]
            for label in labels
            for entry in self._engine.containers(all=True, filters={"label": label})
        ]
        return [self._engine.inspect_container(name) for name in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--image", help="the function's image, on the engine at DOCKER_HOST")
    which.add_argument("--command", help="the function as a command line, without an engine")
    arguments = parser.parse_args()
    engine = (
        docker.APIClient(os.environ["DOCKER_HOST"], version="auto") if arguments.image else None
    )
    failed = False
    try:
        trio.run(Demo(arguments.image or arguments.command, engine).run)
    except* NodeFailed:
        failed = True  # what it printed has been shown
    finally:
        if engine is not None:
            engine.close()
    if failed:
        sys.exit("demo: a node did not start, see above")


if __name__ == "__main__":
    main()
