"""Where the shells' completion is put, and how tables look."""

from __future__ import annotations

from pathlib import Path

import pytest
import shellingham
from click.testing import CliRunner

from hostler.cli import app
from hostler.cli.client.output import print_table


def install(shell: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.setattr(shellingham, "detect_shell", lambda: (shell, f"/bin/{shell}"))
    done = CliRunner().invoke(app, ["--install-completion"], env={"HOME": str(home)})
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("shell", "script", "settings"),
    [
        ("bash", ".bash_completions/hostler.sh", ".bashrc"),
        ("zsh", ".zfunc/_hostler", ".zshrc"),
        ("fish", ".config/fish/completions/hostler.fish", None),
    ],
)
def test_completion_is_installed_once(
    shell: str, script: str, settings: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if settings is not None:
        (tmp_path / settings).write_text("# mine\n")
    for _ in range(2):
        code, output = install(shell, tmp_path, monkeypatch)
        assert (code, output.splitlines()[0]) == (
            0,
            f"{shell} completion installed in {tmp_path / script}",
        )
    assert f"_HOSTLER_COMPLETE={shell}_complete" in (tmp_path / script).read_text()
    if settings is not None:
        mine, ours = (tmp_path / settings).read_text().splitlines()
        assert mine == "# mine"
        assert Path(script).parts[0] in ours


@pytest.mark.parametrize("mine", [b"\n  # mine: \xfc\r\n\n", b"", b"# mine", None])
def test_what_is_in_the_settings_stays(
    mine: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / ".bashrc"
    if mine is not None:
        settings.write_bytes(mine)
    assert install("bash", tmp_path, monkeypatch)[0] == 0
    line = b"source ~/.bash_completions/hostler.sh\n"
    end = b"\n" if mine == b"# mine" else b""
    assert settings.read_bytes() == (mine or b"") + end + line


def test_settings_that_can_not_be_written_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".bashrc").mkdir()
    expected = f"Error: {tmp_path}/.bashrc: Is a directory\n"
    assert install("bash", tmp_path, monkeypatch) == (1, expected)


def test_a_shell_without_completion_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = "Error: completion exists for bash, zsh, fish, not for tcsh\n"
    assert install("tcsh", tmp_path, monkeypatch) == (1, expected)
    assert list(tmp_path.iterdir()) == []


def test_a_table_has_whole_lines_and_nothing_that_a_terminal_obeys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "x" * 300
    print_table(["NAME", "TEXT"], [("a", f"one\ntwo\t{long}"), ("longer", "\x1b[31mred")])
    assert capsys.readouterr().out.splitlines() == [
        "NAME    TEXT",
        "a       one",
        f"        two\t{long}",
        "longer  \ufffd[31mred",
    ]
    print_table((), [])
    assert capsys.readouterr().out == ""
