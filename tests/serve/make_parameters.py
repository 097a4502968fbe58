"""Writes docs/manual/serve-parameters.md from the declarations: `python -m tests.serve.make_parameters`."""

from __future__ import annotations

from pathlib import Path

from openherd.serve.api.parameters import REQUESTS, parameters

PAGE = Path(__file__).parents[2] / "docs" / "manual" / "serve-parameters.md"
HEAD = """# Every parameter of every API

Made from the code by `python -m tests.serve.make_parameters`; a test compares them. *Honoured* parameters do what their
API says. *only* names the value that is taken. Those that say 400 are known and not done here: giving one (other than
null) is an error that names it, and so is any parameter that is not in the table.
"""


def page() -> str:
    sections = []
    for path, request in REQUESTS.items():
        rows = [f"| `{p.name}` | {p.status} | {p.meaning} |\n" for p in parameters(request)]
        sections.append(f"\n## POST {path}\n\n| parameter | | |\n|---|---|---|\n{''.join(rows)}")
    return HEAD + "".join(sections)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
