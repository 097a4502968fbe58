"""Golden values put together at random and mutated: refused in our words, or checked to an end."""

from __future__ import annotations

import json
from functools import partial
from random import Random
from typing import Any

import pytest

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.source import Checkpoint
from openherd.errors import FormatError
from openherd.tokenizers import Tokenizer
from openherd.workshop.golden.document import Golden, read_golden
from openherd.workshop.verify.facts import check_config, check_template, check_tokenizer, text_lines
from openherd.workshop.verify.findings import Report
from openherd.workshop.verify.logprobs import compare
from openherd.workshop.verify.tensors import check_tensors
from tests.fuzz.mutations import EDGES, mutated, only_herd_errors, seconds, seeds
from tests.unit.workshop.golden_models import golden_json, model

ODD = [*EDGES, -1, 0.5, 1e308, -0.0, None, True, "", "x" * 300, "\ud800", [], [[]], {}, {"": {}}, [0] * 5000]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Tokenizer, str]:
    folder = tmp_path_factory.mktemp("sound")
    path = folder / "model.gguf"
    path.write_bytes(model().build())
    checkpoint = open_checkpoint(path)
    return checkpoint, Tokenizer(checkpoint.tokenizer), golden_json(folder)


def use(raw: bytes, checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
    """Everything but the run of the model itself, which takes ids that the engine checks."""
    golden = read_golden(raw, "golden")
    report = Report()
    check_config(report, golden, checkpoint.config)
    check_tokenizer(report, golden, checkpoint, tokenizer)
    check_template(report, golden, checkpoint, tokenizer)
    check_tensors(report, golden, checkpoint)
    compare(report, golden.next_tokens, [dict(one.top) for one in golden.next_tokens], None)
    json.dumps(report.document(), allow_nan=False)
    assert isinstance(golden, Golden)


def somewhere(value: Any, random: Random) -> Any:
    """The document with one odd value in it, at any depth."""
    if random.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return random.choice(ODD)
    if isinstance(value, dict):
        key = random.choice(sorted(value))
        change = random.random()
        if change < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: somewhere(value[key], random)}
    at = random.randrange(len(value))
    return [*value[:at], somewhere(value[at], random), *value[at + 1 :]]


def test_odd_values(sound: tuple[Checkpoint, Tokenizer, str]) -> None:
    checkpoint, tokenizer, text = sound
    document = json.loads(text)
    for seed in seeds(seconds(1), at_least=100):
        raw = json.dumps(somewhere(document, Random(seed))).encode()
        only_herd_errors(partial(use, raw, checkpoint, tokenizer), len(raw), seed)


def test_mutated_bytes(sound: tuple[Checkpoint, Tokenizer, str]) -> None:
    checkpoint, tokenizer, text = sound
    for seed in seeds(seconds(1), at_least=100):
        raw = mutated(text.encode(), Random(seed))
        only_herd_errors(partial(use, raw, checkpoint, tokenizer), len(raw), seed)


@pytest.mark.parametrize("field", ["chats", "next_tokens", "rotation", "template"])
def test_a_document_beyond_every_limit(field: str, sound: tuple[Checkpoint, Tokenizer, str]) -> None:
    document = json.loads(sound[2])
    many = {
        "chats": document["chats"] * 200,
        "next_tokens": document["next_tokens"] * 20,
        "rotation": [1.0] * 100_000,
        "template": "x" * ((1 << 20) + 1),
    }
    with pytest.raises(FormatError, match=rf"^golden: '{field}' must be"):
        read_golden(json.dumps({**document, field: many[field]}).encode(), "golden")


def test_templates_of_many_lines(sound: tuple[Checkpoint, Tokenizer, str]) -> None:
    """Finding the lines that differ takes time in proportion to their number."""
    checkpoint, tokenizer, text = sound
    document = json.loads(text)
    for template in ("\n" * 1_000_000, "a\nb\n" * 250_000):
        raw = json.dumps({**document, "template": template}).encode()
        assert only_herd_errors(partial(use, raw, checkpoint, tokenizer), len(raw))
        assert len(text_lines(template, template[::-1])) <= 1
