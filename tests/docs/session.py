"""A shell in which the commands of a page are typed one after the other.

It has network interfaces of its own, just the loopback interface, so that pages can name the ports
that a reader would use.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

COMMAND_SECONDS = 60
PRINT_SECONDS = 60
_END = "--- the command has ended with"
_WAIT = """\
for i in $(seq 500); do
  (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && break
  kill -0 $! 2>/dev/null || break
  sleep 0.1
done
(exec 3<>/dev/tcp/127.0.0.1/{port}) || {{ cat {log}; false; }}"""


class Shell:
    """bash in a folder, with the programs of the environment that runs the tests."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder = folder
        self._nodes = 0
        programs = Path(sys.executable).parent
        path = f"{programs}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        self._process = subprocess.Popen(
            ["unshare", "--net", "bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env={"HOME": str(folder), "LC_ALL": "C.UTF-8", **env, "PATH": f"{path}:{env['PATH']}"},
            start_new_session=True,
        )

    def run(self, command: str) -> tuple[int, str]:
        """Its exit code and all that it prints. One that hangs ends the shell."""
        assert self._process.stdin is not None
        self._process.stdin.write(
            f"{{ {command}\n}} </dev/null; _status=$?\necho; echo '{_END}' $_status\n"
        )
        self._process.stdin.flush()
        watchdog = threading.Timer(COMMAND_SECONDS, self._kill)
        watchdog.start()
        try:
            return self._answer(command)
        finally:
            watchdog.cancel()

    def start(self, command: str, port: str) -> tuple[int, str]:
        """Run it in the background and wait until it listens."""
        self._nodes += 1
        log = f".node-{self._nodes}.log"
        return self.run(f"{command} >{log} 2>&1 &\n{_WAIT.format(port=port, log=log)}")

    def wait_printed(self, expected: str) -> None:
        """Until the last one that was started has printed all of these lines."""
        log = self.folder / f".node-{self._nodes}.log"
        end = time.monotonic() + PRINT_SECONDS
        while expected not in log.read_text():
            assert time.monotonic() < end, f"the node printed\n{log.read_text()}\nnot\n{expected}"
            time.sleep(0.02)

    def close(self) -> None:
        """What was started ends as it does at Ctrl-C, but at once."""
        try:
            if self._process.poll() is None:
                self.run("kill $(jobs -p) 2>/dev/null; wait")
        finally:
            self._kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()

    def _answer(self, command: str) -> tuple[int, str]:
        assert self._process.stdout is not None
        printed: list[str] = []
        for line in self._process.stdout:
            if line.startswith(_END):
                return int(line.rsplit(" ", 1)[1]), "".join(printed)
            printed.append(line)
        raise AssertionError(f"the shell ended in {command!r}: {''.join(printed)}")

    def _kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


@contextmanager
def open_shell(folder: Path, env: Mapping[str, str]) -> Iterator[Shell]:
    shell = Shell(folder, env)
    try:
        code, said = shell.run("ip link set lo up")
        assert code == 0, said
        yield shell
    finally:
        shell.close()
