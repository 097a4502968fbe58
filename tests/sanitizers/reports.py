"""Reads what sanitizers wrote in a run of the Python tests: `python -m tests.sanitizers.reports FOLDER`.

Exit status 1 if anything is ours. Every error and every race is. A leak is ours if a frame of the compiled core took
the memory: the interpreter and other extensions keep much until the process ends, and are not built to be watched.
"""

from __future__ import annotations

import sys
from pathlib import Path

CORE = ("/_native.", "herd::")


def leaks(report: str) -> list[str]:
    """The paragraphs of a leak report, one for each stack that took memory."""
    return [part for part in report.split("\n\n") if part.startswith(("Direct leak", "Indirect leak"))]


def ours(report: str) -> list[str]:
    """What of one process's report is a fault of ours."""
    if "LeakSanitizer: detected memory leaks" in report and report.count("ERROR: ") == 1:
        return [leak for leak in leaks(report) if any(name in leak for name in CORE)]
    return [report]


def main(folder: Path) -> int:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    found = [fault for path in files for fault in ours(path.read_text(errors="replace"))]
    for fault in found:
        print(fault[:8000], "\n")
    others = sum(len(leaks(path.read_text(errors="replace"))) for path in files)
    print(f"{len(files)} processes wrote reports; {len(found)} are ours, {others} leaks in all")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
