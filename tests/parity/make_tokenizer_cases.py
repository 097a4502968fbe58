"""Write the small tokenizers of `tokenizers/`, and the ids that each one's own reference gives to all strings.

Run in an environment with tokenizers, sentencepiece and tiktoken, from the repository's root:
    PYTHONPATH=. python tests/parity/make_tokenizer_cases.py [CASE ...]

The rules are those of the published tokenizer files, the vocabularies are trained here. References: the `tokenizers`
package (with control tokens as text by `encode_special_tokens`), sentencepiece, tiktoken.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sentencepiece
import tiktoken
import tiktoken.load
from sentencepiece import sentencepiece_model_pb2
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from tests.parity.reference_digest import condensed, digest
from tests.parity.token_strings import CODE, EMOJI, SENTENCES, token_strings
from tests.parity.tokenizer_cases import CASES, EXPECTED, FOLDER, SIZE, Case

ENGLISH = Path(__file__).with_name("alice.txt").read_text(encoding="utf-8").splitlines()
# Other strings than most of those that ids are compared on, so that there are merges of spaces, digits and signs too.
LINES = [*SENTENCES * 3, *ENGLISH, *CODE * 3]
TEXT = [*LINES, *EMOJI * 2, *token_strings()[3::19]]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
Ids = Callable[[str], list[int]]


def byte_level(*steps: pre_tokenizers.PreTokenizer, regex: bool = False) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)])


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def controls(*texts: str) -> list[AddedToken]:
    return [AddedToken(text, special=True, normalized=False) for text in texts]


def bpe(
    pre: pre_tokenizers.PreTokenizer,
    added: list[AddedToken],
    *,
    normalizer: normalizers.Normalizer | None = None,
    ignore_merges: bool = False,
) -> Tokenizer:
    """Byte-level BPE, trained with its own words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=SIZE, initial_alphabet=alphabet, show_progress=False)
    )
    model = json.loads(tokenizer.to_str())["model"]
    tokenizer.model = models.BPE(model["vocab"], [tuple(m) for m in model["merges"]], ignore_merges=ignore_merges)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    for token in added:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    return tokenizer


def spm_bpe(rules: Callable[[Tokenizer], None], added: list[AddedToken], bos: str | None) -> Tokenizer:
    """BPE of whole characters with byte fallback, from the merges of a SentencePiece model."""
    model = sentencepiece.SentencePieceProcessor(model_proto=train_spm(SIZE, bos_id=1))
    vocab = {model.id_to_piece(i): i for i in range(model.vocab_size())}
    merges = sorted(
        ((vocab[piece], len(piece[:at]), piece[:at], piece[at:]) for piece in vocab for at in range(1, len(piece))
         if piece[:at] in vocab and piece[at:] in vocab), key=lambda m: (m[0], m[1]))  # fmt: skip
    pairs = [(a, b) for _, _, a, b in merges]
    tokenizer = Tokenizer(models.BPE(vocab, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    rules(tokenizer)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in ("<unk>", "<s>", "</s>")])
    for token in added:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, 1)])
    return tokenizer


def train_spm(size: int, *, bos_id: int, symbols: tuple[str, ...] = (), **settings: object) -> bytes:
    """A BPE model with Llama's or Gemma's settings, as the bytes of tokenizer.model."""
    folder = FOLDER / "training"
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_spm_lines()),
        model_prefix=str(folder / "spm"), model_type="bpe", vocab_size=size, byte_fallback=True, split_digits=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
        character_coverage=0.98, minloglevel=2, num_threads=1, bos_id=bos_id, user_defined_symbols=list(symbols),
        **settings,
    )  # fmt: skip
    model = sentencepiece_model_pb2.ModelProto.FromString((folder / "spm.model").read_bytes())
    model.trainer_spec.ClearField("model_prefix")
    shutil.rmtree(folder)
    return model.SerializeToString()


def _spm_lines() -> list[str]:
    """Lines of few scripts: every character that is seen takes one of the few tokens."""
    ascii_strings = (text for text in token_strings()[3::19] if text.isascii() and "\0" not in text)
    return [line for text in (*LINES, *ascii_strings) for line in text.splitlines()]


def llama_spaces(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])  # fmt: skip


def gemma_spaces(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])


def plain(*texts: str, **rules: bool) -> list[AddedToken]:
    return [AddedToken(text, special=False, **({"normalized": False} | rules)) for text in texts]


CHATML = controls("<|endoftext|>", "<|im_start|>", "<|im_end|>")
GEMMA_SYMBOLS = (
    "<start_of_turn>",
    "<end_of_turn>",
    "\n\n",
    "\n\n\n",
    "▁▁",
    "▁▁▁",
    "▁▁▁▁▁▁▁▁",
    "<table>",
    "</s>x",
    "\t\t",
)
MAKERS: dict[str, Callable[[], Tokenizer]] = {
    "codellama-json": lambda: spm_bpe(
        llama_spaces, controls("▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>", "[INST]", "[/INST]"), "<s>"
    ),
    "falcon-json": lambda: bpe(
        pre_tokenizers.Sequence([
            pre_tokenizers.Punctuation("contiguous"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            pre_tokenizers.Digits(individual_digits=False),
            split("[0-9][0-9][0-9]"),
        ]),
        controls(">>TITLE<<", ">>ABSTRACT<<", "<|endoftext|>"),
    ),
    "gemma-json": lambda: spm_bpe(
        gemma_spaces, controls("<start_of_turn>", "<end_of_turn>") + plain(*GEMMA_SYMBOLS[2:]), None
    ),
    "mistral-tekken-json": lambda: bpe(
        byte_level(split(TEKKEN)), controls("<unk>", "<s>", "</s>", "[INST]", "[/INST]"), ignore_merges=True
    ),
    "mpt-json": lambda: bpe(
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        controls("<|endoftext|>", "<|padding|>")
        + plain(*(" " * n for n in range(24, 1, -1)), normalized=True)
        + controls("<|im_start|>", "<|im_end|>"),
        normalizer=normalizers.NFC(),
    ),
    "phi3-json": lambda: spm_bpe(
        llama_spaces,
        [AddedToken(f"<|{name}|>", special=True, normalized=False, rstrip=True)
         for name in ("endoftext", "assistant", "end", "user", "im_end")] + plain("</s>x", "<pad>", lstrip=True),
        "<s>",
    ),
    "qwen-json": lambda: bpe(
        byte_level(split(QWEN)), CHATML + plain("<tool_call>", "</tool_call>", "<think>", "</think>", "<repo_name>"),
        normalizer=normalizers.NFC(),
    ),
    "smollm-json": lambda: bpe(
        byte_level(pre_tokenizers.Digits(individual_digits=True), regex=True), CHATML + controls("<repo_name>")
    ),
    "smollm3-json": lambda: bpe(
        byte_level(split(LLAMA3)),
        controls("<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>") + plain("<think>", "</think>"),
        ignore_merges=True,
    ),
}  # fmt: skip


def write_file(name: str, case: Case) -> None:
    shutil.rmtree(case.folder, ignore_errors=True)
    case.folder.mkdir(parents=True)
    if name == "gemma-model":
        data = train_spm(
            SIZE, bos_id=2, eos_id=1, pad_id=0, unk_id=3, symbols=GEMMA_SYMBOLS, add_dummy_prefix=False
        )  # fmt: skip
        (case.folder / "tokenizer.model").write_bytes(data)
        settings = {
            "add_bos_token": True,
            "bos_token": "<bos>",
            "eos_token": "<eos>",
        }
        (case.folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return
    root = json.loads(MAKERS[name]().to_str())
    (case.folder / "tokenizer.json").write_text(
        json.dumps(root, ensure_ascii=False, separators=(",", ":")), encoding="utf-8"
    )


def references(case: Case) -> tuple[Ids, Ids | None]:
    """(ids of a text, ids with its control tokens as such)."""
    if case.reference == "sentencepiece":
        model = sentencepiece.SentencePieceProcessor(model_file=str(case.folder / "tokenizer.model"))
        return lambda text: model.encode(text), None
    if case.reference == "tiktoken":
        from tests.parity.make_reader_cases import LLAMA3_SPLIT, RANKS, SPECIAL

        ranks = tiktoken.load.load_tiktoken_bpe(str(case.folder / "tokenizer.model"))
        encoding = tiktoken.Encoding("small", pat_str=LLAMA3_SPLIT, mergeable_ranks=ranks,
                                     special_tokens={text: RANKS + i for i, text in enumerate(SPECIAL)})  # fmt: skip
        return encoding.encode_ordinary, lambda text: encoding.encode(text, allowed_special="all")
    path = str(case.folder / "tokenizer.json")
    with_text, with_control = Tokenizer.from_file(path), Tokenizer.from_file(path)
    with_text.encode_special_tokens = True
    return (
        lambda text: with_text.encode(text, add_special_tokens=False).ids,
        lambda text: with_control.encode(text, add_special_tokens=False).ids,
    )


def main(names: list[str]) -> None:
    for name in names:
        case = CASES[name]
        if case.folder.parent == FOLDER:
            write_file(name, case)
        as_text, as_control = references(case)
        rows = [digest(as_text(text), as_control(text) if as_control else []) for text in token_strings()]
        np.savez_compressed(EXPECTED / f"{name}.npz", **condensed(rows))
        print(name, len(rows), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(CASES))
