"""Reads the manual's pages as tests: console sessions and Python blocks, in the order they stand.

A page's blocks share one empty folder. In a console block a line that begins with `$ ` is a command and the lines
up to the next command are what it prints, standard output first, then standard error; `...` stands for anything.
`(exit status N)` as the last line says that the command must fail that way. A block that follows the comment
`<!-- file: NAME -->` is written to that file first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<language>\w+)\n(?P<body>.*?)^```$", re.S | re.M)
_EXIT = re.compile(r"^\(exit status (\d+)\)$")


@dataclass(frozen=True, slots=True)
class Command:
    line: str
    expected: str
    exit_status: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    language: str
    body: str
    mark: str
    line_number: int

    @property
    def file_name(self) -> str | None:
        return self.mark.removeprefix("file: ") if self.mark.startswith("file: ") else None

    @property
    def is_shown_only(self) -> bool:
        """Marked `not run: WHY` by the page, for what needs a keyboard or a second machine."""
        return self.mark.startswith("not run: ")

    def commands(self) -> list[Command]:
        commands: list[Command] = []
        for chunk in re.split(r"^\$ ", self.body, flags=re.M)[1:]:
            line, *output = chunk.rstrip("\n").split("\n")
            while line.endswith("\\") and output:
                line = line[:-1] + output.pop(0).removeprefix("> ")
            status = _EXIT.match(output[-1]) if output else None
            expected = output[:-1] if status else output
            commands.append(Command(line, "\n".join(expected), int(status[1]) if status else 0))
        return commands


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(m["language"], m["body"], m["mark"] or "", text.count("\n", 0, m.start()) + 1)
        for m in _BLOCK.finditer(text)
    ]
