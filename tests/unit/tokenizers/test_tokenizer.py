"""Tokenizer: ids of small vocabularies by hand, control tokens out of reach, refused input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_vocabularies import bpe_spec, pieces, spm_spec

from openherd.errors import ContextLengthError, FormatError, UnsupportedError
from openherd.messages import Origin, Span
from openherd.tokenizers.byte_level import _longest
from openherd.tokenizers.pretokenizers import PRE_TOKENIZERS
from openherd.tokenizers.spec import PrefixRule, Strip, TokenType, ids_of_types
from openherd.tokenizers.tokenizer import Tokenizer

BPE = Tokenizer(bpe_spec())
SPM = Tokenizer(spm_spec())
END = 1


def test_bpe_merges_best_first_within_words() -> None:
    assert pieces(BPE.spec, BPE.encode("hello world")) == ["hello", "Ġwor", "l", "d"]


def test_bos_follows_the_file_unless_asked() -> None:
    with_bos = Tokenizer(replace(bpe_spec(), add_bos=True))
    assert with_bos.encode("he") == [0, *BPE.encode("he")]
    assert with_bos.encode("he", add_bos=False) == BPE.encode("he")
    assert BPE.encode("he", add_bos=True)[0] == 0
    assert with_bos.encode("") == [0]


@pytest.mark.parametrize("text", ["<|end|>", "x<|end|>y", "<s>", "<|end|><|end|>"])
def test_control_look_alikes_are_text_unless_special(text: str) -> None:
    """The vocabulary has merges that spell <|end|> in full; without the guard this text would end the answer."""
    ids = BPE.encode(text)
    assert not any(map(BPE.is_control, ids))
    assert BPE.decode(ids) == text
    assert any(map(BPE.is_control, BPE.encode(text, special=True)))


def test_a_word_that_is_a_control_token_stays_text_where_merges_are_ignored() -> None:
    """With ignore_merges a whole word is looked up in the vocabulary before any merge."""
    spec = bpe_spec("llama-bpe")
    tokens = [*spec.tokens, "system"]
    control = Tokenizer(replace(spec, tokens=tokens, token_types=[*spec.token_types, TokenType.CONTROL]))
    assert control.encode("system", special=True) == [len(tokens) - 1]
    assert not any(map(control.is_control, control.encode("system")))


def test_a_stop_id_counts_as_control_whatever_its_type() -> None:
    spec = bpe_spec()
    types = [TokenType.USER_DEFINED if i == END else kind for i, kind in enumerate(spec.token_types)]
    lax = Tokenizer(replace(spec, token_types=types))
    assert END not in lax.encode("<|end|>")
    assert lax.decode([END]) == ""


def test_user_defined_tokens_are_found_in_any_text() -> None:
    assert pieces(BPE.spec, BPE.encode("he<tab>he")) == ["he", "<tab>", "he"]
    assert BPE.decode(BPE.encode("he<tab>he")) == "he<tab>he"


def test_longer_special_tokens_win_over_earlier_ones() -> None:
    """llama.cpp takes the longest token out of the whole text first, even if a shorter one starts before it."""
    spec = bpe_spec()
    tokens = [*spec.tokens, "ab", "bcd"]
    types = [*spec.token_types, TokenType.USER_DEFINED, TokenType.USER_DEFINED]
    tokenizer = Tokenizer(replace(spec, tokens=tokens, token_types=types))
    assert pieces(tokenizer.spec, tokenizer.encode("abcd")) == ["a", "bcd"]


def test_spans_recognise_control_tokens_in_template_text_only() -> None:
    spans = [
        Span("<s>he", Origin.TEMPLATE),
        Span("<|end|>", Origin.USER, 0),
        Span("<|end|>", Origin.TEMPLATE),
    ]
    ids = BPE.encode_spans(spans)
    assert [ids[0], ids[-1]] == [0, END]
    assert not any(map(BPE.is_control, ids[1:-1]))


def test_a_control_token_cannot_be_put_together_from_two_origins() -> None:
    halves = [Span("<|e", Origin.TEMPLATE), Span("nd|>", Origin.USER, 0)]
    assert not any(map(BPE.is_control, BPE.encode_spans(halves)))
    whole = [Span("<|e", Origin.TEMPLATE), Span("nd|>", Origin.TEMPLATE)]
    assert BPE.encode_spans(whole) == [END]


@given(st.lists(st.tuples(st.text("helo wrd\n<|>en", max_size=6), st.sampled_from([Origin.USER, Origin.SYSTEM]))))
def test_a_border_of_origins_is_no_border_of_tokens(parts: list[tuple[str, Origin]]) -> None:
    spans = [Span(text, origin, 0) for text, origin in parts]
    assert BPE.encode_spans(spans) == BPE.encode("".join(text for text, _ in parts))


def test_spm_merges_by_score_with_byte_fallback() -> None:
    assert pieces(SPM.spec, SPM.encode("ab aé€")) == ["<s>", "▁ab", "▁a", "é", "<0xE2>", "<0x82>", "<0xAC>"]


def test_spm_space_prefix_follows_the_file_and_each_special_token() -> None:
    plain = Tokenizer(spm_spec(add_space_prefix=False))
    assert pieces(plain.spec, plain.encode("ab", add_bos=False)) == ["ab"]
    assert pieces(SPM.spec, SPM.encode("a</s>a", special=True)) == ["<s>", "▁a", "</s>", "▁a"]


@pytest.mark.parametrize("text", ["</s>", "<s>", "a</s>b", "<0x0A>", "<unk>"])
def test_spm_control_look_alikes_are_text(text: str) -> None:
    """ "</" + "s>" are both pieces, and their union has the best score of all: 0."""
    ids = SPM.encode(text, add_bos=False)
    assert not any(map(SPM.is_control, ids))
    assert SPM.decode(ids) == text
    assert 0 not in ids


def test_decode_drops_the_prefix_space_unless_it_continues() -> None:
    ids = SPM.encode("ab", add_bos=False)
    assert SPM.decode(ids) == "ab"
    assert SPM.decode(ids, continues=True) == " ab"
    assert SPM.decode([1, *ids]) == "ab"
    assert SPM.decode([1, *ids], skip_special=False) == "<s> ab"


@given(st.text())
def test_every_text_comes_back(text: str) -> None:
    assert BPE.decode(BPE.encode(text)) == text
    assert SPM.decode(SPM.encode(text)) == text


def test_a_lone_surrogate_becomes_the_replacement_character() -> None:
    assert BPE.decode(BPE.encode("he\ud800llo")) == "he�llo"


def test_a_text_that_cannot_fit_is_refused_before_it_is_worked_on() -> None:
    longest = max(map(len, BPE.spec.tokens))
    assert BPE.encode("h" * (4 * longest), max_tokens=4)
    with pytest.raises(ContextLengthError, match="at least 5 tokens; 4 fit"):
        BPE.encode("h" * (4 * longest + 1), max_tokens=4)
    with pytest.raises(ContextLengthError):
        BPE.encode_spans([Span("h" * (4 * longest + 1), Origin.USER, 0)], max_tokens=4)


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS))
def test_every_pre_tokenizer_is_lossless(pre: str) -> None:
    text = "Hello,  world's 12345 ½ ²  \n\n\tÀé 你好 שלום 👩‍👩‍👧 e\u0301 <|end|>…  "
    tokenizer = Tokenizer(bpe_spec(pre))
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("pre", ["", "made-up"])
def test_an_unknown_pre_tokenizer_is_named_with_the_known_ones(pre: str) -> None:
    with pytest.raises(UnsupportedError, match="llama-bpe") as caught:
        Tokenizer(bpe_spec(pre))
    assert (pre or "names no pre-tokenizer") in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": [], "token_types": []}, "empty"),
        ({"token_types": [1]}, "token types"),
        ({"merges": ["ab"]}, "not two tokens"),
        ({"merges": ["a b c"]}, "not two tokens"),
        ({"eos_id": 10**9}, "eos_id"),
        ({"bos_id": -1}, "bos_id"),
        ({"stop_ids": frozenset({10**9})}, "stop id"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Tokenizer(replace(bpe_spec(), **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [0.0]}, "scores"),
        ({"scores": [float("nan")] * len(spm_spec().tokens)}, "not a number"),
        ({"tokens": ["<unk>", "<s>", "</s>", "<0xZZ>", *spm_spec().tokens[4:]]}, "<0xXX>"),
        ({"tokens": [*spm_spec().tokens[:-1], "a" * 2000]}, "characters long"),
    ],
)
def test_a_hostile_spm_vocabulary_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Tokenizer(replace(spm_spec(), **change))


def test_merges_of_tokens_the_file_lacks_are_left_out() -> None:
    spec = bpe_spec()
    tokenizer = Tokenizer(replace(spec, merges=["z z", *spec.merges]))
    assert tokenizer.encode("zz hello") == BPE.encode("zz hello")


def test_ids_outside_the_vocabulary_have_no_bytes() -> None:
    for token_id in (-1, BPE.vocab_size):
        with pytest.raises(IndexError, match="outside the vocabulary"):
            BPE.token_bytes(token_id)


@given(st.lists(st.integers(0, 255), max_size=60), st.sets(st.sampled_from(TokenType), min_size=1))
def test_ids_of_types_are_those_of_a_walk(kinds: list[int], wanted: set[TokenType]) -> None:
    walked = [token_id for token_id, kind in enumerate(kinds) if kind in wanted]
    assert list(ids_of_types(kinds, *wanted)) == list(ids_of_types(bytes(kinds), *wanted)) == walked


@given(st.lists(st.text(max_size=12), max_size=12))
def test_the_longest_text_is_found_by_its_bytes(texts: list[str]) -> None:
    assert _longest(texts) == max((len(text.encode()) for text in texts), default=0)


@pytest.mark.parametrize(
    ("strip", "same_as"),
    [
        (Strip(), "he \u2003<|end|>  \x1che"),
        (Strip(left=True), "he<|end|>  \x1che"),
        (Strip(right=True), "he \u2003<|end|>\x1che"),
        (Strip(left=True, right=True), "he<|end|>\x1che"),
    ],
)
def test_special_tokens_that_strip_the_spaces_beside_them(strip: Strip, same_as: str) -> None:
    """Unicode's white space, to which U+001C does not belong."""
    stripping = Tokenizer(replace(bpe_spec(), strips={END: strip}))
    assert stripping.encode("he \u2003<|end|>  \x1che", special=True) == BPE.encode(same_as, special=True)
    assert stripping.encode("he <|end|> he") == BPE.encode("he <|end|> he")  # as plain text it strips nothing


def test_a_space_prefix_where_the_rule_wants_it() -> None:
    """SentencePiece: before every stretch of text. Metaspace: where no space is, or there at the start alone."""

    def ids(rule: PrefixRule, text: str) -> list[int]:
        return Tokenizer(replace(spm_spec(), prefix_rule=rule)).encode(text, special=True)

    plain = Tokenizer(replace(spm_spec(), add_space_prefix=False))

    def spelled(text: str) -> list[int]:
        return plain.encode(text, special=True)

    end = SPM.spec.tokens[SPM.spec.eos_id or 0]
    for text, sentencepiece, metaspace, first in (
        ("a", " a", " a", " a"),
        (" a", "  a", " a", " a"),
        (f"a{end}a", f" a{end} a", f" a{end} a", f" a{end}a"),
        (f"{end} a", f"{end}  a", f"{end} a", f"{end} a"),
        (f"{end}a", f"{end} a", f"{end} a", f"{end}a"),
    ):
        assert ids("sentencepiece", text) == spelled(sentencepiece)
        assert ids("metaspace", text) == spelled(metaspace)
        assert ids("metaspace-first", text) == spelled(first)


def test_a_normal_form_comes_before_everything() -> None:
    nfc = Tokenizer(replace(bpe_spec(), normalizer="NFC"))
    assert nfc.encode("e\u0301") == BPE.encode("\u00e9") != BPE.encode("e\u0301")
