"""Pre-tokenizers of byte-level BPE: how text is cut into words before merges, by the name GGUF gives them.

A pre-tokenizer is a list of regular expressions (Oniguruma syntax) applied in turn: each cuts every piece into its
matches and what lies between them. The names and the grouping are those of llama.cpp's `tokenizer.ggml.pre`; the
expressions are the ones the models' own tokenizers were trained with. Where a trained expression ignores case by
`(?i:)`, case is spelled out for ASCII letters, as llama.cpp has it.

Not covered: pre-tokenizers that need more than a list of expressions (kimi-k2, afmoe, superbpe) and those of
vocabularies without the byte alphabet (gemma4, sarvam-moe, whitespace).
"""

from __future__ import annotations

from dataclasses import dataclass

from openherd.errors import UnsupportedError

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_TAIL}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_TAIL}"
_QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_START = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+"
_CASED_CAPITALS = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_CASED_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = rf"{_CASED_START}|{_CASED_CAPITALS}|\p{{N}}|{_CASED_TAIL}"
_GPT4O = rf"{_CASED_START}(?:{_CONTRACTIONS})?|{_CASED_CAPITALS}(?:{_CONTRACTIONS})?|\p{{N}}{{1,3}}|{_CASED_TAIL}"
_DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_SEED_CODER = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
_BAILING = (
    r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """Expressions applied in turn; `ignore_merges`: a word that is itself a token is not built from merges."""

    patterns: tuple[str, ...]
    ignore_merges: bool = False


_TABLE: tuple[tuple[str, PreTokenizer], ...] = (
    (
        "gpt-2 phi-2 mpt olmo jais trillion granite-docling jina-es jina-de jina-v2-es jina-v2-de jina-v1-en "
        "jina-v2-code roberta-bpe gigachat a.x-4.0 mellum modern-bert exaone4",
        PreTokenizer((_GPT2,)),
    ),
    (
        "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
        PreTokenizer((r"\p{N}", _GPT2)),
    ),
    (
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano glm4 glm5",
        PreTokenizer((_LLAMA3,), ignore_merges=True),
    ),
    ("dbrx smaug-bpe chatglm-bpe", PreTokenizer((_LLAMA3,))),
    (
        "qwen2 deepseek-r1-qwen stablelm2 megrez hunyuan solar-open kormo f2llmv2 grok-2",
        PreTokenizer((_QWEN2,)),
    ),
    ("qwen35", PreTokenizer((_QWEN35,))),
    ("tekken", PreTokenizer((_TEKKEN,), ignore_merges=True)),
    ("gpt-4o llama4 kanana2 talkie minimax-m2", PreTokenizer((_GPT4O,))),
    ("falcon", PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]"))),
    ("default", PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"))),
    (
        "deepseek-coder",
        PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}")),
    ),
    (
        "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
        PreTokenizer((r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", _DEEPSEEK3)),
    ),
    ("bloom gpt3-finnish poro-chat", PreTokenizer((_BLOOM,))),
    ("viking", PreTokenizer((_BLOOM, r"\p{N}"))),
    ("bailingmoe bailingmoe2 llada-moe", PreTokenizer((_BAILING,))),
    ("seed-coder", PreTokenizer((_SEED_CODER,))),
)
PRE_TOKENIZERS: dict[str, PreTokenizer] = {name: pre for names, pre in _TABLE for name in names.split()}


def pre_tokenizer(name: str) -> PreTokenizer:
    """The pre-tokenizer a file names. Raises `UnsupportedError` for a name that is not in the table."""
    if name in PRE_TOKENIZERS:
        return PRE_TOKENIZERS[name]
    what = f"the pre-tokenizer {name[:64]!r}" if name else "a byte-level BPE vocabulary that names no pre-tokenizer"
    raise UnsupportedError(
        f"the file asks for {what}, and a guess would give wrong tokens without a word",
        hint="supported pre-tokenizers: " + ", ".join(sorted(PRE_TOKENIZERS)),
    )


# ASCII punctuation that Unicode calls symbols counts as punctuation for `tokenizers`.
PUNCTUATION = r"[\p{P}\$\+<=>\^~\|`]+"
GPT2_WORDS = _GPT2
_ANY_CASE = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
# Falcon's own steps: a vocabulary trained with them has no merge between digits and what is none, so that cutting there
# once more, or not (as llama.cpp's table has it), gives the same ids.
_FALCON_STEPS = (PUNCTUATION, _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")


def name_of(patterns: tuple[str, ...], *, ignore_merges: bool) -> str | None:
    """The first name in the table with these expressions, contractions by `(?i:)` or spelled out."""
    if patterns == _FALCON_STEPS and not ignore_merges:
        return "falcon"
    for spelled in (_CONTRACTIONS, f"(?:{_CONTRACTIONS})"):
        wanted = PreTokenizer(tuple(p.replace(_ANY_CASE, spelled) for p in patterns), ignore_merges)
        for names, pre in _TABLE:
            if pre == wanted:
                return names.split()[0]
    return None
