"""The pages' own requests, against a server: two terminals, as a new user would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.manual import Block, blocks
from tests.serve.conftest import Server

ROOT = Path(__file__).parents[2]
SHOWN = "http://127.0.0.1:8080"
PAGES = [ROOT / "README.md", *(ROOT / "docs" / "manual" / f"{name}.md" for name in ("serve", "apis", "tools"))]


def served_blocks(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.mark == "not run: needs the server; tests/serve runs it"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_shows(page: Path, server: Server) -> None:
    shown = served_blocks(page)
    assert shown, "nothing of this page is tested"
    for block in shown:
        if block.language == "python":
            source = block.body.replace(SHOWN, server.url)
            done = subprocess.run(
                [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True
            )
            assert done.stdout.strip()
        for command in block.commands() if block.language == "console" else []:
            assert SHOWN in command.line
            line = command.line.replace(SHOWN, server.url)
            done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=True)
            answer = json.loads(done.stdout)
            assert "choices" in answer or "content" in answer, done.stdout
