"""The declaration file: what it takes, and how it says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.errors import ConfigError, FnNotFound
from hostler.functions import FunctionTable, load_functions, parse_functions, stable_id
from hostler.models import App, Fn, Trigger
from hostler.rules.errors import AppNotFound, TriggerNotFound
from tests.support.ids import fn_by_name, parse_id

YAML = """
apps:
  - name: shop
    config: {REGION: north}
    annotations: {team: {lead: x}}
    syslog_url: udp://logs.example:514
    fns:
      - name: checkout
        image: registry.example/shop:3
        memory: 256
        timeout: 60
        idle_timeout: 90
        config: {LOG: debug}
        annotations: {tier: 1}
      - name: cart
        image: cart
        id: my-id
    triggers:
      - {name: pay, source: /pay, fn: checkout, annotations: {a: 1}}
      - {name: root, source: /, fn: cart, id: my-trigger}
  - name: empty
"""
TOML = """
[[apps]]
name = "shop"
[[apps.fns]]
name = "checkout"
image = "registry.example/shop:3"
"""


def document(**fn: Any) -> dict[str, Any]:
    return {"apps": [{"name": "shop", "fns": [{"name": "f", "image": "i", **fn}]}]}


def test_yaml_file(tmp_path: Path) -> None:
    path = tmp_path / "functions.yaml"
    path.write_text(YAML)
    table = load_functions(path)
    fn = fn_by_name(table, "shop", "checkout")
    app, same = table.lookup(fn.id)
    assert same is fn
    assert (fn.memory, fn.timeout, fn.idle_timeout, fn.config) == (256, 60, 90, {"LOG": "debug"})
    assert (app.config, app.syslog_url) == ({"REGION": "north"}, "udp://logs.example:514")
    assert app.annotations["team"] == msgspec.Raw(b'{"lead":"x"}')
    assert table.lookup("my-id")[1].name == "cart"
    assert {app.name for app in table.apps.values()} == {"shop", "empty"}


def test_toml_file_and_defaults(tmp_path: Path) -> None:
    path = tmp_path / "functions.toml"
    path.write_text(TOML)
    fn = fn_by_name(load_functions(path), "shop", "checkout")
    assert (fn.memory, fn.timeout, fn.idle_timeout) == (128, 30, 30)


def test_ids_depend_on_the_names_only() -> None:
    one = fn_by_name(parse_functions(document()), "shop", "f").id
    assert one == fn_by_name(parse_functions(document(image="other", memory=64)), "shop", "f").id
    assert one == "0BZ80RPCJVA8ZR7B7KFE5G4KTP"


@given(st.lists(st.text(), min_size=1), st.lists(st.text(), min_size=1))
def test_stable_ids_are_ids_and_differ(one: list[str], other: list[str]) -> None:
    parse_id(stable_id(*one))
    if "\0".join(one) != "\0".join(other):
        assert stable_id(*one) != stable_id(*other)


async def test_unknown_function() -> None:
    with pytest.raises(FnNotFound):
        await parse_functions(document()).find("nothing")


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        ({"image": ""}, "image: is missing"),
        ({"image": 3}, "image: must be a string, not 3"),
        ({"memory": 0}, "memory: 0 is out of range, 1 to 8192 MB"),
        ({"memory": 8193}, "memory: 8193 is out of range, 1 to 8192 MB"),
        ({"memory": "1"}, "memory: must be a whole number of MB, not a string"),
        ({"memory": True}, "memory: must be a whole number of MB, not a boolean"),
        ({"timeout": 301}, "timeout: 301 is out of range, 1 to 300 seconds"),
        ({"idle_timeout": 3601}, "idle_timeout: 3601 is out of range, 1 to 3600 seconds"),
        ({"config": {"A": 1}}, "config.A: must be a string, not 1; put it in quotes"),
        ({"config": {1: "a"}}, "config: the key 1 must be a string; put it in quotes"),
        ({"config": []}, "config: must be a mapping, not a list"),
        ({"memroy": 1}, "memroy: unknown field; known are name, id, image, memory"),
        ({"id": "a/b"}, "id: 'a/b' cannot stand in a URL path as it is"),
        ({"name": "a b"}, "name: 'a b' cannot stand in a URL path as it is"),
        ({"name": "x" * 256}, "name: the name of a function has 255 bytes or fewer"),
        ({"name": None}, "name: must be a string, not nothing"),
        ({"annotations": {"a b": 1}}, "annotations.a b: a key is 1 to 128 printable ASCII"),
        ({"annotations": {"a": None}}, "annotations.a: a value may not be empty or null"),
        ({"annotations": {"a": "x" * 511}}, "annotations.a: 513 bytes as JSON, at most 512"),
        ({"annotations": {str(i): 1 for i in range(101)}}, "annotations: 101 keys, at most 100"),
    ],
)
def test_mistakes_in_a_function(fn: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as info:
        parse_functions(document(**fn), source="functions.yaml")
    text = str(info.value)
    assert text.startswith("functions.yaml: apps[0] 'shop': fns[0]")
    assert message in text


@pytest.mark.parametrize(
    ("app", "message"),
    [
        ({"name": "a b"}, "name: 'a b': the name of an app is made of letters, digits, _ and -"),
        ({}, "name: is missing"),
        ({"name": "x", "syslog_url": "http://h"}, 'invalid syslog url: "http://h" invalid scheme'),
        ({"name": "x", "syslog_url": "udp://"}, 'invalid syslog url: "udp://" it names no target'),
        ({"name": "x", "fns": {}}, "fns: must be a list, not a mapping"),
        ({"name": "x", "fns": ["a"]}, "fns[0]: must be a mapping of fields, not a string"),
    ],
)
def test_mistakes_in_an_app(app: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as info:
        parse_functions({"apps": [app]}, source="f.yaml")
    assert message in str(info.value)
    assert str(info.value).startswith("f.yaml: apps[0]")


def test_app_names_may_have_letters_of_any_alphabet() -> None:
    assert parse_functions({"apps": [{"name": "größe-1_x"}]}).apps


@pytest.mark.parametrize(
    "apps",
    [
        [{"name": "a"}, {"name": "a"}],
        [{"name": "a", "id": "x"}, {"name": "b", "id": "x"}],
        [{"name": "a", "fns": [{"name": "f", "image": "i"}, {"name": "f", "image": "i"}]}],
        [
            {"name": "a", "fns": [{"name": "f", "image": "i", "id": "x"}]},
            {"name": "b", "fns": [{"name": "f", "image": "i", "id": "x"}]},
        ],
    ],
)
def test_names_and_ids_are_used_once(apps: list[Any]) -> None:
    with pytest.raises(ConfigError, match="is used twice"):
        parse_functions({"apps": apps})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("f.yaml", "apps: [", "f.yaml: not valid YAML: while parsing"),
        ("f.yml", "apps: []\napps: []", "the key 'apps' is given twice"),
        ("f.toml", "apps = [", "f.toml: not valid TOML"),
        ("f.json", "{}", "must end in .yaml, .yml or .toml"),
        ("f.yaml", "", "f.yaml: must be a mapping of fields, not nothing"),
        ("f.yaml", "fns: []", "fns: unknown field; known are apps"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError) as info:
        load_functions(path)
    assert message in str(info.value)
    assert "\n" not in str(info.value)


def test_missing_file_and_binary_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.yaml: No such file"):
        load_functions(tmp_path / "none.yaml")
    (tmp_path / "bin.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_functions(tmp_path / "bin.yaml")


def test_table_of_objects_is_checked_too() -> None:
    app = App(id="a", name="app")
    fn = Fn(id="f", name="fn", app_id="b", image="i")
    with pytest.raises(ConfigError, match="no app with id 'b'"):
        FunctionTable.of([app], [fn])
    with pytest.raises(ConfigError, match="used twice"):
        FunctionTable.of([app, app], [])
    fn = Fn(id="f", name="fn", app_id="a", image="i")
    trigger = Trigger(id="t", name="t", app_id="a", fn_id="f", type="http", source="/")
    with pytest.raises(ConfigError, match="trigger 't': its app has no fn with id 'f'"):
        FunctionTable.of([app, App(id="b", name="b")], [fn], [attrs.evolve(trigger, app_id="b")])
    with pytest.raises(ConfigError, match="id 't' is used twice"):
        FunctionTable.of([app], [fn], [trigger, attrs.evolve(trigger, source="/b")])
    with pytest.raises(ConfigError, match="its app has source '/' already"):
        FunctionTable.of([app], [fn], [trigger, attrs.evolve(trigger, id="u")])


async def test_triggers_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "functions.yaml"
    path.write_text(YAML)
    table = load_functions(path)
    app, fn, trigger = await table.find_trigger("shop", "/pay")
    assert (app.name, fn.name, trigger.name, trigger.type) == ("shop", "checkout", "pay", "http")
    assert trigger.annotations == {"a": msgspec.Raw(b"1")}
    parse_id(trigger.id)
    assert (await table.find_trigger("shop", "/"))[2].id == "my-trigger"
    with pytest.raises(TriggerNotFound):
        await table.find_trigger("shop", "/pay/")
    with pytest.raises(TriggerNotFound):
        await table.find_trigger("empty", "/pay")
    with pytest.raises(AppNotFound):
        await table.find_trigger("other", "/pay")


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        ({"source": "/x"}, "fn: is missing"),
        ({"fn": "f"}, "source: is missing"),
        ({"fn": "g", "source": "/x"}, "fn: the app has no function 'g'"),
        ({"fn": "f", "source": "x"}, "source: 'x' must begin with a slash"),
        ({"fn": "f", "source": "/\0"}, "has a character that no path may have"),
        ({"fn": "f", "source": "/x", "name": "a b"}, "the name of a trigger is made of letters"),
        ({"fn": "f", "source": "/x", "type": "http"}, "type: unknown field"),
        ({"fn": "f", "source": "/0"}, "source: '/0' is used twice"),
        ({"fn": "f", "source": "/x", "name": "t0"}, "name: 't0' is used twice"),
        ({"fn": "f", "source": "/x", "id": "id0"}, "id: 'id0' is used twice"),
    ],
)
def test_mistakes_in_a_trigger(trigger: dict[str, Any], message: str) -> None:
    first = {"name": "t0", "id": "id0", "fn": "f", "source": "/0"}
    app = {**document()["apps"][0], "triggers": [first, {"name": "t", **trigger}]}
    with pytest.raises(ConfigError) as info:
        parse_functions({"apps": [app]}, source="f.yaml")
    assert str(info.value).startswith("f.yaml: apps[0] 'shop': triggers[1]")
    assert message in str(info.value)
