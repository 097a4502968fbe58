"""The facts: config, tokenizer and template of a model against those recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any

from openherd.checkpoints.source import Checkpoint
from openherd.config import ModelConfig
from openherd.errors import TemplateError
from openherd.tokenizers import ChatTemplate, Tokenizer
from openherd.tokenizers.pretokenizers import PRE_TOKENIZERS
from openherd.workshop.golden.chats import render
from openherd.workshop.golden.document import Golden, Vocabulary
from openherd.workshop.golden.rotation import rotation
from openherd.workshop.golden.vocabulary import DIGITS, LATER_FACTS, RUN, digests, facts, merges
from openherd.workshop.verify.findings import MAX_LINES, Report, shown

# Fields that together make the rotary frequencies, which files can say in several ways.
_ROTATION = ("rope_theta", "rope_scaling", "rope_factors", "rope_dim")
_PRECISION = 1e-6  # a file may keep a number as float32


def check_config(report: Report, golden: Golden, config: ModelConfig) -> None:
    """Every field of the config; of rotation, the frequencies that result."""
    report.add(
        "config", config_differences(golden.config, golden.rotation, config), detail=f"{len(fields(ModelConfig))} facts"
    )


def config_differences(recorded: Mapping[str, Any], turned: tuple[float, ...], config: ModelConfig) -> list[str]:
    """What differs between a config's fields, as recorded with its `rotation`, and `config`."""
    now, then = _plain(asdict(config)), _plain(recorded)
    defaults = _plain({f.name: f.default for f in fields(ModelConfig) if f.default is not MISSING})
    same_rotation = _same_rotation(turned, config)
    lines = []
    for name in sorted(now.keys() | then.keys()):
        value = then.get(name, defaults.get(name))
        if name not in now:
            lines.append(f"{name}: was {shown(value)}, and this openherd does not know it")
        elif not _same(value, now[name]) and not (name in _ROTATION and same_rotation):
            lines.append(f"{name}: was {shown(value)}, is {shown(now[name])}")
    return lines


def check_tokenizer(report: Report, golden: Golden, checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
    """Rules and tables as the file has them, then the ids of the recorded texts."""
    spec, recorded = checkpoint.tokenizer, golden.vocabulary
    now = facts(spec)
    unsaid = {name for name in LATER_FACTS if name not in recorded.facts}
    lines = [
        f"{name}: was {shown(recorded.facts.get(name))}, is {shown(now.get(name))}"
        for name in sorted((now.keys() | recorded.facts.keys()) - unsaid)
        if not same_fact(name, recorded.facts.get(name), now.get(name))
    ]
    for table, digest in digests(spec).items():
        entries = merges(spec) if table == "merges" else getattr(spec, table)
        lines += _runs_that_differ(table, recorded.digests.get(table, ""), digest, len(entries), spec.tokens)
    report.add("tokenizer", lines, detail=f"{len(spec.tokens):,} tokens")
    _check_texts(report, recorded, tokenizer)


def same_fact(name: str, was: Any, now: Any) -> bool:
    """Equality; of names of pre-tokenizers, of what they mean."""
    if name == "pre" and isinstance(was, str) and was in PRE_TOKENIZERS:
        return PRE_TOKENIZERS[was] == PRE_TOKENIZERS.get(now)
    return bool(was == now)


def _runs_that_differ(table: str, was: str, now: str, count: int, tokens: Any) -> list[str]:
    if len(was) != len(now):
        return [f"{table}: another number of entries than recorded, {count:,} now"]
    lines = []
    for run in range(len(now) // DIGITS):
        at = slice(run * DIGITS, (run + 1) * DIGITS)
        if was[at] != now[at]:
            first, last = run * RUN, min((run + 1) * RUN, count) - 1
            example = f", {first} is {shown(tokens[first])}" if table == "tokens" else ""
            lines.append(f"{table} {first} to {last}: not those that were recorded{example}")
    return lines


def _check_texts(report: Report, recorded: Vocabulary, tokenizer: Tokenizer) -> None:
    if not recorded.texts:
        report.could_not("token ids", "none were recorded")
        return
    lines = []
    for entry in recorded.texts:
        for special, was in ((False, entry.ids), (True, entry.special_ids)):
            now = tuple(tokenizer.encode(entry.text, special=special))
            if now != was:
                lines.append(ids_line(entry.text, was, now))
                break
    report.add("token ids", lines, detail=f"{len(recorded.texts)} texts")


def ids_line(text: str, was: tuple[int, ...], now: tuple[int, ...]) -> str:
    """Where two lists of ids part."""
    at = next((i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), min(len(was), len(now)))
    return f"{shown(text[:40])}: ids from {at} were {list(was[at : at + 6])}, are {list(now[at : at + 6])}"


def check_template(report: Report, golden: Golden, checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
    """The template's text, and what it makes of the recorded conversations."""
    source = checkpoint.chat_template
    if source is None or golden.template is None:
        what = [] if source == golden.template else [f"there was {'a' if source is None else 'no'} template"]
        report.add("chat template", what, detail="none" if source is None else f"{len(source):,} characters")
    else:
        report.add("chat template", text_lines(golden.template, source), detail=f"{len(source):,} characters")
    if not golden.chats:
        if golden.template is not None:
            report.could_not("rendered chats", "none were recorded: the template did not compile then")
        return
    try:
        template = ChatTemplate.of(source or "", tokenizer)
    except TemplateError as error:
        report.add("rendered chats", [str(error).splitlines()[0]])
        return
    lines = []
    for number, chat in enumerate(golden.chats):
        now = render(template, tuple(dict(message) for message in chat.messages)).text
        lines += [f"chat {number}: {line}" for line in text_lines(chat.text, now)]
    report.add("rendered chats", lines, detail=f"{len(golden.chats)} conversations")


def text_lines(was: str | None, now: str | None) -> list[str]:
    """The lines in which two texts differ, from the first to the last; None is a refusal to render."""
    if was == now:
        return []
    if was is None or now is None:
        return [f"was {'refused' if was is None else shown(was)}, is {'refused' if now is None else shown(now)}"]
    old, new = was.splitlines(keepends=True), now.splitlines(keepends=True)
    start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    before, after = old[start : len(old) - end], new[start : len(new) - end]
    if len(before) == len(after) <= MAX_LINES:
        return [
            f"line {start + i + 1}: was {shown(a)}, is {shown(b)}"
            for i, (a, b) in enumerate(zip(before, after, strict=True))
            if a != b
        ]
    return [f"line {start + 1}: was {shown(''.join(before)[:1000])}, is {shown(''.join(after)[:1000])}"]


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: tuples as lists, nested too."""
    return {name: _listed(value) for name, value in config.items()}


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _listed(item) for key, item in value.items()}
    return list(map(_listed, value)) if isinstance(value, list | tuple) else value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, bool) or isinstance(b, bool) or not (isinstance(a, int | float) and isinstance(b, int | float)):
        return type(a) is type(b) and bool(a == b)
    return math.isclose(a, b, rel_tol=_PRECISION)


def _same_rotation(turned: tuple[float, ...], config: ModelConfig) -> bool:
    """Whether queries and keys are turned as the recorded frequencies say, however the fields spell them."""
    now = rotation(config)
    return bool(now) and len(now) == len(turned) and all(map(_same, turned, now))
