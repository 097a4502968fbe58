"""From the sequences that draw a token to the arrays of a `SamplePlan`.

The arithmetic is the backend's; here the parameters of each sequence, what its processors ask for and the key of its
draw are laid out side by side. What does not change while the same sequences draw, which is nearly every step, is
kept: their parameters, and the empty lists of draws that nothing shapes.

Legend: N draws, V vocabulary, W = ceil(V / 32) words of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from openherd.engine.kept import KeptArray
from openherd.engine.protocols import F32, I32, U32, DenseBias, LogitsProcessor, Mask, SamplePlan, SparseBias
from openherd.engine.sequence import Sequence, TokenCounts

_Scalar = TypeVar("_Scalar", bound=np.generic)
_NO_COUNTS = TokenCounts(())
_NO_BIAS: tuple[I32, F32] = (np.empty(0, np.int32), np.empty(0, np.float32))


NO_DRAFT = -1  # equal to no token


@dataclass(frozen=True, slots=True)
class SeedNoise:
    """The default keys: the seed, and a counter no other draw of that seed has. Words are 64 bits."""

    seed: int

    def key(self, ids: object, choice: int, position: int) -> tuple[int, int]:
        return self.seed, choice << 32 | position


@dataclass(slots=True)
class Shape:
    """All that shapes one draw besides its parameters: the processors' answers combined."""

    mask: U32 | None = None  # tokens every mask allows
    dense: F32 | None = None  # sum
    bias_ids: list[I32] = field(default_factory=list)
    bias_values: list[F32] = field(default_factory=list)

    def sparse(self) -> tuple[I32, F32]:
        """The sparse biases as one list in which an id stands once, its values summed."""
        ids, where = np.unique(np.concatenate(self.bias_ids), return_inverse=True)
        return ids, np.bincount(where, np.concatenate(self.bias_values)).astype(np.float32)


@dataclass(slots=True)
class Draw:
    """One token to be drawn."""

    seq: Sequence
    row: int  # logit row of the step
    key: tuple[int, int]
    shape: Shape | None
    counts: TokenCounts | None
    draft: int = NO_DRAFT  # the token guessed here, if one was


class SamplePlanner:
    """Plans the draws of each step."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._num_words = -(-vocab_size // 32)
        last_bits = vocab_size % 32
        self._last_word = np.uint32((1 << last_bits) - 1 if last_bits else 0xFFFFFFFF)
        self._rows = KeptArray()
        self._planned: list[Sequence] = []  # whose draws the arrays below are for
        self._params = _params([])
        self._unshaped = self._shaping([])

    def prepare(self, seq: Sequence, row: int, drafts: Tokens[int] = ()) -> list[Draw]:
        """The sequence's next draw, from this logit row, then those that follow each draft, from the rows after it.

        Raises whatever its processors or noise source raise for the next draw, and ValueError for answers that cannot
        be used. What they raise for a draft, which plain decoding may never show them, only ends the drafts.
        """
        draws = [self._draw(seq, row, seq.ids, seq.request.processors, seq.counts)]
        if drafts:
            with suppress(Exception):
                self._follow(draws, drafts)
        return draws

    def _follow(self, draws: list[Draw], drafts: Tokens[int]) -> None:
        """Append the draw after each draft, as it is when the drafts before it were drawn; processors see it in forks.

        Ends where only a stop token could follow: the caller may end the answer there without it.
        """
        seq, ids = draws[0].seq, list(draws[0].seq.ids)
        processors = tuple(processor.fork() for processor in seq.request.processors)
        for token in drafts:
            last = draws[-1]
            ids.append(token)
            for processor in processors:
                processor.accept((token,))
            counts = last.counts.after(token) if last.counts is not None else None
            draw = self._draw(seq, last.row + 1, ids, processors, counts)
            if processors and draw.shape is not None and not self._allows_some(draw.shape, besides=seq.stop_ids):
                return
            last.draft = token
            draws.append(draw)

    def _draw(
        self,
        seq: Sequence,
        row: int,
        ids: Tokens[int],
        processors: tuple[LogitsProcessor, ...],
        counts: TokenCounts | None,
    ) -> Draw:
        first, second = seq.noise.key(ids, seq.request.choice, len(ids))
        if not (0 <= first < 2**64 and 0 <= second < 2**64):
            raise ValueError("a draw's key is two unsigned 64-bit numbers")
        return Draw(seq, row, (first, second), self._shape(seq.request.params.logit_bias, processors, ids), counts)

    def plan(self, draws: list[Draw]) -> SamplePlan:
        """The plan of these draws, in their order."""
        seqs = [draw.seq for draw in draws]
        if seqs != self._planned:
            unshaped = self._shaping([Draw(seq, 0, (0, 0), None, None) for seq in seqs])
            self._planned, self._params, self._unshaped = seqs, _params(seqs), unshaped
        shaped = [draw for draw in draws if draw.shape is not None or draw.counts is not None]
        return SamplePlan(
            rows=self._rows.of([draw.row for draw in draws]),
            keys=np.array([draw.key for draw in draws], np.uint64),
            **(self._shaping(draws) if shaped else self._unshaped),
            **self._params,
        )

    def _shaping(self, draws: list[Draw]) -> _Shaping:
        shapes = [draw.shape for draw in draws]
        counts = [draw.counts if draw.counts is not None else _NO_COUNTS for draw in draws]
        sparse = [shape.sparse() if shape is not None and shape.bias_ids else _NO_BIAS for shape in shapes]
        mask_rows, masks = _stack([shape.mask if shape else None for shape in shapes], self._num_words, np.uint32)
        dense_rows, dense = _stack([shape.dense if shape else None for shape in shapes], self._vocab_size, np.float32)
        return {
            "count_starts": _starts([len(c.ids) for c in counts]),
            "count_ids": _join([c.ids for c in counts], np.int32),
            "counts": _join([c.counts for c in counts], np.int32),
            "bias_starts": _starts([len(ids) for ids, _ in sparse]),
            "bias_ids": _join([ids for ids, _ in sparse], np.int32),
            "bias_values": _join([values for _, values in sparse], np.float32),
            "mask_rows": mask_rows,
            "masks": masks,
            "dense_rows": dense_rows,
            "dense": dense,
        }

    def _shape(self, bias: dict[int, float], processors: tuple[LogitsProcessor, ...], ids: Tokens[int]) -> Shape | None:
        """Ask the processors what may follow these tokens. None: nothing shapes the draw."""
        if not bias and not processors:
            return None
        shape = Shape()
        if bias:
            self._add(shape, SparseBias(np.array(list(bias), np.int32), np.array(list(bias.values()), np.float32)))
        for processor in processors:
            self._add(shape, processor.next(ids))
        if not self._allows_some(shape):
            raise ValueError("the logits processors allow no token")  # a backend could not tell whose fault it is
        return shape

    def _add(self, shape: Shape, asked: Mask | SparseBias | DenseBias | None) -> None:
        if asked is None:
            return
        if isinstance(asked, Mask):
            bits = _checked("a mask", asked.bits, np.uint32, self._num_words)
            shape.mask = bits if shape.mask is None else shape.mask & bits
        elif isinstance(asked, DenseBias):
            values = _checked("a dense bias", asked.values, np.float32, self._vocab_size)
            shape.dense = values if shape.dense is None else shape.dense + values
        elif isinstance(asked, SparseBias):
            ids = _checked("ids of a sparse bias", asked.ids, np.int32, len(asked.values))
            values = _checked("values of a sparse bias", asked.values, np.float32, len(ids))
            if len(ids) and (ids.min() < 0 or ids.max() >= self._vocab_size):
                raise ValueError(f"a sparse bias names a token outside 0..{self._vocab_size - 1}")
            shape.bias_ids.append(ids)
            shape.bias_values.append(values)
        else:
            raise ValueError(f"a logits processor answered {type(asked).__name__}, not Mask, SparseBias or DenseBias")

    def _allows_some(self, shape: Shape, besides: frozenset[int] = frozenset()) -> bool:
        """Whether a token is left to draw, not counting those `besides`."""
        excluded = [ids[values == -np.inf] for ids, values in zip(shape.bias_ids, shape.bias_values, strict=True)]
        if shape.dense is None and not any(map(len, excluded)) and not besides:
            return shape.mask is None or bool(shape.mask[:-1].any() or shape.mask[-1] & self._last_word)
        allowed = np.ones(self._vocab_size, bool)
        if shape.mask is not None:
            allowed &= np.unpackbits(shape.mask.view(np.uint8), count=self._vocab_size, bitorder="little").view(bool)
        if shape.dense is not None:
            allowed &= shape.dense > -np.inf
        for ids in excluded:
            allowed[ids] = False
        allowed[list(besides)] = False
        return bool(allowed.any())


def _checked(what: str, array: NDArray[_Scalar], dtype: type[_Scalar], length: int) -> NDArray[_Scalar]:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != (length,):
        raise ValueError(f"{what} must be {length} values of type {np.dtype(dtype)}")
    if array.dtype.kind == "f" and not np.less(array, np.inf).all():
        raise ValueError(f"{what} holds a NaN or an infinity that is not negative")
    return np.ascontiguousarray(array)


class _Shaping(TypedDict):
    """What shapes each draw besides its parameters."""

    count_starts: I32
    count_ids: I32
    counts: I32
    bias_starts: I32
    bias_ids: I32
    bias_values: F32
    mask_rows: I32
    masks: U32
    dense_rows: I32
    dense: F32


class _Params(TypedDict):
    temperature: F32
    top_k: I32
    top_p: F32
    min_p: F32
    repetition_penalty: F32
    presence_penalty: F32
    frequency_penalty: F32
    num_top: I32


def _params(seqs: list[Sequence]) -> _Params:
    """The sampling parameters of each draw, [N] each."""
    params = [seq.request.params for seq in seqs]
    return {
        "temperature": np.array([p.temperature for p in params], np.float32),
        "top_k": np.array([p.top_k for p in params], np.int32),
        "top_p": np.array([p.top_p for p in params], np.float32),
        "min_p": np.array([p.min_p for p in params], np.float32),
        "repetition_penalty": np.array([p.repetition_penalty for p in params], np.float32),
        "presence_penalty": np.array([p.presence_penalty for p in params], np.float32),
        "frequency_penalty": np.array([p.frequency_penalty for p in params], np.float32),
        "num_top": np.array([-1 if p.logprobs is None else p.logprobs for p in params], np.int32),
    }


def _starts(lengths: list[int]) -> I32:
    """Where each of the ragged lists begins, and where the last ends: [N+1]."""
    starts = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=starts[1:])
    return starts


def _join(parts: list[NDArray[_Scalar]], dtype: type[_Scalar]) -> NDArray[_Scalar]:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _stack(arrays: list[NDArray[_Scalar] | None], width: int, dtype: type[_Scalar]) -> tuple[I32, NDArray[_Scalar]]:
    """The arrays that are there as rows, and for each of `arrays` its row, -1 where there is none."""
    there = [array for array in arrays if array is not None]
    if not there:
        return np.full(len(arrays), -1, np.int32), np.empty((0, width), dtype)
    rows = np.cumsum([array is not None for array in arrays], dtype=np.int32) - 1
    return np.where([array is not None for array in arrays], rows, -1).astype(np.int32), np.stack(there)
