"""What quantising has cost, as a document and as lines for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openherd.quant.types import PLAIN_TYPES
from openherd.store.progress import megabytes
from openherd.workshop.divergence import Divergence, document, lines
from openherd.workshop.quantize.tensors import TensorResult

SHOWN_TENSORS = 8


@dataclass(frozen=True, slots=True)
class Evaluation:
    text: str
    held_out: bool  # the text is not the one that was calibrated on
    divergence: Divergence | None
    why_not: str | None


@dataclass(frozen=True, slots=True)
class Report:
    source: Path
    source_bytes: int
    source_types: tuple[str, ...]
    path: Path
    recipe: Mapping[str, Any]
    tensors: Sequence[TensorResult]
    seconds: float  # until the file was there; without the evaluation
    evaluation: Evaluation | None

    @property
    def bits_per_weight(self) -> float:
        return 8 * sum(t.nbytes for t in self.tensors) / sum(t.n_values for t in self.tensors)

    @property
    def requantized(self) -> bool:
        """Blocks were made of blocks, whose own error is not measured here."""
        return any(tensor.source_type not in PLAIN_TYPES for tensor in self.worst)

    @property
    def worst(self) -> list[TensorResult]:
        """Of the tensors that were changed, the largest relative error first."""
        changed = [tensor for tensor in self.tensors if tensor.type != tensor.source_type]
        return sorted(changed, key=lambda tensor: -tensor.relative_error)

    @property
    def fallbacks(self) -> list[TensorResult]:
        """Tensors whose rows are not whole blocks of the type that the mix wanted."""
        return [tensor for tensor in self.tensors if tensor.type != tensor.wanted]

    @property
    def _coverage(self) -> str:
        """Of how many tensors the importance is, where not of all that have codes to be chosen."""
        coded = [tensor for tensor in self.worst if tensor.type not in PLAIN_TYPES]
        num_weighted = sum(tensor.weighted for tensor in coded)
        return "" if num_weighted == len(coded) else f", for {num_weighted} of {len(coded)} tensors"

    def document(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "source": str(self.source),
            "source_bytes": self.source_bytes,
            "bytes": self.path.stat().st_size,
            "bits_per_weight": self.bits_per_weight,
            "requantized": self.requantized,
            "seconds": self.seconds,
            "recipe": dict(self.recipe),
            "fallbacks": [{"name": t.name, "wanted": t.wanted, "type": t.type} for t in self.fallbacks],
            "evaluation": _evaluation(self.evaluation),
            "tensors": [
                {
                    "name": t.name,
                    "source_type": t.source_type,
                    "type": t.type,
                    "bytes": t.nbytes,
                    "weighted": t.weighted,
                    "relative_error": t.relative_error,
                }
                for t in self.worst
            ],
        }

    def lines(self) -> Iterator[str]:
        size = self.path.stat().st_size
        yield f"{self.path}  {self.recipe['mix']}"
        yield f"  size             {megabytes(size)}, {size / self.source_bytes:.1%} of {megabytes(self.source_bytes)}"
        yield f"  bits a weight    {self.bits_per_weight:.3f}"
        yield f"  types            {', '.join(f'{n} {name}' for name, n in self.recipe['types'].items())}"
        if self.fallbacks:
            pairs = sorted({f"{t.wanted} became {t.type}" for t in self.fallbacks})
            yield f"  other types      {len(self.fallbacks)} tensors have rows of no whole blocks: {', '.join(pairs)}"
        if importance := self.recipe["importance"]:
            texts = ", ".join(importance["texts"]) or "a text it does not name"
            yield f"  importance       {importance['chunks']} chunks of {texts}{self._coverage}"
        if not self.worst:
            yield "  unchanged        no tensor had more bits than it would get"
        if self.requantized:
            yield "  quantised twice  the source had lost precision already; what follows is the second loss alone"
        if self.evaluation is not None:
            yield from _evaluation_lines(self.evaluation)
        yield from _worst_lines(self.worst[:SHOWN_TENSORS])


def _evaluation_lines(evaluation: Evaluation) -> Iterator[str]:
    found = evaluation.divergence
    if found is None:
        yield f"  not compared     {evaluation.why_not}"
        return
    note = "" if evaluation.held_out else " (the text it was calibrated on: not held out)"
    yield f"  compared on      {evaluation.text}, {found.positions} positions in {found.chunks} chunks{note}"
    yield from lines(found)


def _evaluation(evaluation: Evaluation | None) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    found = evaluation.divergence
    return {
        "text": evaluation.text,
        "held_out": evaluation.held_out,
        "not_compared": evaluation.why_not,
        "divergence": None if found is None else document(found),
    }


def _worst_lines(tensors: Sequence[TensorResult]) -> Iterator[str]:
    if tensors:
        width = max(len(tensor.name) for tensor in tensors)
        yield "  worst tensors    error of the weights, root mean square, relative"
        for tensor in tensors:
            yield f"    {tensor.name:{width}}  {tensor.source_type} to {tensor.type:5} {tensor.relative_error:8.3%}"
