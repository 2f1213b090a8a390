"""The shape of the package as its source shows it: what ``scripts/shape`` counts, and what the
rules of `test_layers` are checked with.

Everything comes from ``ast``; nothing of the package is imported. Three decisions:

* An import counts wherever it stands: in a function and under ``TYPE_CHECKING``, too.
* ``from . import _x`` imports the module ``_x``, if there is one, and otherwise the package's own
  ``__init__``. ``from .pkg import Name`` imports ``pkg/__init__``. The ``__init__`` of each package
  on the way, which Python runs as well, does not count.
* The generated module counts nowhere.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "hostler"
ALLOWED = Path(__file__).with_name("allowed")
"""Today's violations of the rules, a file per rule and a line per violation."""

GENERATED = re.compile(r"^# Generated .*do not edit", re.MULTILINE)
LARGEST_PACKAGE = 17
MANY_ARGUMENTS = 6
ONE_DEPENDENCY = {"h2": "grpclib", "hpack": "grpclib", "hyperframe": "grpclib"}
"""Dependencies that stand on each other: their private names may share a module."""
NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}
"""Public in spite of their names."""
MAP_LINE = re.compile(r"^\s*(?:[*-] )?``(\w+)``: \S", re.MULTILINE)
"""A line of a package's map: two backticks around the name, a colon, and what is in it."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.ClassDef | Function
Scope = tuple[Definition, ...]
"""The definitions around a node, the outermost first."""
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_COUNTED = (
    *(ast.Import, ast.ImportFrom, ast.ClassDef, *FUNCTION),
    *(ast.Name, ast.Attribute, ast.Call),
)


@dataclass(frozen=True, eq=False)
class Module:
    """One file."""

    name: str
    path: Path
    tree: ast.Module
    lines: int
    is_package: bool
    generated: bool

    @property
    def package(self) -> str:
        """The package in which its relative imports begin."""
        return self.name if self.is_package else self.name.rpartition(".")[0]

    @functools.cached_property
    def nodes(self) -> list[tuple[Scope, ast.AST]]:
        """Each node that counts, with the definitions around it, the outermost first."""
        found: list[tuple[Scope, ast.AST]] = []
        _scoped(self.tree, (), found)
        return found

    @functools.cached_property
    def classes(self) -> dict[str, ast.ClassDef]:
        """Those at top level."""
        return {node.name: node for node in self.tree.body if isinstance(node, ast.ClassDef)}

    @functools.cached_property
    def private_names(self) -> set[str]:
        """All that it defines: functions, classes, variables and attributes of its objects."""
        return {name for _, node in self.nodes for name in _defined(node) if is_private(name)}

    def where(self, scope: Scope) -> str:
        """``module:Class.method``; only ``module`` at top level."""
        return ":".join(filter(None, [self.name, ".".join(one.name for one in scope)]))


class House:
    """A package's modules, by their full names."""

    def __init__(self, folder: Path = PACKAGE) -> None:
        everything = [_read(path, folder) for path in sorted(folder.rglob("*.py"))]
        self.name = folder.name
        self.modules = {one.name: one for one in everything if not one.generated}
        self.known = {one.name for one in everything}

    # --- imports ---

    def source_of(self, module: Module, node: ast.ImportFrom) -> str:
        """The absolute name of what stands behind ``from``."""
        if not node.level:
            return node.module or ""
        base = module.package.split(".")
        return ".".join([*base[: len(base) - node.level + 1], *filter(None, [node.module])])

    def imports(self, module: Module) -> set[str]:
        """The other modules of the package that ``module`` imports anywhere."""
        found: set[str] = set()
        for _, node in module.nodes:
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                source = self.source_of(module, node)
                inner = [f"{source}.{alias.name}" for alias in node.names]
                found.update(name if name in self.known else source for name in inner)
        return (found & self.known) - {module.name}

    @functools.cached_property
    def graph(self) -> dict[str, set[str]]:
        return {name: self.imports(module) for name, module in self.modules.items()}

    @functools.cached_property
    def cycles(self) -> list[list[str]]:
        """The strongly connected groups of more than one module, the largest first."""
        reached = {name: self._reached_from(name) for name in self.graph}
        groups = {
            frozenset(other for other in reached[name] if name in reached.get(other, ()))
            for name in self.graph
        }
        return sorted(
            (sorted(group) for group in groups if group), key=lambda one: (-len(one), one)
        )

    def _reached_from(self, name: str) -> set[str]:
        reached: set[str] = set()
        ahead = [name]
        while ahead:
            new = self.graph.get(ahead.pop(), set()) - reached
            reached |= new
            ahead.extend(new)
        return reached

    def cycle_imports(self) -> list[str]:
        """``a -> b`` for each import that keeps a cycle closed."""
        return sorted(
            f"{name} -> {other}"
            for group in self.cycles
            for name in group
            for other in self.graph[name] & set(group)
        )

    def absolute_imports(self) -> list[str]:
        """Modules that import others of the package by its name."""
        return [
            name
            for name, module in self.modules.items()
            if any(self._is_absolute(node) for _, node in module.nodes)
        ]

    def _is_absolute(self, node: ast.AST) -> bool:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        return any(name.partition(".")[0] == self.name for name in names)

    # --- sizes ---

    def line_counts(self) -> list[str]:
        """Modules with their lines, the longest first."""
        longest = sorted(self.modules.values(), key=lambda one: (-one.lines, one.name))
        return [f"{one.lines:5} {one.name}" for one in longest]

    @functools.cached_property
    def packages(self) -> dict[str, list[str]]:
        """The modules of each package that are its own, without ``__init__`` and packages in it."""
        found: dict[str, list[str]] = {
            name: [] for name, one in self.modules.items() if one.is_package
        }
        for name, module in self.modules.items():
            if not module.is_package:
                found[module.package].append(name)
        return found

    def large_packages(self) -> list[str]:
        return [name for name, own in self.packages.items() if len(own) > LARGEST_PACKAGE]

    # --- definitions ---

    def _functions(self) -> Iterator[tuple[str, Function]]:
        for module in self.modules.values():
            for scope, node in module.nodes:
                if isinstance(node, FUNCTION):
                    yield module.where((*scope, node)), node

    def callable_parameters(self) -> list[str]:
        """``module:function(parameter)`` for each parameter whose annotation has ``Callable``."""
        return [
            f"{where}({parameter.arg})"
            for where, node in self._functions()
            for parameter in _parameters(node, stars=True)
            if parameter.annotation
            and re.search(r"\bCallable\b", ast.unparse(parameter.annotation))
        ]

    def many_arguments(self) -> list[str]:
        """Functions with six parameters or more, ``*args`` and ``**kwargs`` not among them."""
        return [
            where for where, node in self._functions() if len(_parameters(node)) >= MANY_ARGUMENTS
        ]

    def class_homes(self) -> dict[str, list[str]]:
        """Names of classes at top level that stand in more than one module."""
        homes: dict[str, list[str]] = defaultdict(list)
        for name, module in self.modules.items():
            for one in module.classes:
                homes[one].append(name)
        return {name: homes[name] for name in sorted(homes) if len(homes[name]) > 1}

    def class_names_twice(self) -> list[str]:
        """``Name module`` for each place where a class has a name that stands elsewhere, too."""
        return [f"{name} {home}" for name, homes in self.class_homes().items() for home in homes]

    # --- private names ---

    @functools.cached_property
    def _uses(self) -> list[_Use]:
        return [use for module in self.modules.values() for use in _Private(self, module).uses()]

    def private_uses(self) -> list[str]:
        """``module:function ._name`` where a private name of another of our modules is used."""
        return sorted({f"{use.where} .{use.name}" for use in self._uses if not use.dependency})

    def foreign_private_uses(self) -> dict[str, dict[str, set[str]]]:
        """The private names of each dependency that are used, by modules."""
        found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for use in self._uses:
            if use.dependency:
                found[use.dependency][use.where.partition(":")[0]].add(use.name)
        return found

    def stray_foreign_private_uses(self) -> list[str]:
        """``dependency module _name`` outside of the module that has most of that dependency's, and
        everywhere if no dependency is known to have the name."""
        strays = []
        for dependency, homes in self.foreign_private_uses().items():
            home = max(sorted(homes), key=lambda one: len(homes[one]))
            strays += [
                f"{dependency} {module} {name}"
                for module, names in homes.items()
                for name in names
                if module != home or dependency == UNKNOWN
            ]
        return sorted(strays)

    # --- documentation ---

    def undocumented(self) -> list[str]:
        """``module:name`` for each public class, function, method and property without a docstring.

        Public is what ``__all__`` of a package or of a module at the root has, or, without, what
        it defines. A method is
        documented, too, by the class of ours, or of a dependency, from which it is inherited."""
        found: set[str] = set()
        for name, module in self.modules.items():
            if any(part.startswith("_") for part in name.split(".")):
                continue
            if not module.is_package and name.count(".") > 1:
                continue
            for public in _public_names(module):
                home, definition = self.definition(module, public)
                if home and definition:
                    found.update(self._undocumented_in(home, definition))
        return sorted(found)

    def _undocumented_in(self, module: Module, node: Definition) -> Iterator[str]:
        if not ast.get_docstring(node):
            yield module.where((node,))
        if isinstance(node, ast.ClassDef):
            for one in node.body:
                if (
                    isinstance(one, FUNCTION)
                    and not one.name.startswith("_")
                    and not _is_another_half(one)
                    and not self._documented(module, node, one.name)
                ):
                    yield module.where((node, one))

    def _documented(self, module: Module, node: ast.ClassDef, name: str) -> bool:
        for home, one in self.ancestry(module, node):
            if isinstance(home, str):
                if name in _dependency(home).classes.get(one, ()):
                    return True
            elif any(
                isinstance(inner, FUNCTION) and inner.name == name and ast.get_docstring(inner)
                for inner in home.classes[one].body
            ):
                return True
        return False

    def packages_without_map(self) -> list[str]:
        """Packages whose docstring does not have a line for each of their modules and packages, and
        for nothing else."""
        return [name for name in self.packages if self.missing_in_map(name)]

    def missing_in_map(self, package: str) -> set[str]:
        """Modules without a line in the package's map, and lines without a module."""
        mapped = MAP_LINE.findall(ast.get_docstring(self.modules[package].tree) or "")
        there = {
            name.rpartition(".")[2] for name in self.known if name.rpartition(".")[0] == package
        }
        twice = {name for name in mapped if mapped.count(name) > 1}
        return (there ^ set(mapped)) | twice

    # --- names ---

    def definition(self, module: Module, name: str) -> tuple[Module | None, Definition | None]:
        """Where a class or function that ``module`` offers is defined."""
        for node in module.tree.body:
            if isinstance(node, (ast.ClassDef, *FUNCTION)) and node.name == name:
                return module, node
        source, _, inner = self.bindings(module).get(name, "").rpartition(".")
        if source in self.modules and source != module.name:
            return self.definition(self.modules[source], inner)
        return None, None

    @functools.cache  # noqa: B019  (one for the program's life)
    def bindings(self, module: Module) -> Mapping[str, str]:
        """Names that imports bind anywhere in ``module``, and the absolute names behind them."""
        found = {}
        for _, node in module.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    name = alias.asname or alias.name.partition(".")[0]
                    found[name] = alias.name if alias.asname else name
            elif isinstance(node, ast.ImportFrom):
                source = self.source_of(module, node)
                found.update(
                    {alias.asname or alias.name: f"{source}.{alias.name}" for alias in node.names}
                )
        return found

    @functools.cache  # noqa: B019
    def ancestry(self, module: Module, node: ast.ClassDef) -> list[tuple[Module | str, str]]:
        """The class and all above it: module and name of ours, dependency and name of others'."""
        found: list[tuple[Module | str, str]] = [(module, node.name)]
        for base in node.bases:
            above = self.dotted(module, base.value if isinstance(base, ast.Subscript) else base)
            if above in module.classes:
                found += self.ancestry(module, module.classes[above])
                continue
            source, _, name = above.rpartition(".")
            home, definition = (
                self.definition(self.modules[source], name)
                if source in self.modules
                else (None, None)
            )
            if home and isinstance(definition, ast.ClassDef):
                found += self.ancestry(home, definition)
            elif source and is_foreign(source.partition(".")[0], self.name):
                found.append((source.partition(".")[0], name))
        return found

    def dotted(self, module: Module, node: ast.expr) -> str:
        """The absolute name of what an expression names, as far as imports tell; or ``""``."""
        if isinstance(node, ast.Name):
            return self.bindings(module).get(node.id, node.id)
        if isinstance(node, ast.Attribute) and (value := self.dotted(module, node.value)):
            return f"{value}.{node.attr}"
        return ""


UNKNOWN = "?"


@dataclass(frozen=True)
class _Use:
    """A private name that is used outside of the module that defines it."""

    where: str
    name: str
    dependency: str = ""
    """Whose it is; of ours if empty."""


class _Private:
    """The private names that one module uses and does not define."""

    def __init__(self, house: House, module: Module) -> None:
        self._house = house
        self._module = module

    @functools.cached_property
    def _dependencies(self) -> list[str]:
        tops = {
            name.partition(".")[0] for name in self._house.bindings(self._module).values() if name
        }
        return sorted(top for top in tops if is_foreign(top, self._house.name))

    def uses(self) -> Iterator[_Use]:
        for scope, node in self._module.nodes:
            if isinstance(node, ast.ImportFrom):
                yield from self._imported(scope, node)
            elif isinstance(node, ast.Attribute) and is_private(node.attr):
                yield from self._attribute(scope, node.value, node.attr)
            elif isinstance(node, ast.Call) and (name := _named_by_text(node)):
                yield from self._attribute(scope, node.args[0], name)
            elif isinstance(node, FUNCTION) and is_private(node.name):
                yield from self._overridden(scope, node.name)

    def _imported(self, scope: Scope, node: ast.ImportFrom) -> Iterator[_Use]:
        where = self._module.where(scope)
        source = self._house.source_of(self._module, node)
        top = source.partition(".")[0]
        for alias in node.names:
            if top == self._house.name:
                if is_private(alias.name) and f"{source}.{alias.name}" not in self._house.known:
                    yield _Use(where, alias.name)
            elif is_foreign(top, self._house.name):
                private = [part for part in (*source.split("."), alias.name) if is_private(part)]
                if private:
                    yield _Use(where, private[-1], _family(top))

    def _attribute(self, scope: Scope, value: ast.expr, name: str) -> Iterator[_Use]:
        house, module, where = self._house, self._module, self._module.where(scope)
        around = [one for one in scope if isinstance(one, ast.ClassDef)]
        if around and _is_self(value):
            for home, one in house.ancestry(module, around[-1]):
                if isinstance(home, str):
                    if name in _dependency(home).classes.get(one, ()):
                        yield _Use(where, name, _family(home))
                        return
                elif name in _private_of(home.classes.get(one)):
                    if home is not module:
                        yield _Use(where, name)
                    return
        if name in module.private_names or name in NAMED_TUPLES:
            return
        top = house.dotted(module, value).partition(".")[0]
        if isinstance(value, ast.Name) and value.id in house.bindings(module):
            if top in sys.stdlib_module_names:
                return
            if is_foreign(top, house.name):
                yield _Use(where, name, _family(top))
                return
        if any(name in one.private_names for one in house.modules.values()):
            yield _Use(where, name)
            return
        owners = [one for one in self._dependencies if name in _dependency(one).private_names]
        yield _Use(where, name, _family(owners[0]) if owners else UNKNOWN)

    def _overridden(self, scope: Scope, name: str) -> Iterator[_Use]:
        """To define a method anew that a dependency's class has is to use its name."""
        if not scope or not isinstance(scope[-1], ast.ClassDef):
            return
        for home, one in self._house.ancestry(self._module, scope[-1]):
            if isinstance(home, str) and name in _dependency(home).classes.get(one, ()):
                yield _Use(self._module.where(scope), name, _family(home))


@dataclass
class _Dependency:
    classes: dict[str, set[str]]
    """What each defines or inherits from others of the same dependency."""
    private_names: set[str]


@functools.cache
def _dependency(top: str) -> _Dependency:
    """What the installed source of a dependency defines."""
    spec = importlib.util.find_spec(top)
    folders = [Path(one) for one in (spec and spec.submodule_search_locations) or ()]
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    if spec and not folders and spec.origin:
        paths = [Path(spec.origin)]
    defined: dict[str, set[str]] = defaultdict(set)
    bases: dict[str, set[str]] = defaultdict(set)
    private: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            private.update(name for name in _defined(node) if is_private(name))
            if isinstance(node, ast.ClassDef):
                defined[node.name] |= {
                    name for inner in ast.walk(node) for name in _defined(inner)
                } - {node.name}
                bases[node.name] |= {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    for name in bases:
        for _ in range(8):  # deeper than any of them is
            bases[name] |= {above for base in bases[name] for above in bases.get(base, ())}
    return _Dependency(
        {
            name: own.union(*(defined.get(base, set()) for base in bases[name]))
            for name, own in defined.items()
        },
        private,
    )


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def is_foreign(top: str, own: str) -> bool:
    """Whether ``top`` is a dependency: neither ours nor Python's, and installed."""
    return top not in (own, "") and top not in sys.stdlib_module_names and bool(_is_installed(top))


@functools.cache
def _is_installed(top: str) -> bool:
    return importlib.util.find_spec(top) is not None


def _family(dependency: str) -> str:
    return ONE_DEPENDENCY.get(dependency, dependency)


def _read(path: Path, folder: Path) -> Module:
    text = path.read_text()
    parts = [folder.name, *path.relative_to(folder).with_suffix("").parts]
    is_package = parts[-1] == "__init__"
    return Module(
        name=".".join(parts[:-1] if is_package else parts),
        path=path,
        tree=ast.parse(text),
        lines=len(text.splitlines()),
        is_package=is_package,
        generated=bool(GENERATED.search(text)),
    )


def _scoped(
    node: ast.AST,
    scope: Scope,
    found: list[tuple[Scope, ast.AST]],
) -> None:
    if isinstance(node, _COUNTED):
        found.append((scope, node))
    inner = (*scope, node) if isinstance(node, (ast.ClassDef, *FUNCTION)) else scope
    for child in ast.iter_child_nodes(node):
        _scoped(child, inner, found)


def _defined(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.ClassDef, *FUNCTION)):
        yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif (
        isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value)
    ):
        yield node.attr


@functools.cache
def _private_of(node: ast.ClassDef | None) -> set[str]:
    if node is None:
        return set()
    return {name for inner in ast.walk(node) for name in _defined(inner) if is_private(name)}


def _is_self(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _named_by_text(node: ast.Call) -> str:
    """The private name in ``getattr(value, "_name")`` and the like."""
    if (
        isinstance(node.func, ast.Name)
        and node.func.id in ("getattr", "setattr", "delattr", "hasattr")
        and len(node.args) > 1
        and isinstance(node.args[1], ast.Constant)
        and is_private(name := str(node.args[1].value))
    ):
        return name
    return ""


def _parameters(node: Function, *, stars: bool = False) -> list[ast.arg]:
    plain = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    if stars:
        plain += filter(None, [node.args.vararg, node.args.kwarg])
    return [one for one in plain if one.arg not in ("self", "cls")]


def _public_names(module: Module) -> list[str]:
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    return [
        node.name
        for node in module.tree.body
        if isinstance(node, (ast.ClassDef, *FUNCTION)) and not node.name.startswith("_")
    ]


def _is_another_half(node: Function) -> bool:
    """Whether it belongs to a definition that says what it does: a setter, an overload."""
    texts = [ast.unparse(one) for one in node.decorator_list]
    return any(text.endswith((".setter", ".deleter", "overload")) for text in texts)


RULES: Mapping[str, Callable[[House], list[str]]] = {
    "cycles": House.cycle_imports,
    "private_names": House.private_uses,
    "class_names": House.class_names_twice,
    "large_packages": House.large_packages,
    "foreign_private_names": House.stray_foreign_private_uses,
    "docstrings": House.undocumented,
    "maps": House.packages_without_map,
    "absolute_imports": House.absolute_imports,
}
"""What is forbidden, by the file of today's violations in ``allowed``."""


def allowed(rule: str) -> list[str]:
    """The violations that ``rule`` still has; a reason may stand behind `` # ``."""
    return [line.partition(" # ")[0].strip() for line in _lines(rule)]


def cut(house: House) -> list[str]:
    """Take what is no longer violated out of the lists; tells what that was."""
    gone = []
    for rule, violations in RULES.items():
        found = set(violations(house))
        kept = [line for line in _lines(rule) if line.partition(" # ")[0].strip() in found]
        gone += [f"{rule}: {line}" for line in _lines(rule) if line not in kept]
        ALLOWED.joinpath(f"{rule}.txt").write_text("".join(f"{line}\n" for line in kept))
    return gone


def _lines(rule: str) -> list[str]:
    return ALLOWED.joinpath(f"{rule}.txt").read_text().splitlines()
