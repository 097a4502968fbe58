"""The order of a bench: sizes from the header, fresh processes, then rounds of limits and workloads in turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.source import Checkpoint
from openherd.engine.memory import free_memory
from openherd.errors import CapacityError, OptionError
from openherd.kernels.cores import compute_threads
from openherd.kernels.machine_limits import MachineLimits
from openherd.llm import LLM
from openherd.options import BenchOptions, EngineOptions
from openherd.store.progress import Progress
from openherd.store.resolve import resolve
from openherd.tokenizers import Tokenizer
from openherd.workshop.bench import fresh_process, workloads
from openherd.workshop.bench.bounds import LIMITS, Bounds
from openherd.workshop.bench.machine import OtherWork, machine_facts
from openherd.workshop.bench.report import Measurement, Report
from openherd.workshop.bench.roofline import ModelCost, Rates
from openherd.workshop.bench.workloads import BATCHES, CHAT_CONTEXT, LONG, PREFILL, Workloads

Say = Callable[[str], None]

# Rounds end here unless their number was asked for; the default model's five take about 40 s.
BUDGET_S = 50.0
REPETITIONS, QUICK_REPETITIONS = 5, 2
# A workload that takes longer than this at best is left out of a bench that is to take a minute.
LONGEST_S = 15.0
# Beyond a gigabyte no cache of today matters, and the buffer stands beside the model.
MAX_BUFFER = 1 << 30
# Others' work that shows in the figures; and a spread of the limits, which have no reason of their own to vary.
BUSY_CORES = 0.1
BUSY_SPREAD = 0.15
WORKLOADS = ("limits", "prefill", "decode", "batch", "long", "start", "memory")


def run_bench(
    ref: str | None, options: BenchOptions, *, offline: bool, say: Say, progress: Progress | None = None
) -> Report:
    """Measure a model; `say` is told what goes on. Raises `CapacityError` when memory does not hold it."""
    unknown = sorted(set(options.only) - set(WORKLOADS))
    if unknown:
        raise OptionError(f"only must be among {', '.join(WORKLOADS)}, not {unknown[0]!r}")
    path = resolve(ref, offline=offline, progress=progress)
    checkpoint = open_checkpoint(path)
    return _Bench(path, checkpoint, options, say).run()


class _Bench:
    def __init__(self, path: Path, checkpoint: Checkpoint, options: BenchOptions, say: Say) -> None:
        self._path = path
        self._checkpoint = checkpoint
        self._options = options
        self._say = say
        self._threads = compute_threads(options.threads)
        self._cost = ModelCost.of(checkpoint)
        self._runs: defaultdict[str, list[float]] = defaultdict(list)
        self._skipped: dict[str, str] = {}
        self._context = min(checkpoint.config.max_seq_len, LONG + CHAT_CONTEXT)

    def run(self) -> Report:
        _check_memory(self._path, self._cost, self._buffer_bytes)
        others = OtherWork()
        if self._wants("memory"):
            self._measure_memory()
        limits = MachineLimits(self._buffer_bytes, _thread_counts(self._threads))
        self._sample_limits(limits)
        engine = EngineOptions(context=self._context, threads=self._threads, max_seqs=max(BATCHES))
        with LLM.load(self._path, options=engine, offline=True) as llm:
            self._rounds(limits, Workloads(llm))
            model = self._model_facts(llm.numerics_id)
        rates = self._rates()
        machine = machine_facts(self._threads) | {"read_buffer_bytes": limits.buffer_bytes}
        machine["other_work_cores"] = others.cores()
        report = Report(machine, model, list(self._measurements(rates)), self._skipped)
        report.warnings = list(_warnings(report))
        return report

    @property
    def _buffer_bytes(self) -> int:
        return min(self._cost.weight_bytes, MAX_BUFFER)

    def _wants(self, workload: str) -> bool:
        only, quick = self._options.only, self._options.quick
        return workload in only if only else not (quick and workload in ("long", "start", "memory"))

    def _rounds(self, limits: MachineLimits, work: Workloads) -> None:
        work.warm_up()
        plan = list(self._plan(work))
        asked = self._options.repetitions
        wanted = asked or (QUICK_REPETITIONS if self._options.quick else REPETITIONS)
        started = perf_counter()
        for number in range(1, wanted + 1):
            self._say(f"round {number} of {wanted}")
            self._sample_limits(limits)
            for workload in plan:
                for name, value in workload():
                    self._runs[name].append(value)
            took = (perf_counter() - started) / number
            if asked is None and number < wanted and (number + 1) * took > BUDGET_S:
                self._say(f"{number} of {wanted} repetitions in {number * took:.0f} s; --repetitions asks for more")
                return

    def _sample_limits(self, limits: MachineLimits) -> None:
        for count in _thread_counts(self._threads):
            self._runs[_read_name(count)].append(limits.read_rate(count) / 1e9)
        for count in _thread_counts(self._threads):
            self._runs[_multiply_name(count)].append(limits.multiply_rate(count) / 1e12)

    def _plan(self, work: Workloads) -> Iterator[Callable[[], Iterator[tuple[str, float]]]]:
        """The workloads of a round, without those that do not fit context or patience."""
        if self._wants("prefill") and self._fits(PREFILL, f"prefill_{PREFILL}"):
            yield work.prefill
        if self._wants("decode") and self._fits(workloads.DECODE_TOKENS, "decode"):
            yield work.decode
        for batch in BATCHES if self._wants("batch") else ():
            if self._fits(workloads.BATCH_TOKENS, f"decode_batch_{batch}"):
                yield partial(work.decode_batch, batch)
        if self._wants("long") and self._fits(LONG + workloads.LONG_TOKENS, "long context"):
            at_best = LONG * self._cost.layer_products / self._rates().multiply
            if at_best > LONGEST_S and not self._options.only:
                self._skip("long context", f"a prompt of {LONG} takes over {at_best:.0f} s; --only long measures it")
            else:
                yield work.long_context
        if self._wants("start"):
            yield self._measure_start

    def _fits(self, num_tokens: int, name: str) -> bool:
        # one token more: decoding begins from a context of one
        if num_tokens + 1 <= self._context:
            return True
        self._skip(name, f"it needs a context of {num_tokens + 1} tokens, and the model's is {self._context}")
        return False

    def _skip(self, name: str, why: str) -> None:
        self._skipped[name] = why
        self._say(f"{name} is skipped: {why}")

    def _measure_start(self) -> Iterator[tuple[str, float]]:
        yield "interpreter_start", fresh_process.interpreter_start_s()
        yield "cold_start", fresh_process.cold_start_s(self._path, self._threads)

    def _measure_memory(self) -> None:
        """Before anything is loaded here, so that both fit the machine together with nothing."""
        context = min(CHAT_CONTEXT, self._checkpoint.config.max_seq_len)
        if context < CHAT_CONTEXT:
            return self._skip("peak_memory", f"it needs a context of {CHAT_CONTEXT}, and the model's is {context}")
        self._say("memory of a fresh process")
        chat = self._checkpoint.chat_template is not None
        prompt = _text_of(Tokenizer(self._checkpoint.tokenizer), CHAT_CONTEXT * 9 // 10)
        peak = fresh_process.peak_bytes(self._path, prompt, context, self._threads, chat=chat)
        self._runs["peak_memory"].append(peak / 1e6)

    def _rates(self) -> Rates:
        """The medians of the best number of threads."""
        counts = _thread_counts(self._threads)
        read = max(median(self._runs[_read_name(count)]) for count in counts)
        multiply = max(median(self._runs[_multiply_name(count)]) for count in counts)
        return Rates(read * 1e9, multiply * 1e12)

    def _model_facts(self, numerics_id: str) -> dict[str, Any]:
        cost = self._cost
        return {
            "name": self._path.stem,
            "file_bytes": self._path.stat().st_size,
            "weight_bytes_per_token": cost.weight_bytes,
            "products_per_token": cost.layer_products + cost.head_products,
            "kv_bytes_per_token": cost.kv_bytes,
            "numerics_id": numerics_id,
        }

    def _measurements(self, rates: Rates) -> Iterator[Measurement]:
        """The machine's limits, then the model's figures in the order of a round."""
        start = median(self._runs["interpreter_start"]) if "interpreter_start" in self._runs else 0.0
        bounds = Bounds(self._cost, rates, self._path.stat().st_size, start)
        for name in sorted(self._runs, key=lambda name: not name.startswith(LIMITS)):
            yield Measurement.of(name, self._runs[name], bounds.of(name))


def _read_name(threads: int) -> str:
    return f"read_{threads}_thread{'s' * (threads > 1)}"


def _multiply_name(threads: int) -> str:
    return f"int8_{threads}_thread{'s' * (threads > 1)}"


def _thread_counts(threads: int) -> list[int]:
    """1, 2, 4, ... and all of them: where the read rate stops rising shows on the way."""
    return sorted({*(1 << i for i in range(threads.bit_length()) if 1 << i <= threads), threads})


def _check_memory(path: Path, cost: ModelCost, buffer_bytes: int) -> None:
    needed, free = path.stat().st_size + buffer_bytes, free_memory()
    if needed > free:
        raise CapacityError(
            f"the model and a buffer of its size take {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free",
            hint="Close other programs, or choose a smaller model.",
        )


def _text_of(tokenizer: Tokenizer, num_tokens: int) -> str:
    """Numbers, counted until they are nearly so many tokens."""
    sentence = "".join(f" {number}" for number in range(256))
    each = len(tokenizer.encode(sentence))
    return sentence * (num_tokens // each) if each <= num_tokens else sentence[: len(sentence) * num_tokens // each]


def _warnings(report: Report) -> Iterator[str]:
    cores = report.machine["other_work_cores"]
    if cores is not None and cores > BUSY_CORES:
        yield f"the machine was busy: other work took {cores:.1f} cores meanwhile, so these figures are low"
    shaky = [m for m in report.measurements if m.name.startswith(LIMITS) and m.spread > BUSY_SPREAD]
    for m in shaky[:1]:
        yield f"the machine was unsteady: {m.name} went from {m.low:.3g} to {m.high:.3g} {m.unit}; read ratios only"
