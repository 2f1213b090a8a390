"""A runner that only knows Fn's protocol, on grpcio, in a process of its own.

``python -m tests.pool.foreign_runner FOLDER``: prints its address, then what arm the first message
of each engagement had. Its messages are made of our proto file without what is ours.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]

PROTO = Path(__file__).resolve().parents[2] / "proto" / "runner.proto"
OURS = re.compile(r"^ .* = 10[1-9];.*\n", re.MULTILINE)
"""Fields from number 101 on. (100 is Fn's.)"""


def make_stubs(folder: Path) -> tuple[Any, Any]:
    """(messages, service) of Fn's protocol."""
    (folder / "runner.proto").write_text(OURS.sub("", PROTO.read_text()))
    include = resources.files("grpc_tools") / "_proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"-I{include}"]
    command += [f"--python_out={folder}", f"--grpc_python_out={folder}", "runner.proto"]
    subprocess.run(command, check=True, timeout=60)
    sys.path.insert(0, str(folder))
    return importlib.import_module("runner_pb2"), importlib.import_module("runner_pb2_grpc")


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Runner:
    """Echoes. It has no other method."""

    def __init__(self, pb: Any) -> None:
        self._pb = pb

    def __getattr__(self, name: str) -> Any:
        return None

    def Engage(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        pb = self._pb
        arm = next(requests).WhichOneof("body")
        tell(str(arm))
        if arm != "try":
            context.abort(grpc.StatusCode.UNKNOWN, "Protocol failure: expected ClientMsg_Try")
        body = bytearray()
        for message in requests:
            body += message.data.data
            if message.data.eof:
                break
        http = pb.HttpRespMeta(status_code=200)
        yield pb.RunnerMsg(result_start=pb.CallResultStart(http=http))
        yield pb.RunnerMsg(data=pb.DataFrame(data=bytes(body)))
        yield pb.RunnerMsg(finished=pb.CallFinished(success=True))


def main(folder: Path) -> None:
    pb, pb_grpc = make_stubs(folder)
    assert set(pb.ClientMsg.DESCRIPTOR.fields_by_name) == {"try", "data"}
    assert "load" not in pb.CallFinished.DESCRIPTOR.fields_by_name
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads)
        pb_grpc.add_RunnerProtocolServicer_to_server(Runner(pb), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        tell(f"127.0.0.1:{port}")
        sys.stdin.read()
        server.stop(None).wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
