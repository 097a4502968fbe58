"""What a run's model is beside its weights, kept in the run's folder: config, tokenizer, chat template, licence.

With it a run can be resumed, sampled and exported where neither its data nor the model that it started from is at hand,
and the exported model has the very template and ids that it was trained on. A LoRA run still needs the weights that it
adapts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from openherd.checkpoints.new_file import write_new_text
from openherd.checkpoints.source import Checkpoint
from openherd.checkpoints.strict_json import read_json_object
from openherd.config import ModelConfig
from openherd.errors import FormatError, InputError
from openherd.tokenizers.spec import TokenizerSpec
from openherd.train.plain_json import as_plain, from_plain

FILE = "model.json"
_MAX_BYTES = 64 << 20  # a vocabulary of 256,000 tokens with its merges takes 12 MB
_PAPERS = ("license", "licence", "notice", "use_policy")  # beginnings of names, whatever case they have
_MAX_PAPER = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Everything but the weights."""

    config: ModelConfig
    tokenizer: TokenizerSpec
    chat_template: str | None
    license: str | None = None
    base: str = ""  # the model that training started from, as the recipe names it; empty: new weights
    papers: Mapping[str, str] = field(default_factory=dict)  # licence texts that came with it, by their files' names


def facts_of(checkpoint: Checkpoint, base: str, chat_template: str | None) -> ModelFacts:
    """Of a model that training starts from, with the template that the data was prepared with."""
    folder = checkpoint.path if checkpoint.path.is_dir() else None
    papers = {} if folder is None else _papers(folder)
    return ModelFacts(checkpoint.config, checkpoint.tokenizer, chat_template, checkpoint.license, base, papers)


def keep_model_facts(run: Path, facts: ModelFacts, *, begins: bool) -> None:
    """Write RUN/model.json, atomically; when a run goes on, check that it says the same.

    Raises InputError when the run is of another model, OutputError when it cannot be written.
    """
    if begins or not (run / FILE).exists():
        write_new_text(run / FILE, json.dumps(as_plain(facts), ensure_ascii=False, separators=(",", ":")) + "\n")
        return
    kept = read_model_facts(run)
    differing = [name for name in ("config", "tokenizer", "chat_template") if not _equal(kept, facts, name)]
    if differing:
        raise InputError(
            f"{run} was begun with another {differing[0].replace('_', ' ')}, so it cannot go on with this one",
            hint="give the model and data that it was begun with, or another folder (--out)",
        )


def read_model_facts(run: Path) -> ModelFacts:
    """Raises InputError for a folder that holds no run, FormatError for what `keep_model_facts` did not write."""
    path = run / FILE
    if not path.is_file():
        raise InputError(f"{run} holds no training run: {FILE} is missing", hint="name the folder given as --out")
    with path.open("rb") as file:
        raw = file.read(_MAX_BYTES + 1)
    facts = from_plain(ModelFacts, read_json_object(raw, str(path), limit=_MAX_BYTES), str(path))
    for name in facts.papers:
        if not _is_paper(name):  # an export writes files of these names
            raise FormatError(f"{path}: {name[:80]!r} is no name of a licence text")
    return facts


def _equal(one: ModelFacts, other: ModelFacts, name: str) -> bool:
    """As JSON, in which a list is a list, whatever kind of table a reader made."""
    return bool(as_plain(getattr(one, name)) == as_plain(getattr(other, name)))


def _papers(folder: Path) -> dict[str, str]:
    """Texts of a model folder that a copy of the model must carry."""
    found = {}
    for path in sorted(folder.iterdir()):
        if _is_paper(path.name) and path.is_file() and path.stat().st_size <= _MAX_PAPER:
            found[path.name] = path.read_text(encoding="utf-8", errors="replace")
    return found


def _is_paper(name: str) -> bool:
    return name.lower().startswith(_PAPERS) and name.isprintable() and not {"/", "\\"} & set(name)
