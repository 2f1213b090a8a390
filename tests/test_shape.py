"""What the rules of `test_layers` and ``scripts/shape`` see in a package's source."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from . import shape
from .shape import House


def _house(folder: Path, files: Mapping[str, str]) -> House:
    for name, text in {"__init__.py": "", **files}.items():
        path = folder / "pkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return House(folder / "pkg")


def test_a_cycle_may_pass_through_a_function_and_imports_for_types(tmp_path: Path) -> None:
    house = _house(
        tmp_path,
        {
            "a.py": "def f():\n    from . import b\n",
            "b.py": "if TYPE_CHECKING:\n    from .c import C\n",
            "c.py": "import pkg.a\n",
            "d.py": "from . import a\n",
        },
    )

    assert house.cycles == [["pkg.a", "pkg.b", "pkg.c"]]
    assert house.cycle_imports() == ["pkg.a -> pkg.b", "pkg.b -> pkg.c", "pkg.c -> pkg.a"]


def test_a_module_of_the_own_package_is_not_the_package(tmp_path: Path) -> None:
    house = _house(
        tmp_path,
        {
            "sub/__init__.py": "from ._a import A\n",
            "sub/_a.py": "from . import _b\nfrom .. import x\n",
            "sub/_b.py": "from . import A\n",
            "x.py": "",
        },
    )

    assert house.graph["pkg.sub._a"] == {"pkg.sub._b", "pkg.x"}
    assert house.graph["pkg.sub._b"] == {"pkg.sub"}
    assert house.cycles == [["pkg.sub", "pkg.sub._a", "pkg.sub._b"]]


def test_generated_modules_do_not_count(tmp_path: Path) -> None:
    generated = "# Generated from x by y; do not edit.\nclass A: ...\n"
    house = _house(tmp_path, {"_a.py": generated, "b.py": "from . import _a\nclass A: ...\n"})

    assert set(house.modules) == {"pkg", "pkg.b"}
    assert house.class_names_twice() == []


def test_parameters_and_arguments_are_counted(tmp_path: Path) -> None:
    text = """
class A:
    def many(self, a, b, c, d, *, e, f): ...
    def five(self, a, b, c, d, e, *rest, **more): ...
    def calls(self, one: Callable[[], None] | None, *two: "collections.abc.Callable"): ...
def outer():
    async def inner(x: dict[str, Callable[[], None]], y: CallableThing): ...
"""
    house = _house(tmp_path, {"a.py": text})

    assert house.many_arguments() == ["pkg.a:A.many"]
    assert house.callable_parameters() == [
        "pkg.a:A.calls(one)",
        "pkg.a:A.calls(two)",
        "pkg.a:outer.inner(x)",
    ]


def test_private_names_of_other_modules_are_found(tmp_path: Path) -> None:
    house = _house(
        tmp_path,
        {
            "a.py": "class A:\n    def __init__(self): self._x = self._y = 1\ndef _f(): ...\n",
            "b.py": (
                "import os\n"
                "from .a import A, _f\n"
                "class B(A):\n"
                "    def run(self): return self._x, self._own\n"
                "    def _own(self): ...\n"
                "def run(a): return a._y, getattr(a, '_x'), a._own, os._exit, a._replace()\n"
            ),
        },
    )

    assert house.private_uses() == [
        "pkg.b ._f",
        "pkg.b:B.run ._x",
        "pkg.b:run ._x",
        "pkg.b:run ._y",
    ]
    assert house.stray_foreign_private_uses() == []


def test_private_names_of_dependencies_belong_in_one_module(tmp_path: Path) -> None:
    house = _house(
        tmp_path,
        {
            "a.py": (
                "import h2.connection\n"
                "class C(h2.connection.H2Connection):\n"
                "    def _receive_data_frame(self, frame): ...\n"
                "def run(c): return c._headers_buffer\n"
            ),
            "b.py": "from h2.connection import _decode_headers\n",
            "c.py": "import trio\ndef run(x): return trio._core, x._named_nowhere\n",
        },
    )

    assert house.foreign_private_uses()["grpclib"] == {
        "pkg.a": {"_receive_data_frame", "_headers_buffer"},
        "pkg.b": {"_decode_headers"},
    }
    assert house.stray_foreign_private_uses() == [
        "? pkg.c _named_nowhere",
        "grpclib pkg.b _decode_headers",
    ]


def test_public_names_need_docstrings(tmp_path: Path) -> None:
    house = _house(
        tmp_path,
        {
            "__init__.py": "from ._a import A, f\n__all__ = ['A', 'f']\n",
            "_a.py": (
                "class Base:\n    def told(self):\n        'Told.'\n"
                "class A(Base):\n"
                "    'One.'\n"
                "    def told(self): ...\n"
                "    def untold(self): ...\n"
                "    def _private(self): ...\n"
                "def f(): ...\n"
                "def g(): ...\n"
            ),
            "b.py": "class B: ...\n",
        },
    )

    assert house.undocumented() == ["pkg._a:A.untold", "pkg._a:f", "pkg.b:B"]


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("``a``: one\n``sub``: two", set()),
        ("* ``a``: one\n  ``sub``: two", set()),
        ("``a``: one", {"sub"}),
        ("``a``: one\n``sub``: two\n``gone``: three", {"gone"}),
        ("``a``: one\n``a``: again\n``sub``: two", {"a"}),
        ("``a``:\n``sub``: two", {"a"}),
        ("``a``, ``sub``: two", {"a", "sub"}),
    ],
)
def test_a_map_has_a_line_for_each_module(tmp_path: Path, text: str, missing: set[str]) -> None:
    house = _house(
        tmp_path, {"__init__.py": f'"""About.\n\n{text}\n"""\n', "a.py": "", "sub/__init__.py": ""}
    )

    assert house.missing_in_map("pkg") == missing


def test_imports_by_the_name_of_the_package_are_found(tmp_path: Path) -> None:
    inside = "def f(): from pkg import b"
    texts = {"a.py": inside, "b.py": "import pkg.a", "c.py": "from . import a"}

    assert _house(tmp_path, texts).absolute_imports() == ["pkg.a", "pkg.b"]


def test_cutting_only_shortens_the_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape, "ALLOWED", tmp_path)
    for rule in shape.RULES:
        tmp_path.joinpath(f"{rule}.txt").write_text("")
    names = tmp_path / "class_names.txt"
    names.write_text("A pkg.a # Fn's word\nA pkg.gone\n")
    classes = {"a.py": "class A: ...", "b.py": "class A: ..."}

    assert shape.cut(_house(tmp_path, classes)) == ["class_names: A pkg.gone"]
    assert names.read_text() == "A pkg.a # Fn's word\n"
    assert shape.allowed("class_names") == ["A pkg.a"]


def _script(*arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.shape", *arguments],
        cwd=shape.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_the_table_has_what_the_lists_have() -> None:
    header, *rows = _script("--static")
    now = {row.split()[0]: int(row.split("≤")[0].split()[-1]) for row in rows}

    assert header.split() == ["now", "then"]
    assert now["callables"] == len(_script("--list", "callables"))
    assert now["modules"] == len(House().modules)
    assert not now.keys() & {"crossed", "frames-lb"}  # they need nodes


def modules_of_the_page() -> set[str]:
    """Those that docs/explanation/way-of-a-call.md lists."""
    page = (shape.ROOT / "docs" / "explanation" / "way-of-a-call.md").read_text()
    paths = re.findall(r"^\| \d+ \| `([a-z0-9_/]+)`", page, re.MULTILINE)
    return {f"hostler.{path.replace('/', '.')}" for path in paths}


def test_the_way_of_a_call_names_where_to_enter_each_module() -> None:
    page = (shape.ROOT / "docs" / "explanation" / "way-of-a-call.md").read_text()
    rows = re.findall(r"^\| \d+ \| `([a-z0-9_/]+)` \| `([\w.]+)` \|", page, re.MULTILINE)
    assert len(rows) == len(modules_of_the_page())
    for path, entry in rows:
        found: Any = importlib.import_module(f"hostler.{path.replace('/', '.')}")
        for name in entry.split("."):
            found = getattr(found, name)
        home = getattr(found, "fget", found).__module__
        assert home == f"hostler.{path.replace('/', '.')}", entry


@pytest.mark.slow
def test_the_way_of_a_call_is_listed_and_what_waits_with_it() -> None:
    lines = _script("--list", "crossed", "frames-lb", "frames-runner")
    heads = [lines.index(f"== {one}") for one in ("crossed", "frames-lb", "frames-runner")]
    crossed = [line.split() for line in lines[heads[0] + 1 : heads[1]]]
    lb, runner = (
        [name.split(".")[1] for one, _, name, *_ in crossed if one == node]
        for node in ("lb", "runner")
    )

    assert lb.index("front") < lb.index("pool") < lb.index("wire")
    assert runner.index("wire") < runner.index("runner") < runner.index("agent")
    assert "agent" not in lb
    assert "front" not in runner
    assert {name for _, _, name, *_ in crossed} <= modules_of_the_page()

    waiting, serving = (
        [line.split()[-1] for line in part if ":" in line.split()[-1]]
        for part in (lines[heads[1] + 1 : heads[2]], lines[heads[2] + 1 :])
    )
    assert waiting[0].startswith("hostler.http1.")
    assert waiting[-1].startswith("hostler.wire.")
    assert serving[0].startswith("hostler.wire.")
    assert serving[-1].startswith("hostler.http1.")
