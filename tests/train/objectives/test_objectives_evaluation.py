"""What is measured on held-out data: means over learnt tokens or pairs, bytes of the learnt text, and samples."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from openherd.errors import InputError
from openherd.train.batch import Batch
from openherd.train.encoding import Encoded
from openherd.train.evaluation import TEXT_PROMPT, Evaluation, Sample, Samples
from openherd.train.model.decoder import Decoder
from openherd.train.objectives.dpo import Dpo
from openherd.train.objectives.reference import Reference
from openherd.train.parallel.world import World
from openherd.train.token_file import Source, TokenFolder, TokenWriter, open_tokens
from tests.train.objectives import tiny
from tests.train.objectives.models import pair_rows, place, tiny_model
from tests.train.objectives.steps import losses
from tests.train.objectives.test_objectives_dpo import answer_logprob
from tests.train.objectives.tiny_tokenizer import END, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
ALONE = World.single()


class Rank(World):
    """One of two processes; sums go through `total`, as if the other's were added."""

    def __init__(self, rank: int) -> None:
        super().__init__(torch.device("cpu"))
        self._rank = rank
        self.sums: list[float] = []

    rank = property(lambda self: self._rank)  # type: ignore[assignment]
    size = property(lambda self: 2)  # type: ignore[assignment]

    def sum(self, x: float) -> float:  # type: ignore[override]
        self.sums.append(x)
        return x


def folder(path: Path, rows: list[tuple[list[int], int]], kind: str = "documents") -> TokenFolder:
    step = 2 if kind == "preferences" else 1
    with TokenWriter(path, kind, vocab_size=tiny.VOCAB, tokenizer="t", template=None) as writer:  # type: ignore[arg-type]
        writer.begin(Source("rows", "0" * 64))
        for first in range(0, len(rows), step):
            writer.add([encoded(*row) for row in rows[first : first + step]])
    return open_tokens(path)


def encoded(ids: list[int], given: int) -> Encoded:
    return Encoded(np.array(ids, np.int32), (np.arange(len(ids)) >= given).astype(np.uint8))


def pair_folder(path: Path) -> TokenFolder:
    return folder(path, [(prompt + end, len(prompt)) for prompt, *both in tiny.pairs() for end in both], "preferences")


def test_loss_and_bits_per_byte_are_of_the_learnt_tokens(tmp_path: Path) -> None:
    model = tiny_model()
    rows = [(ids[:given] + ids[given:] + [END], given) for ids, given in tiny.sft_rows()[:5]]
    evaluation = Evaluation([folder(tmp_path / "held", rows)], TOKENIZER, ALONE, seq_len=32, micro_rows=2)
    found = evaluation.measure(model)
    nll = -sum(answer_logprob(model, ids[:given], ids[given:]) for ids, given in rows)
    learnt = sum(len(ids) - given for ids, given in rows)
    assert found["loss"] == pytest.approx(nll / learnt, abs=1e-6)
    num_bytes = learnt - len(rows)  # one a character; an end has none
    assert found["bits_per_byte"] == pytest.approx(nll / math.log(2) / num_bytes, abs=1e-6)
    assert found.keys() == {"loss", "bits_per_byte"}


def test_a_long_text_is_measured_in_pieces_and_every_token_once(tmp_path: Path) -> None:
    model = tiny_model()
    ids = [2 + n % 62 for n in tiny.integers("long text", 41)]
    held = folder(tmp_path / "held", [(ids, 1)])
    found = Evaluation([held], TOKENIZER, ALONE, seq_len=16, micro_rows=4).measure(model)
    pieces = [ids[0:17], ids[16:33], ids[32:41]]
    nll = -sum(answer_logprob(model, piece[:1], piece[1:]) for piece in pieces)
    assert found["loss"] == pytest.approx(nll / 40, abs=1e-6)


def test_processes_share_the_work_and_get_the_same(tmp_path: Path) -> None:
    model = tiny_model()
    held = [folder(tmp_path / "held", tiny.sft_rows()[:5])]  # three batches of two for two processes
    whole = Evaluation(held, TOKENIZER, ALONE, seq_len=32, micro_rows=2).measure(model)
    ranks = [Rank(0), Rank(1)]
    for rank in ranks:
        Evaluation(held, TOKENIZER, rank, seq_len=32, micro_rows=2).measure(model)
    num_bytes, loss, weight = (sum(parts) for parts in zip(*(rank.sums for rank in ranks), strict=True))
    assert weight == sum(len(ids) - given for ids, given in tiny.sft_rows()[:5])
    assert loss / weight == pytest.approx(whole["loss"], rel=1e-6)
    assert loss / math.log(2) / num_bytes == pytest.approx(whole["bits_per_byte"], rel=1e-6)


def test_preferences_are_judged_by_the_objective(tmp_path: Path) -> None:
    model = tiny_model(lora=True)
    objective = Dpo(pair_rows(), Reference.of(model))  # type: ignore[arg-type]
    held = [pair_folder(tmp_path / "pairs")]
    evaluation = Evaluation(held, TOKENIZER, ALONE, seq_len=32, micro_rows=3, preferences=objective)
    before = evaluation.measure(model)
    assert before["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert before["accuracy"] == 0  # nothing is preferred yet
    list(losses(model, objective, 1e-2, steps=20))
    after = evaluation.measure(model)
    assert after["accuracy"] == 1
    assert after["loss"] < before["loss"] - 0.1
    assert after["margin"] == pytest.approx(after["reward_chosen"] - after["reward_rejected"], abs=1e-5)


def test_measuring_changes_no_weight_and_leaves_no_gradient(tmp_path: Path) -> None:
    model = tiny_model()
    evaluation = Evaluation([folder(tmp_path / "h", tiny.sft_rows())], TOKENIZER, ALONE, seq_len=32, micro_rows=4)
    first = evaluation.measure(model)
    assert evaluation.measure(model) == first
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(p, torch.from_numpy(tiny.weights()[name])) for name, p in model.named_parameters())


def test_it_stops_when_told(tmp_path: Path) -> None:
    model, calls = tiny_model(), []
    evaluation = Evaluation([folder(tmp_path / "h", tiny.sft_rows())], TOKENIZER, ALONE, seq_len=32, micro_rows=4)
    evaluation.measure(model, lambda: calls.append(1) is None)
    assert len(calls) == 1


def test_much_data_is_looked_at_in_part_evenly(tmp_path: Path) -> None:
    rows = tiny.sft_rows()
    held = folder(tmp_path / "held", rows)
    evaluation = Evaluation(
        [held], TOKENIZER, ALONE, seq_len=32, micro_rows=40, max_learnt=math.ceil(held.manifest.learnt / 4)
    )
    (batch,) = evaluation._batches
    assert {int(row[0]) for row in batch.token_ids} == {ids[0] for ids, _ in rows[::4]}


def test_the_wrong_kind_of_data_and_data_without_anything_to_learn_are_refused(tmp_path: Path) -> None:
    documents, pairs = folder(tmp_path / "d", tiny.sft_rows()), pair_folder(tmp_path / "p")
    with pytest.raises(InputError, match=r"data\.evaluation must hold documents"):
        Evaluation([pairs], TOKENIZER, ALONE, seq_len=32, micro_rows=2)
    objective = Dpo(pair_rows(), Reference(None))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"data\.evaluation must hold preferences"):
        Evaluation([documents], TOKENIZER, ALONE, seq_len=32, micro_rows=2, preferences=objective)
    with pytest.raises(InputError, match="holds nothing that would be learnt"):
        Evaluation([folder(tmp_path / "n", [([5, 6, 7], 3)])], TOKENIZER, ALONE, seq_len=32, micro_rows=2)


def test_samples_go_on_from_what_is_given_with_the_likeliest_tokens(tmp_path: Path) -> None:
    model = tiny_model()
    rows = tiny.sft_rows()
    held = [folder(tmp_path / "held", rows[:4])]
    written = Samples(held, TOKENIZER, count=2, max_tokens=6).write(model, ALONE, threads=1)
    assert [sample.prompt for sample in written] == [TOKENIZER.decode(ids[:given]) for ids, given in (rows[0], rows[2])]
    assert written[0] == Sample(written[0].prompt, TOKENIZER.decode(likeliest(model, rows[0][0][: rows[0][1]], 6)))
    assert written == Samples(held, TOKENIZER, count=2, max_tokens=6).write(model, ALONE, threads=1)


def test_samples_of_text_begin_with_its_first_tokens_and_must_fit(tmp_path: Path) -> None:
    ids = [2 + n % 62 for n in tiny.integers("long text", 200)]
    held = [folder(tmp_path / "held", [(ids, 1), (ids, 100)])]  # 100 given tokens are more than the context of 64
    written = Samples(held, TOKENIZER, count=2, max_tokens=4).write(tiny_model(), ALONE, threads=1)
    assert [sample.prompt for sample in written] == [TOKENIZER.decode(ids[:TEXT_PROMPT])]


def likeliest(model: Decoder, given: list[int], count: int) -> list[int]:
    ids = list(given)
    while len(ids) < len(given) + count and END not in ids[len(given) :]:
        with torch.no_grad():
            ids.append(int(model.logits(model(Batch.from_arrays(place([([*ids, 0], 1)]))))[0, -1].argmax()))
    return ids[len(given) :]
