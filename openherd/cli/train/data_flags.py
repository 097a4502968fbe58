"""Flags that the parts of herd train that read data have in common."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from openherd.errors import OptionError

RenameFlag = Annotated[
    list[str] | None,
    Parameter(
        name="--rename",
        negative=(),
        show_default=False,
        help="A key of the files that means one of ours, as THEIRS=OURS: question=instruction. May be repeated.",
    ),
]
ModelFlag = Annotated[
    str | None,
    Parameter(
        name=("--model", "--tokenizer"),
        show_default=False,
        help="Whose tokenizer and chat template count: a catalogue name, a model's file, or a folder that "
        "herd train tokenizer wrote; none: the default model.",
    ),
]
TemplateFlag = Annotated[
    str | None,
    Parameter(
        name="--template",
        show_default=False,
        help="Another chat template: a Jinja file, or chatml, llama-2 or llama-3; none: the model's own.",
    ),
]


def parse_renames(pairs: list[str] | None) -> dict[str, str]:
    """`THEIRS=OURS` pairs as a table. Raises OptionError."""
    renames = {}
    for pair in pairs or ():
        theirs, _, ours = pair.partition("=")
        if not theirs or not ours:
            raise OptionError(f"--rename is THEIRS=OURS, not {pair!r}", hint="try: --rename question=instruction")
        renames[theirs] = ours
    return renames
