"""FN_LOG_FORMAT, _LEVEL, _DEST, _PREFIX."""

from __future__ import annotations

import io
import json
import logging
import socket
from pathlib import Path
from typing import Literal

import pytest
import structlog

from hostler.config import NodeConfig
from hostler.errors import ConfigError
from hostler.logs import open_logs


def fail() -> None:
    password = "hunter2"
    raise RuntimeError(f"went wrong with {len(password)}")


def lines_of(config: NodeConfig) -> list[str]:
    """What a debug line, an info line and a failure look like."""
    out = io.StringIO()
    with open_logs(config, out):
        log = structlog.get_logger("test")
        log.debug("small thing")
        log.info("a call", call_id="c1", duration_ms=1.5)
        try:
            fail()
        except RuntimeError:
            log.exception("bad thing")
    return out.getvalue().splitlines()


def test_json_is_one_document_for_each_line() -> None:
    events = [json.loads(line) for line in lines_of(NodeConfig(log_format="json"))]
    assert [event["event"] for event in events] == ["a call", "bad thing"]
    assert events[0]["call_id"] == "c1"
    assert events[0]["duration_ms"] == 1.5
    assert events[0]["level"] == "info"
    assert events[0]["timestamp"].endswith("Z")
    assert "RuntimeError: went wrong" in events[1]["exception"]


def test_text_has_tracebacks_without_local_variables() -> None:
    text = "\n".join(lines_of(NodeConfig()))
    assert "a call" in text
    assert "call_id=c1" in text
    assert "RuntimeError: went wrong" in text
    assert "hunter2" not in text.replace('password = "hunter2"', "")
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("level", "count"), [("trace", 3), ("debug", 3), ("info", 2), ("warn", 1), ("panic", 0)]
)
def test_levels(level: str, count: int) -> None:
    assert len(lines_of(NodeConfig(log_format="json", log_level=level))) == count


def test_values_that_are_no_json_become_text() -> None:
    out = io.StringIO()
    with open_logs(NodeConfig(log_format="json"), out):
        structlog.get_logger().info("x", path=Path("/a"), error=ValueError("v"))
    assert json.loads(out.getvalue())["path"] == "/a"


def test_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    for number in range(2):
        with open_logs(NodeConfig(log_dest=f"file://{path}", log_format="json")):
            structlog.get_logger().info("line", number=number)
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [0, 1]


def test_libraries_are_heard_from_warning_on_and_left_as_they_were() -> None:
    out = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    with open_logs(NodeConfig(log_format="json", log_level="debug"), out):
        logging.getLogger("other.package").info("chatter")
        logging.getLogger("other.package").warning("trouble %d", 7)
    [line] = out.getvalue().splitlines()
    event = json.loads(line)
    assert (event["event"], event["logger"], event["level"]) == (
        "trouble 7",
        "other.package",
        "warning",
    )
    assert (root.handlers, root.level) == before


@pytest.mark.parametrize("scheme", ["udp://", ""])
def test_syslog_over_udp_with_a_prefix(scheme: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        dest = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
        with open_logs(NodeConfig(log_dest=dest, log_prefix="node1", log_format="json")):
            structlog.get_logger().info("hello")
        received = server.recv(4096)
    assert received.startswith(b"<14>node1 {")
    assert b'"event":"hello"' in received


def test_syslog_over_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        dest = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with open_logs(NodeConfig(log_dest=dest)):
            structlog.get_logger().info("hello")
        stream, _ = server.accept()
        with stream:
            assert b"hello" in stream.recv(4096)


def test_syslog_server_that_is_not_there() -> None:
    with socket.socket() as nobody:  # bound, not listening: refuses
        nobody.bind(("127.0.0.1", 0))
        dest = f"tcp://127.0.0.1:{nobody.getsockname()[1]}"
        with (
            pytest.raises(ConfigError, match=f"cannot log to {dest}: Connection refused"),
            open_logs(NodeConfig(log_dest=dest)),
        ):
            pass


def test_a_text_line_is_one_line_whatever_is_in_it() -> None:
    out = io.StringIO()
    with open_logs(NodeConfig(), out):
        log = structlog.get_logger("test")
        log.info("a call", b="two words", a="x=1\nforged", c="", d=None, e=1.5, f="plain/text:1")
        log.info("no details")
        log.info("forged\nline")
    first, second, third = out.getvalue().splitlines()
    details = "a='x=1\\nforged' b='two words' c='' d=None e=1.5 f=plain/text:1"
    assert first.partition(" ")[2] == f"[info     ] {'a call':30} {details}"
    assert second.endswith("[info     ] no details")
    assert third.endswith("[info     ] 'forged\\nline'")


@pytest.mark.parametrize("log_level", ["debug", "info", "warn", "error"])
def test_a_library_may_log_at_any_level_and_make_mistakes(log_level: str) -> None:
    """No line is worth an exception where it is written, which may be in the midst of a call."""
    out = io.StringIO()
    with open_logs(NodeConfig(log_level=log_level), out):
        library = logging.getLogger("some.package")
        library.log(25, "between info and warning")
        library.log(35, "between warning and error")
        library.log(60, "above all")
        library.error("%d is no number", "ten")
        library.error("fine")
    told = out.getvalue()
    assert "above all" in told
    assert ("between warning" in told) == (log_level != "error")
    assert "between info" not in told  # as all of libraries that is below a warning
    assert "ten" in told
    assert "fine" in told


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_text_that_is_no_unicode_is_logged_all_the_same(
    log_format: Literal["json", "text"],
) -> None:
    out = io.StringIO()
    with open_logs(NodeConfig(log_format=log_format), out):
        structlog.get_logger("test").info("found", file="strange\udcff", number=1)
    assert "strange\\udcff" in out.getvalue()


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_details_may_have_any_name(log_format: Literal["json", "text"]) -> None:
    out = io.StringIO()
    with open_logs(NodeConfig(log_format=log_format), out):
        log = structlog.get_logger("test")
        log.info("asked", method="GET", details="d", self_="s", logger="l", name="n")
        log.bind(method="PUT").info("asked", level_="x")
    first, second = out.getvalue().splitlines()
    assert "GET" in first
    assert "PUT" in second


def test_a_text_line_is_about_its_own_details_whatever_was_told_before() -> None:
    """What is the same as in the line before is not made again."""
    out = io.StringIO()
    changing: list[int] = []
    values = [0, 0.0, False, None, "", "a", "a b", "a", 0.0, 1e16, Path("/a"), changing, changing]
    with open_logs(NodeConfig(), out):
        log = structlog.get_logger("test")
        for value in values:
            log.info("one", b=value)
            log.info("two", b=value, a="same")
            changing.append(1)
    told = ["0", "0.0", "False", "None", "''", "a", "'a b'", "a", "0.0", "1e+16"]
    told += ["PosixPath('/a')", str([1] * 11), str([1] * 12)]
    assert [line.split(maxsplit=4)[4] for line in out.getvalue().splitlines()] == [
        line for value in told for line in (f"b={value}", f"a=same b={value}")
    ]


def test_events_may_have_arguments() -> None:
    out = io.StringIO()
    with open_logs(NodeConfig(), out):
        structlog.get_logger("test").info("%d of %s", 1, "two", three=3)
    assert out.getvalue().split("] ")[1].split() == ["1", "of", "two", "three=3"]
