"""What is handed in from above: processors that shape draws, key sources, and taps that see activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from openherd.engine.protocols import F32, I32, DenseBias, Mask, SparseBias, TapSite, Verdict
from openherd.engine.sequence import Request
from openherd.errors import InputError
from openherd.messages import FinishReason
from openherd.options import SamplingParams
from tests.unit.engine.tiny_model import TINY, drain, prompt, request, run, tiny_engine
from tests.unit.engine.token_cache_backend import VOCAB, token_cache_engine

WORDS = -(-TINY.vocab_size // 32)


def allow(*tokens: int) -> Mask:
    bits = np.zeros(WORDS, np.uint32)
    for token in tokens:
        bits[token // 32] |= np.uint32(1 << token % 32)
    return Mask(bits)


def favour(*tokens: int, by: float = 1000.0) -> SparseBias:
    return SparseBias(np.array(tokens, np.int32), np.full(len(tokens), by, np.float32))


@dataclass
class Scripted:
    """Answers `next` with whatever `shapes` says for the n-th draw (the last one on and on); remembers what it saw."""

    shapes: list[object]
    accepted: list[int] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    fail_on_accept: bool = False

    def next(self, ids: Sequence[int]) -> object:
        self.seen = list(ids)
        shape = self.shapes[min(len(self.accepted), len(self.shapes) - 1)]
        if isinstance(shape, Exception):
            raise shape
        return shape

    def accept(self, ids: Sequence[int]) -> None:
        if self.fail_on_accept:
            raise RuntimeError("cannot accept")
        self.accepted += ids

    def rollback(self, n: int) -> None:
        del self.accepted[len(self.accepted) - n :]

    def fork(self) -> Scripted:
        return Scripted(self.shapes, list(self.accepted), list(self.seen))


def shaped(*processors: Scripted, max_tokens: int = 6, **params: object) -> Request:
    return replace(request(20, 1, max_tokens=max_tokens, **params), processors=processors)


def test_a_sparse_bias_steers_every_draw() -> None:
    """A bias of 1000 outweighs any logit and any noise, so the answer is what the processor wants."""
    processor = Scripted([favour(3), favour(50), favour(100), favour(7)])
    answer = run(tiny_engine(), [shaped(processor)])[0]
    assert answer.token_ids == [3, 50, 100, 7, 7, 7]
    assert processor.accepted == answer.token_ids
    assert processor.seen == [*prompt(20, 1), *answer.token_ids[:-1]]


def test_a_processor_shapes_its_own_request_only() -> None:
    neighbours = [request(20 + i, i) for i in range(4)]
    alone = [run(tiny_engine(), [neighbour])[0] for neighbour in neighbours]
    together = run(tiny_engine(), [shaped(Scripted([allow(5)])), *neighbours])
    assert together[0].token_ids == [5] * 6
    assert [answer.bits for answer in together[1:]] == [answer.bits for answer in alone]


def test_masks_of_several_processors_intersect_and_biases_add() -> None:
    assert (
        run(tiny_engine(), [shaped(Scripted([allow(5, 9, 70)]), Scripted([allow(9, 70)]), Scripted([allow(70, 5)]))])[
            0
        ].token_ids
        == [70] * 6
    )
    dense = np.zeros(TINY.vocab_size, np.float32)
    dense[[11, 12]] = 600.0
    parts = [Scripted([DenseBias(dense)]), Scripted([favour(12, by=500)]), Scripted([favour(12, 13, by=550)])]
    # token 11: 600, 13: 550, 12: 600 + 500 + 550; the sampling parameter then takes 2000 from it
    assert run(tiny_engine(), [shaped(*parts)])[0].token_ids == [12] * 6
    assert run(tiny_engine(), [shaped(*parts, logit_bias={12: -2000.0})])[0].token_ids == [11] * 6


def test_the_biased_logprobs_are_those_of_the_raw_model() -> None:
    plain = run(tiny_engine(), [request(20, 1, logprobs=20)])[0]
    biased = run(tiny_engine(), [shaped(Scripted([favour(3)]), logprobs=20)])[0]
    assert biased.logprobs[0].top == plain.logprobs[0].top


def broken_shapes() -> list[object]:
    nan = np.full(TINY.vocab_size, np.nan, np.float32)
    no_token = np.zeros(WORDS, np.uint32)
    no_token[-1] = 1 << 31  # a bit past the vocabulary
    return [
        RuntimeError("out of order"),
        allow(),
        Mask(no_token),
        Mask(np.zeros(WORDS + 1, np.uint32)),
        Mask(np.ones(WORDS, np.int64)),
        favour(TINY.vocab_size),
        favour(-1),
        SparseBias(np.zeros(2, np.int32), np.zeros(3, np.float32)),
        DenseBias(nan),
        DenseBias(np.full(TINY.vocab_size, -np.inf, np.float32)),
        "a string",
    ]


@pytest.mark.parametrize("shape", broken_shapes(), ids=str)
def test_a_broken_processor_ends_its_own_request_and_no_other(shape: object) -> None:
    neighbour = request(25, 9)
    alone = run(tiny_engine(), [neighbour])[0]
    engine = tiny_engine()
    broken, other = run(engine, [shaped(Scripted([favour(3), shape])), neighbour])
    assert broken.finish_reason is FinishReason.ERROR
    assert broken.token_ids == [3]
    assert broken.last is not None
    assert broken.last.error
    assert other.bits == alone.bits
    assert engine.stats.num_free_blocks == engine.stats.num_total_blocks


def test_masks_and_biases_that_leave_nothing_together_are_an_error_of_the_request() -> None:
    forbidden = favour(5, 9, by=-np.inf)
    answer = run(tiny_engine(), [shaped(Scripted([allow(5, 9)]), Scripted([forbidden]))])[0]
    assert answer.last is not None
    assert answer.last.error == "ValueError: the logits processors allow no token"
    assert run(tiny_engine(), [shaped(Scripted([allow(5, 9, 11)]), Scripted([forbidden]))])[0].token_ids == [11] * 6


def test_a_processor_that_cannot_accept_ends_its_request() -> None:
    answer = run(tiny_engine(), [shaped(Scripted([None], fail_on_accept=True))])[0]
    assert answer.finish_reason is FinishReason.ERROR
    assert answer.last is not None
    assert answer.last.error == "RuntimeError: cannot accept"


def test_each_choice_has_a_processor_of_its_own() -> None:
    processor = Scripted([favour(1), favour(2), favour(3), None])
    engine = tiny_engine()
    seq_ids = engine.add_choices(shaped(processor, n=3).choices())
    answers = drain(engine)
    assert [answers[seq_id].token_ids[:3] for seq_id in seq_ids] == [[1, 2, 3]] * 3
    assert processor.accepted == answers[seq_ids[0]].token_ids


def test_finish_rolls_processors_back_to_what_is_kept() -> None:
    processor = Scripted([favour(1), favour(2), favour(3), favour(4)])
    engine = tiny_engine()
    seq_id = engine.add_request(shaped(processor))
    for _ in range(4):
        engine.step()
    engine.finish(seq_id, FinishReason.STOP, keep=1)
    assert processor.accepted == [1]


def test_preemption_does_not_show_a_processor_any_token_twice() -> None:
    processors = [Scripted([None]) for _ in range(12)]
    requests = [
        Request(prompt(17, i, vocab_size=VOCAB), SamplingParams(max_tokens=60, seed=i), processors=(processor,))
        for i, processor in enumerate(processors)
    ]
    engine = token_cache_engine(num_blocks=16)
    for processor, answer in zip(processors, run(engine, requests), strict=True):
        assert processor.accepted == answer.token_ids
    assert engine.stats.num_preemptions > 0


@dataclass(frozen=True)
class FixedKeys:
    """The same key at every position: the noise of a draw no longer depends on where it is."""

    keys: tuple[int, int] | Exception

    def key(self, ids: Sequence[int], choice: int, position: int) -> tuple[int, int]:
        if isinstance(self.keys, Exception):
            raise self.keys
        return self.keys


def test_a_key_source_decides_the_draw() -> None:
    """At a temperature at which the logits hardly count, equal keys draw equal tokens, whatever the seed and place."""
    hot = [replace(request(20, seed, temperature=100.0), noise=FixedKeys((77, 5))) for seed in (1, 2)]
    first, second = run(tiny_engine(), hot)
    assert len({*first.token_ids, *second.token_ids}) == 1
    other = run(tiny_engine(), [replace(hot[0], noise=FixedKeys((77, 6)))])[0]
    assert other.token_ids != first.token_ids
    largest = run(tiny_engine(), [replace(hot[0], noise=FixedKeys((2**64 - 1, 2**64 - 1)))])[0]
    assert largest.finish_reason is FinishReason.LENGTH


def test_the_default_keys_are_seed_choice_and_position() -> None:
    @dataclass(frozen=True)
    class Documented:
        def key(self, ids: Sequence[int], choice: int, position: int) -> tuple[int, int]:
            assert position == len(ids)
            return 42, choice << 32 | position

    requests = [replace(request(20, 1, seed=42), choice=3, noise=noise) for noise in (None, Documented())]
    default, documented = run(tiny_engine(), requests)
    assert default.bits == documented.bits


@pytest.mark.parametrize("keys", [RuntimeError("no entropy"), (-1, 0), (0, 2**64)])
def test_a_broken_key_source_ends_its_own_request(keys: tuple[int, int] | Exception) -> None:
    broken, other = run(tiny_engine(), [replace(request(20, 1), noise=FixedKeys(keys)), request(20, 2)])
    assert broken.finish_reason is FinishReason.ERROR
    assert other.finish_reason is FinishReason.LENGTH


SITES: tuple[TapSite, ...] = ((0, "resid"), (1, "down_in"))


@dataclass
class Recorder:
    """Keeps every row it is shown; can raise or give a verdict at a position."""

    rows: str = "new"
    sites: tuple[TapSite, ...] = SITES
    stop_at: int = -1
    fail_at: int = -1
    shown: dict[int, list[int]] = field(default_factory=dict)
    values: dict[TapSite, dict[int, F32]] = field(default_factory=dict)

    def observe(self, seq_id: int, positions: I32, hidden: Mapping[TapSite, F32]) -> Verdict | None:
        self.shown.setdefault(seq_id, []).extend(positions.tolist())
        for site, rows in hidden.items():
            assert len(rows) == len(positions)
            self.values.setdefault(site, {}).update(zip(positions.tolist(), rows.copy(), strict=True))
        if self.fail_at in positions:
            raise RuntimeError("probe broke")
        return Verdict("probe saw it") if self.stop_at in positions else None


def tapped(*taps: Recorder, length: int = 70) -> Request:
    return replace(request(length, 1), taps=taps)


def test_taps_on_two_layers_see_the_same_rows_alone_and_in_a_batch_of_chunks() -> None:
    alone, together = Recorder(), Recorder()
    plain = run(tiny_engine(max_batch_tokens=512), [request(70, 1)])[0]
    answer = run(tiny_engine(max_batch_tokens=512), [tapped(alone)])[0]
    assert answer.bits == plain.bits, "watching changes nothing"
    engine = tiny_engine(max_batch_tokens=16)
    run(engine, [*(request(30, i) for i in range(2, 6)), tapped(together)])
    assert engine.stats.num_split_prompts > 0
    for recorder in (alone, together):
        ((_, positions),) = recorder.shown.items()
        assert positions == list(range(70 + 11))  # the last token drawn is never computed
        assert {rows[0].shape for rows in recorder.values.values()} == {(TINY.dim,), (TINY.ffn_dim,)}
    for site in SITES:
        for position, row in alone.values[site].items():
            assert row.tobytes() == together.values[site][position].tobytes()


def test_the_last_row_is_that_which_draws() -> None:
    every, last = Recorder("new"), Recorder("last", sites=((1, "resid"), (2, "final")))
    run(tiny_engine(max_batch_tokens=32), [tapped(every, last)])
    ((_, positions),) = last.shown.items()
    assert positions == list(range(69, 70 + 11))
    assert set(last.values) == {(1, "resid"), (2, "final")}


def test_a_tap_of_all_rows_skips_the_cache_and_one_of_new_rows_does_not() -> None:
    engine = tiny_engine()
    run(engine, [request(70, 1)])
    new, every = Recorder("new"), Recorder("all")
    run(engine, [tapped(new)])
    run(engine, [tapped(every)])
    assert next(iter(new.shown.values()))[0] == 64
    assert next(iter(every.shown.values()))[0] == 0


def test_no_row_is_shown_twice_after_a_preemption() -> None:
    taps = [Recorder("all", sites=((0, "resid"),)) for _ in range(12)]
    requests = [
        Request(prompt(17, i, vocab_size=VOCAB), SamplingParams(max_tokens=60, seed=i), taps=(tap,))
        for i, tap in enumerate(taps)
    ]
    engine = token_cache_engine(num_blocks=16)
    run(engine, requests)
    assert engine.stats.num_preemptions > 0
    for tap in taps:
        assert next(iter(tap.shown.values())) == list(range(17 + 59))


def test_a_verdict_ends_the_request_before_the_next_token() -> None:
    answer, other = run(tiny_engine(), [tapped(Recorder(stop_at=72)), request(20, 5)])
    assert answer.finish_reason is FinishReason.CONTENT_FILTER
    assert len(answer.token_ids) == 3  # positions 70, 71, 72
    assert answer.last is not None
    assert answer.last.error == "probe saw it"
    assert other.finish_reason is FinishReason.LENGTH


def test_a_broken_tap_ends_its_own_request() -> None:
    broken, other = run(tiny_engine(), [tapped(Recorder(fail_at=30)), request(20, 5)])
    assert (broken.finish_reason, broken.token_ids) == (FinishReason.ERROR, [])
    assert other.finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize("site", [(2, "resid"), (-1, "resid"), (0, "nowhere")])
def test_a_tap_on_a_site_that_the_model_lacks_is_refused(site: TapSite) -> None:
    with pytest.raises(InputError, match="no tap site"):
        tiny_engine().add_request(tapped(Recorder(sites=(site,))))


def test_a_tap_may_abort_its_own_sequence() -> None:
    engine = tiny_engine()

    class Quitter(Recorder):
        def observe(self, seq_id: int, positions: I32, hidden: Mapping[TapSite, F32]) -> Verdict | None:
            engine.abort(seq_id)
            return None

    assert run(engine, [request(20, 2)])[0].finish_reason is FinishReason.LENGTH
    engine.add_request(tapped(Quitter()))
    assert drain(engine) == {}
    assert engine.stats.num_free_blocks == engine.stats.num_total_blocks
