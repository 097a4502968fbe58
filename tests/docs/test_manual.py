"""The README and every page of the manual do what they show."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.manual import Block, blocks

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "manual").glob("*.md"))]
LIMIT_S = 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_does_what_it_shows(page: Path, tmp_path: Path, default_model: Path) -> None:
    home = default_model.parents[2]
    assert (home / "models").is_dir(), "the default model lies in a store's models folder"
    environment = {
        **os.environ,
        "OPENHERD_HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NO_COLOR": "1",
        "COLUMNS": "110",
    }
    for block in blocks(page):
        if block.file_name:
            (tmp_path / block.file_name).write_text(block.body, encoding="utf-8")
        elif not block.is_shown_only:
            _run(block, f"{page.name}:{block.line_number}", tmp_path, environment)


def _run(block: Block, place: str, folder: Path, environment: dict[str, str]) -> None:
    if block.language == "python":
        _execute([sys.executable, "-c", block.body], "", 0, place, folder, environment)
    elif block.language == "console":
        for command in block.commands():
            shell = ["bash", "-c", command.line]
            _execute(shell, command.expected, command.exit_status, f"{place}: {command.line}", folder, environment)


def _execute(
    command: list[str], expected: str, status: int, place: str, folder: Path, environment: dict[str, str]
) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    printed = done.stdout + done.stderr
    assert done.returncode == status, f"{place}\nexit status {done.returncode}, printed:\n{printed}"
    if expected:
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        matches = doctest.OutputChecker().check_output(expected + "\n", printed, flags)
        assert matches, f"{place}\nthe manual shows:\n{expected}\nit printed:\n{printed}"


def test_the_manual_has_commands() -> None:
    """Guards the harness: a page whose blocks are no longer recognised would pass by running nothing."""
    num_commands = sum(len(block.commands()) for page in PAGES for block in blocks(page))
    assert num_commands >= 20
