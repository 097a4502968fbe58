"""Writes docs/manual/commands.md, every verb's help as `herd` prints it: `python -m tests.docs.make_commands`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from openherd.cli.app import PARTS, VERBS

PAGE = Path(__file__).parents[2] / "docs" / "manual" / "commands.md"
WIDTH = 100
HEAD = """# Every command and its flags

Made from the program's own help by `python -m tests.docs.make_commands`; a test compares them.
"""


def help_of(*arguments: str) -> str:
    """What `herd ARGUMENTS --help` prints, at a fixed width and without colour."""
    environment = {**os.environ, "COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb"}
    herd = [sys.executable, "-m", "openherd", *arguments, "--help"]
    printed = subprocess.run(herd, env=environment, capture_output=True, text=True, check=True).stdout
    return "\n".join(line.rstrip() for line in printed.strip().splitlines())


def page() -> str:
    chains = [(verb, *part) for verb in VERBS for part in ((), *((part,) for part in PARTS.get(verb, ())))]
    sections = [("herd", help_of()), *((" ".join(("herd", *chain)), help_of(*chain)) for chain in chains)]
    return HEAD + "".join(f"\n## {title}\n\n```text\n{text}\n```\n" for title, text in sections)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
