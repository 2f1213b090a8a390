"""The documentation builds, without a warning."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``scripts/docs`` makes."""
    target = tmp_path_factory.mktemp("docs")
    [line] = [li for li in (ROOT / "scripts" / "docs").read_text().splitlines() if "sphinx" in li]
    options = line.partition("-m sphinx ")[2].partition(' "$@"')[0].split()
    assert "-W" in options
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, "docs", str(target)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return target


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def handle_data(self, data: str) -> None:
        self.text += data


def text_of(page: Path) -> str:
    parser = _Text()
    parser.feed(page.read_text())
    return parser.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("reference/made/commands", ["hostler runner", "--status-image", "FN_STATUS_IMAGE"]),
        ("reference/made/errors", ["CallTimeout", "504", "Timed out", "user"]),
        ("reference/made/metrics", ["fn_lb_pool_ejected", "fn_container_launches", "gauge"]),
        ("reference/made/http", ["POST /v2/fns", "syslog_url", "per_page"]),
        ("reference/configuration", ["FN_FREEZE_IDLE_MSECS"]),
        ("reference/python/lb", ["open_lb_agent", "submit", "WarmPlacer"]),
        ("reference/python/seams", ["RunnerPool", "create_cookie"]),
    ],
)
def test_reference_pages_have_what_the_code_has(built: Path, page: str, words: list[str]) -> None:
    text = text_of(built / f"{page}.html")
    assert [word for word in words if word not in text] == []


@pytest.mark.slow
def test_the_pages_need_nothing_from_elsewhere(built: Path) -> None:
    pages = [*built.rglob("*.html")]
    assert len(pages) > 30
    for page in pages:
        loaded = re.findall(
            r'<(?:script|link|img)[^>]*(?:src|href)="(https?:[^"]+)', page.read_text()
        )
        assert loaded == [], page
