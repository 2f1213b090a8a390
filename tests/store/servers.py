"""Real database servers of the tests' own: with their data in a temporary folder, reached through
a unix socket in it or, with TLS, on the loopback interface, ended by process id."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import trustme

from tests.support.ports import free_port
from tests.support.stopping import stop_process

START_LIMIT = 60.0
END_LIMIT = 30.0


class Server:
    """A server that can be ended, killed, stopped and started again on its data."""

    name: str
    user: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def ca(self) -> Path:
        """The authority of the server's certificate, which is one for localhost."""
        return self.folder / "ca.pem"

    def url(self, database: str) -> str:
        raise NotImplementedError

    def tcp_url(self, database: str, options: str) -> str:
        raise NotImplementedError

    def execute(self, sql: str, database: str = "") -> list[Any]:
        """On a connection of its own, outside of a transaction."""
        raise NotImplementedError

    def _initialize(self) -> list[str]:
        raise NotImplementedError

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _make_certificate(self) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost")
        self.ca.write_bytes(authority.cert_pem.bytes())
        (self.folder / "cert.pem").write_bytes(certificate.cert_chain_pems[0].bytes())
        key = self.folder / "key.pem"
        key.write_bytes(certificate.private_key_pem.bytes())
        key.chmod(0o600)  # PostgreSQL asks for it
        if os.geteuid() == 0:
            shutil.chown(key, self.user, self.user)

    def _end_signal(self) -> signal.Signals:
        raise NotImplementedError

    def initialize(self) -> None:
        self._make_certificate()
        done = subprocess.run(self._initialize(), capture_output=True, **self._as_user())
        assert done.returncode == 0, done.stderr.decode()

    def start(self, *options: str) -> None:
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*self._command(), *options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                **self._as_user(),
            )
        deadline = time.monotonic() + START_LIMIT
        while True:
            try:
                self._check()
            except (psycopg.OperationalError, pymysql.OperationalError):
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.02)
            else:
                return

    def _check(self) -> None:
        """Raises the driver's error if the server does not answer yet."""
        self.execute("SELECT 1")

    def end(self) -> None:
        if self._process is not None:
            self._process.send_signal(self._end_signal())
            try:
                self._process.wait(END_LIMIT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def kill(self) -> None:
        """Of data that nobody wants any more: to put all in order takes seconds."""
        if self._process is not None:
            pids = [self.pid, *_descendants(self.pid)]
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """No process of the server runs in the block: connections are there, and silent."""
        pids = [self.pid, *_descendants(self.pid)]
        for pid in pids:
            stop_process(pid)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _as_user(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {"cwd": self.folder}
        return {"user": self.user, "group": self.user, "extra_groups": [], "cwd": self.folder}


class Postgres(Server):
    name = "postgresql"
    user = "postgres"

    def url(self, database: str) -> str:
        return f"postgres://{self._role()}@/{database}?host={self.folder}&port={self.port}"

    def tcp_url(self, database: str, options: str) -> str:
        return f"postgres://{self._role()}@localhost:{self.port}/{database}{options}"

    def execute(self, sql: str, database: str = "") -> list[Any]:
        with psycopg.connect(
            host=str(self.folder),
            port=self.port,
            user=self._role(),
            dbname=database or "postgres",
            autocommit=True,
        ) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def _role(self) -> str:
        return self.user

    def _initialize(self) -> list[str]:
        options = ["--auth=trust", "--no-sync", "--encoding=UTF8", f"--username={self._role()}"]
        return [_postgres("initdb"), "-D", str(self.folder / "data"), *options]

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "localhost",
            "port": str(self.port),
            "ssl": "on",
            "ssl_cert_file": str(self.folder / "cert.pem"),
            "ssl_key_file": str(self.folder / "key.pem"),
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": "60",
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [_postgres("postgres"), "-D", str(self.folder / "data"), *options]

    def _end_signal(self) -> signal.Signals:
        return signal.SIGINT  # "fast": sessions are ended


class MariaDB(Server):
    name = "mysql"
    user = "mysql"

    def url(self, database: str) -> str:
        return f"mysql://root@unix({self.folder}/socket)/{database}"

    def tcp_url(self, database: str, options: str) -> str:
        return f"mysql://root@tcp(localhost:{self.port})/{database}{options}"

    def execute(self, sql: str, database: str = "") -> list[Any]:
        connection = pymysql.connect(
            unix_socket=f"{self.folder}/socket",
            user="root",
            database=database or None,
            autocommit=True,
            ssl_disabled=True,  # so that tests can tell whether the node's sessions have TLS
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def _check(self) -> None:
        with socket.socket(socket.AF_UNIX) as probe:  # PyMySQL would leave it open if refused
            try:
                probe.connect(f"{self.folder}/socket")
            except OSError as error:
                raise pymysql.OperationalError from error
        super()._check()

    def _initialize(self) -> list[str]:
        return [
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={self.folder}/data",
            f"--tmpdir={self.folder}",  # in /tmp, each that starts removes the others' tables
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
        ]

    def _command(self) -> list[str]:
        return [
            shutil.which("mariadbd", path="/usr/sbin:/usr/bin") or "mariadbd",
            "--no-defaults",
            f"--datadir={self.folder}/data",
            f"--tmpdir={self.folder}",
            f"--socket={self.folder}/socket",
            f"--pid-file={self.folder}/pid",
            "--bind-address=localhost",
            f"--port={self.port}",
            f"--ssl-cert={self.folder}/cert.pem",
            f"--ssl-key={self.folder}/key.pem",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=32M",
            # Unlike ours in every respect: hostler has to bring its own.
            "--character-set-server=latin1",
            "--sql-mode=",
        ]

    def _end_signal(self) -> signal.Signals:
        return signal.SIGTERM


@contextmanager
def running(kind: type[Server]) -> Iterator[Server]:
    """A new server, ended and removed behind the block."""
    folder = Path(tempfile.mkdtemp(prefix="hostler-db-"))
    server = kind(folder)
    if os.geteuid() == 0:
        account = pwd.getpwnam(server.user)
        os.chown(folder, account.pw_uid, account.pw_gid)
    try:
        server.initialize()
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder)


def _postgres(program: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    return str(found[-1]) if found else program


def _descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:  # it has ended
        return []
    return [int(child) for child in children]
