"""Failures to start: one line, the right exit code, no traceback."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import trio

from hostler.cli import app
from hostler.cli.process import misspelt

from ._process import SCRIPT, clean_env, open_node, run

FUNCTIONS = "apps:\n- name: app\n  fns:\n  - {name: echo, image: nothing}\n"


@pytest.fixture
def functions(tmp_path: Path) -> str:
    path = tmp_path / "functions.yaml"
    path.write_text(FUNCTIONS)
    return str(path)


async def fails(*args: str, message: str, env: dict[str, str] | None = None) -> None:
    done = await run(*args, env=env)
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("hostler: error: ")]
    assert len(errors) == 1, done.stderr
    assert message in errors[0]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


LB = ("lb", "--runners", "127.0.0.1:1", "--bind", "127.0.0.1:0")


async def test_missing_functions_file() -> None:
    await fails(*LB, "--functions", "/none.yaml", message="cannot read the functions file /none")


async def test_a_directory_is_no_functions_file(tmp_path: Path) -> None:
    await fails(*LB, "--functions", str(tmp_path), message=f"{tmp_path}: Is a directory")


async def test_bad_functions_file(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(FUNCTIONS.replace("nothing}", "x, memory: 9000}"))
    await fails(
        *LB, "--functions", str(path), message="fns[0] 'echo': memory: 9000 is out of range"
    )


async def test_no_runners(functions: str) -> None:
    text = "must provide FN_RUNNER_ADDRESSES when running in default load-balanced mode"
    await fails("lb", "--functions", functions, message=text)
    text = "no FN_RUNNER_API_URL provided for an Fn NuLB node"
    await fails(*LB, message=text)
    await fails(env={"FN_NODE_TYPE": "lb"}, message=text)
    await fails(env={"FN_NODE_TYPE": "nonsense"}, message="FN_NODE_TYPE='nonsense': takes one of")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--runners", "nonsense", "FN_RUNNER_ADDRESSES='nonsense': takes"),
        ("--runners", "a..b:1", "FN_RUNNER_ADDRESSES='a..b:1': takes"),
        ("--api-url", "http://a..b", "FN_RUNNER_API_URL='http://a..b': takes"),
        ("--placer", "best", "--placer 'best': takes naive, ch,"),
        ("--placer", "os:getcwd.x", "--placer 'os:getcwd.x': AttributeError"),
        ("--bind", "nonsense", "'nonsense' is no address to listen on"),
        ("--bind", "a..b:80", "'a..b:80' is no address to listen on"),
        ("--bind", "203.0.113.1:80", "cannot listen on 203.0.113.1:80"),
        ("--overrider", "none", "--overrider 'none': takes module:attribute"),
        ("--overrider", "none_such:x", "--overrider 'none_such:x': ModuleNotFoundError"),
        ("--overrider", "os:sep", "--overrider 'os:sep': str can't be called"),
        (
            "--overrider",
            "os:getcwd",
            "--overrider 'os:getcwd': a call overrider has to take (request, model, extensions)",
        ),
        ("--log-level", "loud", "FN_LOG_LEVEL='loud': takes"),
        ("--tls-ca", "/none", "TLS needs all three"),
        ("--ready-fd", "77", "--ready-fd 77: Bad file descriptor"),
    ],
)
async def test_bad_options(functions: str, option: str, value: str, message: str) -> None:
    await fails(*LB, "--functions", functions, option, value, message=message)


async def test_bad_variable_and_unusable_log(functions: str) -> None:
    args = (*LB, "--functions", functions)
    await fails(*args, env={"FN_MAX_REQUEST_SIZE": "big"}, message="FN_MAX_REQUEST_SIZE='big'")
    await fails(
        *args,
        env={"FN_LOG_DEST": "file:///none/x.log"},
        message="cannot log to file:///none/x.log: No such file",
    )


async def test_missing_tls_file(functions: str) -> None:
    tls = ("--tls-ca", "/none", "--tls-cert", "/none", "--tls-key", "/none")
    await fails(*LB, "--functions", functions, *tls, message="Cannot stat /none for TLS")


async def test_taken_port(functions: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        await fails(
            *LB,
            "--functions",
            functions,
            "--bind",
            bind,
            message=f"cannot listen on {bind}: Address already in use; another program listens "
            "there: end it, or choose another address with --bind",
        )
        runner = ("runner", "--driver", "process", "--bind", bind)
        await fails(*runner, message=f"cannot listen on {bind}: Address already in use; another")


async def test_the_option_is_named_whose_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        runner = ("runner", "--driver", "process", "--bind", "127.0.0.1:0", "--http-bind", bind)
        await fails(*runner, message="end it, or choose another address with --http-bind")


@pytest.mark.parametrize(
    ("option", "factory", "message"),
    [
        ("--placer", "none", "'own:none': TypeError: none() takes 0 positional arguments but 1"),
        ("--placer", "broken", "'own:broken': TypeError: no int (own.py, line 5)"),
        ("--placer", "Empty", "'own:Empty': TypeError: Empty() takes no arguments"),
        ("--driver", "none", "'own:none': TypeError: none() takes 0 positional arguments but 1"),
        ("--keep-alive", "broken", "'own:broken': TypeError: no int (own.py, line 5)"),
        ("--hooks", "broken", "'own:broken': TypeError: broken() missing 1 required positional"),
    ],
)
async def test_an_operators_own_code_that_fails_is_told_in_one_line(
    tmp_path: Path, option: str, factory: str, message: str
) -> None:
    code = "def none():\n    return 1\n\ndef broken(config):\n    raise TypeError('no int')\n"
    (tmp_path / "own.py").write_text(f"{code}\nclass Empty:\n    pass\n")
    (tmp_path / "functions.yaml").write_text(FUNCTIONS)
    command: tuple[str, ...] = ("runner", "--bind", "127.0.0.1:0", option, f"own:{factory}")
    if option == "--placer":
        command = (*LB, "--functions", "functions.yaml", option, f"own:{factory}")
    elif option != "--driver":
        command = (*command, "--driver", "process")
    done = await run(*command, cwd=tmp_path)
    assert done.returncode == 1
    assert (
        done.stderr.splitlines()[-1]
        .replace(f"{tmp_path}/", "")
        .startswith(f"hostler: error: {option} {message}")
    ), done.stderr
    assert "Traceback" not in done.stderr


async def test_a_database_that_can_only_be_read_is_told_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "fn.db"
    env = {"FN_DB_URL": f"sqlite:///{path}", "FN_DS_DB_PING_MAX_RETRIES": "1"}
    async with open_node("api", "--bind", "127.0.0.1:0", env=env):
        pass
    path.chmod(0o444)
    # For root, too.
    bare = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")
    done = await trio.run_process(
        [*(bare if os.getuid() == 0 else ()), str(SCRIPT), "api", "--bind", "127.0.0.1:0"],
        env=clean_env(env),
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.decode().endswith(
        "attempt to write a readonly database; the node's user must be able to write the file, "
        "and its folder\n"
    )


async def test_a_driver_that_is_none_is_told_before_anything_is_made(tmp_path: Path) -> None:
    done = await run("serve", "--driver", "dockr", "--bind", "127.0.0.1:0", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "--driver 'dockr': takes auto, docker, process or module:attribute" in done.stderr
    assert os.listdir(tmp_path) == []


async def test_a_folder_that_can_not_be_made_is_that_of_the_database() -> None:
    done = await run("api", "--bind", "127.0.0.1:0", cwd=Path("/proc"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(
        "hostler: error: can't create data, the folder of the database "
        "(No such file or directory); choose another database by FN_DB_URL\n"
    )


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("unix:///none/docker.sock", "No such file or directory"),
        ("tcp://127.0.0.1:1", "Connection refused"),
    ],
)
async def test_a_runner_without_an_engine_says_where_it_looked(host: str, reason: str) -> None:
    await fails(
        *("runner", "--bind", "127.0.0.1:0"),
        env={"DOCKER_HOST": host},
        message=f"none answers at {host} ({reason}); start one, or set DOCKER_HOST",
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FN_FREZE_IDLE_MSECS", {"FN_FREZE_IDLE_MSECS": "FN_FREEZE_IDLE_MSECS"}),
        ("FN_DB_URI_FILE", {"FN_DB_URI_FILE": "FN_DB_URL"}),
        ("FN_DRIVR", {"FN_DRIVR": "FN_DRIVER"}),
        # settings, also of the commands only, and names that others use
        *((n, {}) for n in ("FN_DB_URL", "FN_DB_URL_FILE", "FN_DRIVER", "FN_LB_SERVICE_HOST")),
    ],
)
def test_what_is_nearly_a_setting_is_found(name: str, meant: dict[str, str]) -> None:
    assert misspelt({name: "x", "PATH": "/bin"}, app) == meant


async def test_a_misspelt_setting_is_told_of_at_the_start(functions: str) -> None:
    env = {"FN_UUI": "false"}
    async with open_node(*LB, "--functions", functions, env=env) as node:
        line = await node.wait_line("this variable is not a setting")
        assert (line["variable"], line["meant"]) == ("FN_UUI", "FN_UI")


@pytest.mark.parametrize("args", [("nothing",), ("lb", "--nothing"), ("serve", "--grace", "x")])
async def test_wrong_usage_is_exit_code_2(args: tuple[str, ...]) -> None:
    done = await run(*args)
    assert done.returncode == 2
    assert "Usage: hostler" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["serve", "api", "lb", "runner"])
async def test_help_names_the_variables(command: str) -> None:
    done = await run(command, "--help")
    assert done.returncode == 0
    assert "FN_LOG_FORMAT" in done.stdout
    assert "FN_DRAIN_GRACE_MSECS" in done.stdout


async def test_version() -> None:
    done = await run("version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
    assert (await run("--version")).stdout == done.stdout


async def test_names_of_clients_need_tls() -> None:
    args = ("runner", "--driver", "process", "--bind", "127.0.0.1:0")
    done = await run(*args, env={"FN_TLS_CLIENT_NAMES": "lb.test"})
    assert done.returncode == 1
    assert "FN_TLS_CLIENT_NAMES needs --tls-ca, --tls-cert and --tls-key" in done.stderr
