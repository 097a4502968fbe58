"""Two models beside each other: their next-token distributions over a text, and their tensors one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.families import Layout, by_name
from openherd.checkpoints.source import Checkpoint, Tensor
from openherd.engine.memory import free_memory
from openherd.errors import CapacityError, InputError
from openherd.quant.dequantize import dequantize
from openherd.store.progress import Progress, megabytes
from openherd.tokenizers import Tokenizer
from openherd.tokenizers.normal_text import sought_in_normal_text
from openherd.tokenizers.spec import Strip, TokenizerSpec, TokenType
from openherd.tokenizers.tokenizer import token_kinds
from openherd.workshop.calibrate import CHUNK_TOKENS, chunks_of
from openherd.workshop.divergence import Divergence, diverge
from openherd.workshop.model_logits import open_logits
from openherd.workshop.token_tables import same_merges, token_difference
from openherd.workshop.verify.facts import same_fact

# Kinds of tokens that text becomes by merging, GGUF's 0 for one that is not said among them; layouts do not agree on
# which a token without use is.
_MERGED = (0, TokenType.NORMAL, TokenType.UNUSED)
_LAYOUTS: dict[str, Layout] = {"GGUF": "gguf", "Hugging Face": "hf", "Meta": "meta"}  # by how formats begin
DEFAULT_TOKENS = 4096
CHUNK_VALUES = 1 << 20


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """B's tensor against A's: the root mean square of the difference over that of A's values.

    Infinite where A's are all zero, or one of them has no such tensor; NaN where values are not finite numbers.
    """

    name: str
    type_a: str | None  # None: A has no such tensor
    type_b: str | None
    n_values: int
    relative_error: float


@dataclass(frozen=True, slots=True)
class Compared:
    path_a: Path
    path_b: Path
    divergence: Divergence
    tensors: list[TensorDifference] | None
    why_no_tensors: str | None


def compare_models(
    path_a: Path,
    path_b: Path,
    text: str,
    *,
    context: int,
    max_tokens: int,
    threads: int | None,
    with_tensors: bool,
    progress: Progress,
) -> Compared:
    """See `compare_distributions` and `compare_tensors`."""
    a, b = open_checkpoint(path_a), open_checkpoint(path_b)
    found = compare_distributions(
        a, b, text, context=context, max_tokens=max_tokens, threads=threads, on_chunk=chunk_progress(progress)
    )
    tensors = compare_tensors(a, b) if with_tensors else None
    why = "the models have different shapes" if with_tensors and tensors is None else None
    return Compared(path_a, path_b, found, tensors, why)


def chunk_progress(progress: Progress) -> Callable[[int, int], None]:
    """A line for every tenth of the chunks."""

    def on_chunk(done: int, total: int) -> None:
        if done * 10 // total > (done - 1) * 10 // total:
            progress.say(f"  {done / total:4.0%}  {done} of {total} chunks")

    return on_chunk


def compare_distributions(
    a: Checkpoint,
    b: Checkpoint,
    text: str,
    *,
    context: int = CHUNK_TOKENS,
    max_tokens: int = DEFAULT_TOKENS,
    threads: int | None = None,
    on_chunk: Callable[[int, int], None] = lambda done, total: None,
) -> Divergence:
    """Of B from A over the text's first `max_tokens` tokens, in chunks of `context`.

    Raises `InputError` when their tokenizers differ or the text has less than two tokens, `CapacityError` when both
    do not fit the memory at once.
    """
    require_same_tokenizer(a, b)
    _require_memory(a, b)
    context = min(context, a.config.max_seq_len, b.config.max_seq_len)
    ids = Tokenizer(a.tokenizer).encode(text)[:max_tokens]
    chunks = chunks_of(ids, context, math.ceil(max_tokens / context))
    with open_logits(a, context, threads) as of_a, open_logits(b, context, threads) as of_b:
        return diverge(of_a, of_b, chunks, on_chunk)


def compare_tensors(a: Checkpoint, b: Checkpoint) -> list[TensorDifference] | None:
    """Of all tensors that one of them has, the worst first, as B's file names them; None when the models have other
    shapes, so that nothing can be set side by side."""
    shared = [name for name in a.tensors if name in b.tensors]
    if a.config.family != b.config.family or any(a.tensors[name].shape != b.tensors[name].shape for name in shared):
        return None
    found = [_difference(a.tensors[name], b.tensors[name]) for name in shared]
    for tensors, others in ((a.tensors, b.tensors), (b.tensors, a.tensors)):
        found += [_alone(tensors[name], in_a=tensors is a.tensors) for name in tensors if name not in others]
    found = [replace(tensor, name=_name_in(b, tensor.name)) for tensor in found]
    return sorted(found, key=lambda tensor: -math.inf if math.isnan(tensor.relative_error) else -tensor.relative_error)


def _name_in(checkpoint: Checkpoint, name: str) -> str:
    """What the model's file calls the tensor, with its canonical name where the file keeps several in one."""
    layout = next((layout for start, layout in _LAYOUTS.items() if checkpoint.format.startswith(start)), None)
    place = layout and by_name(checkpoint.config.family).names[layout].place(name)
    if not place:
        return name
    return place.name if place.rows is None else f"{place.name} ({name})"


def require_same_tokenizer(a: Checkpoint, b: Checkpoint) -> None:
    """Distributions over different vocabularies cannot be compared."""
    if difference := _tokenizer_difference(a.tokenizer, b.tokenizer):
        raise InputError(
            f"{a.path.name} and {b.path.name} have different tokenizers ({difference}): their distributions are over"
            " different things",
            hint="herd score with each measures bits per byte, which any two models share",
        )
    if a.config.vocab_size != b.config.vocab_size:
        raise InputError(
            f"{a.path.name} gives {a.config.vocab_size} logits and {b.path.name} {b.config.vocab_size}"
            " (their vocabularies are padded differently)"
        )


# Of SentencePiece alone.
_SPM_RULES = ("add_space_prefix", "prefix_rule", "unk_id")


def _tokenizer_difference(a: TokenizerSpec, b: TokenizerSpec) -> str | None:
    """The first one that can change the ids of a text, by meaning: layouts spell pre-tokenizers in several ways, and
    have scores for merges. Which control token ends an answer is none."""
    rules = ["kind", "pre", "normalizer", "add_bos", *(["bos_id"] if a.add_bos else [])]
    for field in (*rules, *(_SPM_RULES if a.kind == "spm" else ())):
        if not same_fact(field, getattr(a, field), getattr(b, field)):
            return f"{field} is {getattr(a, field)!r} in one and {getattr(b, field)!r} in the other"
    if len(a.tokens) != len(b.tokens):
        return f"{len(a.tokens)} tokens and {len(b.tokens)}"
    return _token_difference(a, b) or (None if same_merges(a, b) else "their merges differ")


def _token_difference(a: TokenizerSpec, b: TokenizerSpec) -> str | None:
    if token := token_difference(a, b, _meant_kinds):
        texts, kinds = map(repr, token.texts), (TokenType(kind).name for kind in token.kinds)
        of_a, of_b = kinds if token.texts[0] == token.texts[1] else texts
        return f"token {token.token_id} is {of_a} in one and {of_b} in the other"
    for number in sorted(sought_in_normal_text(a) ^ sought_in_normal_text(b)):
        return f"token {number} is sought in normalised text in one and as it is written in the other"
    for number in sorted(a.strips.keys() | b.strips.keys()):
        if a.strips.get(number, Strip()) != b.strips.get(number, Strip()):
            return f"token {number} strips other spaces in one than in the other"
    return None


def _meant_kinds(spec: TokenizerSpec) -> Iterator[int]:
    return (TokenType.NORMAL if kind in _MERGED else kind for kind in token_kinds(spec))


def _require_memory(a: Checkpoint, b: Checkpoint) -> None:
    """Both models are computed side by side, because the logits of a text would not fit a disk."""
    needed = sum(
        tensor.nbytes for checkpoint in (a, b) for tensor in map(checkpoint.tensors.__getitem__, checkpoint.tensors)
    )
    free = free_memory()
    if needed > free:
        raise CapacityError(
            f"both models together take {megabytes(needed)} of memory and {megabytes(free)} are free",
            hint="measure on a machine with more memory, or each alone with herd score",
        )


def _difference(a: Tensor, b: Tensor) -> TensorDifference:
    squared = power = 0.0
    with np.errstate(invalid="ignore"):  # what is not finite is told by the sums
        for of_a, of_b in _pieces(a, b):
            error = np.subtract(of_a, of_b, dtype=np.float64)  # of two large values it may be beyond float32
            squared += float(np.einsum("nk,nk->", error, error))
            power += float(np.einsum("nk,nk->", of_a, of_a, dtype=np.float64))
    a.give_back()
    b.give_back()
    return TensorDifference(a.name, a.type.name, b.type.name, math.prod(a.shape), _relative(squared, power))


def _relative(squared: float, power: float) -> float:
    if not math.isfinite(squared + power):
        return math.nan
    return math.sqrt(squared / power) if power else math.inf if squared else 0.0


def _alone(tensor: Tensor, *, in_a: bool) -> TensorDifference:
    type_a, type_b = (tensor.type.name, None) if in_a else (None, tensor.type.name)
    return TensorDifference(tensor.name, type_a, type_b, math.prod(tensor.shape), math.inf)


def _pieces(
    a: Tensor, b: Tensor
) -> Iterator[
    tuple[np.ndarray[tuple[int, int], np.dtype[np.float32]], np.ndarray[tuple[int, int], np.dtype[np.float32]]]
]:
    rows_a, rows_b = a.rows(), b.rows()
    step = max(1, CHUNK_VALUES // a.shape[-1])
    for start in range(0, len(rows_a), step):
        yield (
            dequantize(rows_a[start : start + step], a.type).reshape(-1, a.shape[-1]),
            dequantize(rows_b[start : start + step], b.type).reshape(-1, b.shape[-1]),
        )
