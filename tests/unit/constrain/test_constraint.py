"""Masks keep an answer on the way to the grammar, and end tokens come only where it is complete."""

from __future__ import annotations

import json
import random

import jsonschema
import numpy as np
import pytest

from openherd.constrain import Constraint, Grammar, compile_grammar
from openherd.errors import EngineError, UnsupportedError
from tests.unit.constrain.byte_vocabulary import ByteVocabulary
from tests.unit.constrain.random_schema import bounded_schema

VOCABULARY = ByteVocabulary()
N_LOGITS = VOCABULARY.vocab_size + 40  # a model may have more rows than its tokenizer has tokens


def allowed(constraint: Constraint) -> list[int]:
    bits = constraint.next(())
    return np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little")).tolist()


def draw_answer(constraint: Constraint, rng: random.Random, limit: int = 3000) -> list[int]:
    """What a model with random weights would say: a uniform draw among the allowed tokens."""
    ids: list[int] = []
    while not constraint.is_complete and len(ids) < limit:
        token = rng.choice(allowed(constraint))
        ids.append(token)
        constraint.accept([token])
        if token in VOCABULARY.stop_ids:
            return ids
    return ids


@pytest.mark.parametrize("seed", range(100))
def test_random_schema_gives_valid_json(seed: int) -> None:
    rng = random.Random(seed)
    schema = bounded_schema(rng)
    constraint = compile_grammar(Grammar.json_schema(schema), VOCABULARY, N_LOGITS)
    text = VOCABULARY.decode(draw_answer(constraint, rng))
    jsonschema.validate(json.loads(text), schema)


def test_json_object_gives_an_object() -> None:
    for seed in range(20):
        constraint = compile_grammar(Grammar.json_object(), VOCABULARY, N_LOGITS)
        ids = draw_answer(constraint, random.Random(seed), limit=400)
        if ids[-1] == VOCABULARY.eos_id or constraint.is_complete:
            assert isinstance(json.loads(VOCABULARY.decode(ids)), dict)
        else:
            assert not constraint.is_complete


def test_end_token_only_when_complete() -> None:
    constraint = compile_grammar(Grammar.regex("[ac]b+"), VOCABULARY, N_LOGITS)
    ab, b = VOCABULARY.tokens.index(b"ab"), ord("b")
    assert set(allowed(constraint)) == {ord("a"), ord("c"), ab}
    constraint.accept([ord("a")])
    assert allowed(constraint) == [b]
    assert not constraint.is_accepting
    constraint.accept([b])
    assert set(allowed(constraint)) == {b, VOCABULARY.eos_id}
    assert constraint.is_accepting
    assert not constraint.is_complete


def test_nothing_follows_a_complete_answer() -> None:
    constraint = compile_grammar(Grammar.regex("ok"), VOCABULARY, N_LOGITS)
    constraint.accept([ord("o")])
    assert not constraint.is_complete
    constraint.accept([ord("k")])
    assert constraint.is_complete
    assert allowed(constraint) == [VOCABULARY.eos_id]


def test_rollback_and_fork_are_exact() -> None:
    rng = random.Random(7)
    constraint = compile_grammar(Grammar.json_object(), VOCABULARY, N_LOGITS)
    masks, ids = [], []
    for _ in range(40):
        masks.append(constraint.next(()))
        ids.append(rng.choice([i for i in allowed(constraint) if i != VOCABULARY.eos_id]))
        constraint.accept(ids[-1:])
        if constraint.is_complete:
            break
    twin = constraint.fork()
    twin.rollback(len(ids) - 3)
    assert np.array_equal(twin.next(()), masks[3])
    twin.accept(ids[3:])
    assert np.array_equal(twin.next(()), constraint.next(()))
    constraint.rollback(len(ids))
    assert np.array_equal(constraint.next(()), masks[0])


def test_rows_beyond_the_vocabulary_are_never_allowed() -> None:
    constraint = compile_grammar(Grammar.regex(r"(.|\n)*"), VOCABULARY, N_LOGITS)
    assert max(allowed(constraint)) == VOCABULARY.eos_id
    assert VOCABULARY.bos_id not in allowed(constraint)


def test_lark_grammar() -> None:
    constraint = compile_grammar(Grammar.lark('start: "a" start "b" | "c"'), VOCABULARY, N_LOGITS)
    constraint.accept([ord(c) for c in "aacb"])
    assert allowed(constraint) == [ord("b")]


def test_token_outside_the_grammar_raises() -> None:
    constraint = compile_grammar(Grammar.regex("ok"), VOCABULARY, N_LOGITS)
    with pytest.raises(EngineError, match="grammar cannot go on"):
        constraint.accept([ord("x")])


def test_model_without_end_token_is_refused() -> None:
    class Endless(ByteVocabulary):
        def __init__(self) -> None:
            super().__init__()
            self.stop_ids = frozenset()

    with pytest.raises(UnsupportedError, match="no end token"):
        compile_grammar(Grammar.json_object(), Endless(), N_LOGITS)
