"""Database URLs, in Fn's forms and in SQLAlchemy's."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from hostler.config import ConfigError, StoreConfig
from hostler.store import engine, open_datastore
from hostler.store.engine import Database, parse_database_url

from .servers import Server
from .things import an_app


def _shown(database: Database) -> str:
    return database.url.render_as_string(hide_password=False)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", Path("data/fn.db")),
        ("sqlite3://data/fn.db", Path("data/fn.db")),
        ("sqlite3:///var/lib/fn.db", Path("/var/lib/fn.db")),
        ("sqlite3:///with space/%41@b:c", Path("/with space/%41@b:c")),
        ("sqlite:///relative.db", Path("relative.db")),
        ("sqlite:////absolute.db", Path("/absolute.db")),
        *((memory, None) for memory in ("sqlite3://", "sqlite3://:memory:", "sqlite://")),
    ],
)
def test_sqlite(text: str, path: Path | None) -> None:
    database = parse_database_url(text)
    assert (database.kind, database.path, database.in_memory) == ("sqlite", path, path is None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
        (
            "postgresql://u:p%40q@h:1/d?sslmode=off",
            "postgresql+psycopg://u:p%40q@h:1/d?sslmode=off",
        ),
        ("postgresql+psycopg2://h/d", "postgresql+psycopg://h/d"),
        ("mysql://u:p@h:1/d", "mysql+pymysql://u:p@h:1/d"),
        ("mariadb://u:p@h/d", "mysql+pymysql://u:p@h/d"),
        ("mysql://u:p@tcp(h:1)/d", "mysql+pymysql://u:p@h:1/d"),
        ("mysql://u@tcp(h)/d?parseTime=true", "mysql+pymysql://u@h:3306/d"),
        ("mysql://u:a@b:c@tcp([::1]:1)/d", "mysql+pymysql://u:a%40b%3Ac@[::1]:1/d"),
        ("mysql://u:p%2Fq@tcp(h:1)/d", "mysql+pymysql://u:p%252Fq@h:1/d"),
        ("mysql://tcp(h:1)/d", "mysql+pymysql://h:1/d"),
        ("mysql://u@unix(/run/m y)/d", "mysql+pymysql://u@/d?unix_socket=%2Frun%2Fm+y"),
        ("mysql://u@/d", "mysql+pymysql://u@127.0.0.1:3306/d"),
    ],
)
def test_servers(text: str, expected: str) -> None:
    database = parse_database_url(text)
    assert _shown(database) == expected
    assert "p@" not in str(database)


@pytest.mark.parametrize(
    ("options", "tls"),
    [("", ""), ("?tls=false", ""), ("?tls=true", "verify"), ("?tls=skip-verify", "encrypt")],
)
def test_tls(options: str, tls: str) -> None:
    assert parse_database_url(f"mysql://u@tcp(h)/d{options}").tls == tls
    other_form = parse_database_url(f"mysql://u@h:1/d{options}")
    assert (other_form.tls, _shown(other_form)) == (tls, "mysql+pymysql://u@h:1/d")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("fn.db", "begins with none of sqlite://, sqlite3://, postgres://"),
        ("oracle://u:hunter2@h/d", "begins with none of"),
        ("sqlite3://fn.db?cache=shared", "options of an SQLite database are not supported"),
        ("mysql://u:hunter2@tcp(h:99999)/d", "not a port: 99999"),
        ("mysql://u:hunter2@tcp(h:1)/d?tls=custom", "takes true, false and skip-verify"),
        ("mysql://u:hunter2@h:1/d?tls=custom", "takes true, false and skip-verify"),
        ("mysql://u:hunter2@h:port/d", "not a URL of a mysql database"),
        ("postgres://u:hunter2@h", "it names no database"),
    ],
)
def test_bad_urls_are_refused_without_telling_them(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match="FN_DB_URL: ") as caught:
        parse_database_url(text)
    assert problem in str(caught.value)
    assert "hunter2" not in str(caught.value)


@given(st.sampled_from(["mysql", "postgres", "sqlite3", "x"]), st.text(max_size=30))
def test_any_text_is_a_url_or_refused(scheme: str, rest: str) -> None:
    with contextlib.suppress(ConfigError):
        parse_database_url(f"{scheme}://{rest}")


async def test_the_default_is_a_file_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_datastore(StoreConfig()) as store:
        await store.apps.create(an_app())
    files = [path.name for path in await trio.Path("data").iterdir()]
    assert files == ["fn.db"]


async def test_options_that_there_are_not_are_named() -> None:
    config = StoreConfig(db_url="mysql://u:hunter2@h:1/d?nonsense=1")
    with pytest.raises(ConfigError, match="no option 'nonsense'"):
        async with open_datastore(config):
            pass


async def test_a_database_of_another_encoding_is_refused(postgres: Server) -> None:
    postgres.execute(
        "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    with pytest.raises(ConfigError, match="encoding is SQL_ASCII, not UTF8"):
        async with open_datastore(StoreConfig(db_url=postgres.url("ascii"))):
            pass


async def test_in_memory() -> None:
    config = StoreConfig(db_url="sqlite3://:memory:")
    async with open_datastore(config) as one, open_datastore(config) as two:
        app = await one.apps.create(an_app())
        assert await one.apps.get(app.id) == app
        assert (await two.apps.create(an_app())).id != app.id


@pytest.mark.parametrize(
    ("text", "module", "extra"),
    [("postgres://h/d", "psycopg", "postgresql"), ("mysql://h/d", "pymysql", "mysql")],
)
async def test_a_missing_driver_is_named(
    text: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError) as caught:
        engine.make_engine(parse_database_url(text), StoreConfig())
    assert f"install hostler[{extra}]" in str(caught.value)
