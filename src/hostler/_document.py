"""Files that people write, in YAML or TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigError


def read_document(path: Path, what: str) -> Any:
    """What a YAML or TOML file has, in plain types. Blocks on the disk.

    Raises `ConfigError`; its text calls the file ``what``.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"cannot read the {what} {path}: {reason}") from error
    return _decode(path, text, what)


def _decode(path: Path, text: str, what: str) -> Any:
    ending = path.suffix.lower()
    try:
        if ending == ".toml":
            return tomllib.loads(text)
        if ending in (".yaml", ".yml"):
            return yaml.load(text, _StrictLoader)  # noqa: S506  (it is a SafeLoader)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {_one_line(error)}") from error
    raise ConfigError(f"{path}: a {what} must end in .yaml, .yml or .toml")


def _one_line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is given twice, where YAML's own rule is that the last one wins."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)
