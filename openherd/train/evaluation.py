"""What a model in training is worth on data that it does not learn from: loss, bits per byte, preferences, samples.

All of it is a function of the weights and the data: nothing is drawn at random. Documents longer than a row are cut as
they are for training (see `pieces`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from openherd.errors import InputError
from openherd.options import SamplingParams
from openherd.train.batch import Batch
from openherd.train.encoding import Encoded
from openherd.train.generation import Generation
from openherd.train.loss import nll_sum
from openherd.train.model.present_weights import PresentWeights
from openherd.train.packing import PackedRows
from openherd.train.pieces import Pieces, cut, cut_pairs

if TYPE_CHECKING:
    from openherd.tokenizers import Tokenizer
    from openherd.train.model.decoder import Decoder
    from openherd.train.objectives.dpo import Dpo
    from openherd.train.parallel.world import World
    from openherd.train.token_file import TokenFolder

MAX_LEARNT_TOKENS = 1 << 16
"""Learnt tokens that an evaluation looks at unless told otherwise: evenly spread documents if there are more."""


class Evaluation:
    """Held-out folders: of documents, or of preferences with the objective that judges pairs."""

    def __init__(
        self,
        folders: Sequence[TokenFolder],
        tokenizer: Tokenizer,
        world: World,
        *,
        seq_len: int,
        micro_rows: int,
        preferences: Dpo | None = None,
        max_learnt: int = MAX_LEARNT_TOKENS,
    ) -> None:
        """Raises `InputError` when the folders hold nothing to learn, or are not of the kind that is judged."""
        kind = "documents" if preferences is None else "preferences"
        if {folder.manifest.kind for folder in folders} != {kind}:
            raise InputError(f"data.evaluation must hold {kind}", hint="prepare it as the training data is prepared")
        self._world, self._preferences, self._bytes = world, preferences, _bytes_of_tokens(tokenizer)
        if preferences is None:
            pieces = [piece for (piece,) in _spread(folders, cut, seq_len, 1, max_learnt)]
            self._batches = list(_batches(sorted(pieces, key=_length, reverse=True), micro_rows))
        else:
            ends = [end for pair in _spread(folders, cut_pairs, seq_len, 2, max_learnt) for end in pair]
            self._batches = list(_batches(ends, max(2, micro_rows // 2 * 2)))
        if not any(batch.num_learnt for batch in self._batches):
            raise InputError("data.evaluation holds nothing that would be learnt")

    @property
    def num_turns(self) -> int:
        """How many batches each process computes in `measure`, which asks `stop` behind each."""
        return -(-len(self._batches) // self._world.size)

    @torch.no_grad()
    def measure(self, model: Decoder, stop: Callable[[], bool] = lambda: False) -> dict[str, float]:
        """Means over all of the data, the same on every process; processes share the work, and all must call it.

        Documents: `loss` per learnt token in nats, and `bits_per_byte` of the learnt text, comparable between
        tokenizers; an end token costs bits and has no bytes. Preferences: `loss` per pair and the metrics of `Dpo`.
        Where `stop` says so on any process, the means are over the batches until then.
        """
        sums: Counter[str] = Counter()
        for turn in range(self.num_turns):
            at = turn * self._world.size + self._world.rank  # behind the last: as the others compute, so must this one
            found = self._sums(model, self._batches[min(at, len(self._batches) - 1)].to(self._world.device))
            sums.update(found if at < len(self._batches) else dict.fromkeys(found, 0.0))
            if self._world.any(stop()):
                break
        return _means({name: self._world.sum(value) for name, value in sorted(sums.items())})

    def _sums(self, model: Decoder, batch: Batch) -> dict[str, float]:
        """Over one batch: `weight`, `loss` and what else is to be averaged by weight; `bytes` of what is learnt."""
        if self._preferences is not None:
            step = self._preferences.loss(model, batch, 1.0)
            metrics = {name: float(value) for name, value in step.metrics.items()}
            return {**metrics, "loss": float(step.loss), "weight": self._preferences.weight(batch)}
        learnt = batch.targets[batch.weights > 0].cpu().numpy()
        loss = float(nll_sum(model, model(batch), batch))
        return {"loss": loss, "weight": batch.num_learnt, "bytes": float(self._bytes[learnt].sum())}


def _means(sums: dict[str, float]) -> dict[str, float]:
    weight, num_bytes = max(sums.pop("weight"), 1.0), sums.pop("bytes", 0.0)
    means = {name: value / weight for name, value in sums.items()}
    return means | {"bits_per_byte": sums["loss"] / math.log(2) / num_bytes} if num_bytes else means


@dataclass(frozen=True, slots=True)
class Sample:
    prompt: str
    text: str


class Samples:
    """What the model goes on to write after a few held-out beginnings, by the engine, always the likeliest token.

    A beginning that does not leave room for a token in the model's context is left out.
    """

    def __init__(
        self, folders: Sequence[TokenFolder], tokenizer: Tokenizer, *, count: int = 3, max_tokens: int = 64
    ) -> None:
        """The beginnings are what is given before the first learnt token; of text of which all is learnt, its first
        `TEXT_PROMPT` tokens."""
        self._tokenizer, self._max_tokens = tokenizer, max_tokens
        documents = [folder[0 if at == 0 else len(folder) * at // count] for folder in folders for at in range(count)]
        self._prompts = list(dict.fromkeys(map(_beginning, documents)))[:count]

    def write(self, model: Decoder, world: World, *, threads: int | None = None) -> list[Sample]:
        """Of the present weights; an empty list on all processes but the main one. Every process must call it."""
        weights = PresentWeights(model)
        prompts = [prompt for prompt in self._prompts if len(prompt) < model.config.max_seq_len]
        if not world.is_main or not prompts:
            return []
        params = SamplingParams(max_tokens=self._max_tokens, temperature=0.0)
        context = min(max(map(len, prompts)) + self._max_tokens, model.config.max_seq_len)
        stops = sorted(self._tokenizer.stop_ids)
        with Generation(model.config, weights, context=context, stop_ids=stops, threads=threads) as generation:
            answers = generation.answers(prompts, [params] * len(prompts))
        return [
            Sample(self._tokenizer.decode(prompt), self._tokenizer.decode(answer.token_ids, continues=True))
            for prompt, (answer,) in zip(prompts, answers, strict=True)
        ]


TEXT_PROMPT = 16
"""Tokens of a text that a sample goes on from."""


def _spread(
    folders: Sequence[TokenFolder], cutting: Callable[[TokenFolder, int], Pieces], seq_len: int, each: int, most: int
) -> Iterator[list[Encoded]]:
    """Units of `each` pieces: all of them, or evenly spread ones with about `most` tokens to learn."""
    stride = max(1, math.ceil(sum(folder.manifest.learnt for folder in folders) / most))
    for folder in folders:
        pieces = cutting(folder, seq_len)
        for first in range(0, len(pieces), each * stride):
            starts = pieces.start[first : first + each].tolist()
            spans = [
                slice(at, at + int(n) + 1) for at, n in zip(starts, pieces.length[first : first + each], strict=True)
            ]
            yield [Encoded(folder.tokens[span], folder.mask[span]) for span in spans]


def _batches(documents: Sequence[Encoded], rows: int) -> Iterator[Batch]:
    """Documents in their order, one a row."""
    for first in range(0, len(documents), rows):
        some = documents[first : first + rows]
        packed = PackedRows.empty(len(some), max(map(_length, some)) - 1)
        for row, document in enumerate(some):
            packed.place(row, 0, document.ids, document.mask)
        yield Batch.from_arrays(packed)


def _length(document: Encoded) -> int:
    return len(document.ids)


def _beginning(document: Encoded) -> tuple[int, ...]:
    given = int(np.argmax(document.mask)) if document.mask.any() else 0
    return tuple(document.ids[: given if given > 1 else TEXT_PROMPT].tolist())


def _bytes_of_tokens(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """[V] bytes that each token stands for in text; 0 for control tokens."""
    ids = range(tokenizer.vocab_size)
    return np.array([0 if tokenizer.is_control(one) else len(tokenizer.token_bytes(one)) for one in ids], np.int64)
