"""What `scripts/attack` says of its attacks. It runs them itself: they need name spaces."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from benchmarks.attack import Outcome, attacks
from benchmarks.attack.__main__ import lines_of, main

FOLDER = Path(inspect.getfile(main)).parent
NAMES = sorted(p.stem.replace("_", "-") for p in FOLDER.glob("*.py") if p.name[0] != "_")


def test_the_list_names_all_attacks_and_what_they_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert sorted(listed) == NAMES
    assert listed == {name: module.ABOUT for name, module in attacks().items()}


@pytest.mark.parametrize("name", NAMES)
def test_an_attack_is_for_nodes_of_its_own_or_for_a_port(name: str) -> None:
    parameters = list(inspect.signature(attacks()[name].run).parameters)
    assert parameters[0] in ("world", "address")


def test_the_readme_tells_of_each_attack() -> None:
    text = FOLDER.parent.joinpath("README.md").read_text()
    section = text.partition("## Attacks\n")[2].partition("\n## ")[0]
    told = [name for name in NAMES if f"`{name}`" in section or name.endswith("-flood")]
    assert told == NAMES


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["127.0.0.1:1", "none"], "no attack is called none"),
        (["127.0.0.1:1", "smuggling"], "smuggling starts its nodes itself"),
        (["smuggling"], "says no node"),
    ],
)
def test_what_can_not_be_run_is_said(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(args)
    assert message in capsys.readouterr().err


def test_long_outcomes_have_several_lines() -> None:
    outcome = Outcome(tried="a " * 50, happened="b", held=False)
    lines = lines_of("name", outcome)
    assert [line[0] for line in lines] == ["name", ""]
    assert lines[0][2:] == ("b", "FAILED")
