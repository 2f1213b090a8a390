"""The units of deploy/systemd, as systemd itself reads them once they are where
docs/how-to/deploy.md puts them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hostler.config import AgentConfig

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("*.service"))
SYSTEM = Path("/usr/lib/systemd/system")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system that has hostler and systemd's own units, and Docker's."""
    program = tmp_path / "opt" / "hostler" / "bin" / "hostler"
    program.parent.mkdir(parents=True)
    shutil.copy2("/bin/true", program)
    shutil.copytree(SYSTEM, tmp_path / SYSTEM.relative_to("/"), symlinks=True)
    (tmp_path / "etc" / "systemd" / "system").mkdir(parents=True)
    return tmp_path


def verify(root: Path, unit: Path) -> subprocess.CompletedProcess[str]:
    shutil.copy2(unit, root / "etc" / "systemd" / "system")
    return subprocess.run(
        ["systemd-analyze", "verify", f"--root={root}", "--man=no", unit.name],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_has_nothing_to_say_about_a_unit(root: Path, unit: Path) -> None:
    said = verify(root, unit)
    assert (said.returncode, said.stderr) == (0, "")


def test_systemd_would_have_something_to_say(root: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.service"
    broken.write_text(UNITS[0].read_text().replace("Restart=", "Restartt="))
    assert "Unknown key 'Restartt'" in verify(root, broken).stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_stopped_later_than_its_calls(unit: Path) -> None:
    lines = dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line)
    assert float(lines["TimeoutStopSec"]) * 1000 > AgentConfig().drain_grace_msecs
    assert lines["ExecStart"].split()[1] == unit.stem.removeprefix("hostler-")


@pytest.mark.parametrize("node", ["api", "lb"])
def test_nodes_without_an_engine_have_few_rights(node: str) -> None:
    [unit] = [unit for unit in UNITS if unit.stem == f"hostler-{node}"]
    rate = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager"]
    subprocess.run(
        [*rate, str(unit)],
        check=True,
        capture_output=True,
    )
