"""T14: transformers and openherd's engine agree on an exported model. Expected values: make_export_expected.py."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.source import Checkpoint
from openherd.messages import Message
from openherd.tokenizers import ChatTemplate, Tokenizer
from openherd.workshop.model_logits import open_logits
from tests.train.export import small_runs

EXPECTED: dict[str, Any] = json.loads((Path(__file__).parent / "expected_export.json").read_text())
CHAT = [Message("user", "Who took the cat?"), Message("assistant", " The third son. ")]
EVERY = 16


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    out = tmp_path_factory.mktemp("exported") / "model"
    small_runs.export_folder(str(out))
    return open_checkpoint(out)


def test_t14_logits_are_those_of_transformers(exported: Checkpoint) -> None:
    text = next(iter(EXPECTED["ids"]))
    with open_logits(exported, 64, threads=1) as logits:
        found = np.concatenate([np.array(block) for block in logits(EXPECTED["ids"][text])])[:, ::EVERY]
    assert np.abs(found).max() > 1, "the logits say something"
    np.testing.assert_allclose(found, np.array(EXPECTED["logits"]), atol=1e-4, rtol=0)


def test_t14_token_ids_and_chats_are_those_of_transformers(exported: Checkpoint) -> None:
    tokenizer = Tokenizer(exported.tokenizer)
    for text, ids in EXPECTED["ids"].items():
        assert tokenizer.encode(text, special=True) == ids, text
    template = ChatTemplate.of(exported.chat_template, tokenizer)
    now = datetime(2024, 7, 26, tzinfo=UTC)
    spans = template.render(CHAT, add_generation_prompt=True, now=now)
    assert "".join(span.text for span in spans) == EXPECTED["chat"]
    stops = EXPECTED["eos_token_ids"]
    assert tokenizer.stop_ids == frozenset(stops if isinstance(stops, list) else [stops])
