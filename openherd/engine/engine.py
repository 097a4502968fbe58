"""The engine: token ids in, token ids out, for many requests at once.

One thread owns an engine and makes all calls; nothing here locks. Output of a request is a function of the model, the
prompt, the sampling parameters and the seed alone, whatever else runs: the backends' arithmetic does not depend on the
batch, and a draw's key depends on (seed, choice, position) only.

Text is not known here: stop strings, templates and guards belong to the caller.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import replace
from time import perf_counter

from openherd.checkpoints.source import Adapter, TensorSource
from openherd.config import ModelConfig
from openherd.engine.batch import BatchBuilder
from openherd.engine.kv_cache import BlockPool
from openherd.engine.memory import plan_kv
from openherd.engine.protocols import Backend, KVSpec, Limits
from openherd.engine.runner import Drawn, Ending, StepResult, StepRunner, failure
from openherd.engine.sampling import SamplePlanner, SeedNoise
from openherd.engine.scheduler import Schedule, Scheduler
from openherd.engine.sequence import Request, Sequence, Status, StepOutput, TokenCounts
from openherd.errors import EngineError, InputError
from openherd.messages import FinishReason
from openherd.options import EngineOptions
from openherd.stats import EngineStats

# Prompt rows that a step scores (`prompt_logprobs`): enough to use the head's weights well, and 64 rows of logits of a
# vocabulary of 128k are 32 MiB.
MAX_SCORE_ROWS = 64


class Engine:
    """Runs requests on a backend, which it loads here and closes in `close`.

    `stop_ids` end every answer unless its parameters say `ignore_eos`. Raises `OptionError` and `CapacityError` as
    `plan_kv` does. `kv_plan` says what was chosen and why.
    """

    def __init__(
        self,
        backend: Backend,
        config: ModelConfig,
        weights: TensorSource,
        *,
        options: EngineOptions | None = None,
        stop_ids: Iterable[int] = (),
    ) -> None:
        options = options or EngineOptions()
        kv = KVSpec(options.kv_dtype)
        # A row of the batch for each running sequence, so that every step advances every decode.
        max_seqs = min(options.max_seqs, options.max_batch_tokens)
        limits = Limits(
            max_context=options.context or config.max_seq_len,
            max_seqs=max_seqs,
            max_batch_tokens=options.max_batch_tokens,
            max_logit_rows=max_seqs + MAX_SCORE_ROWS,
        )
        self.kv_plan = plan_kv(
            backend.plan(config, weights, kv, limits),
            kv.block_len,
            context=options.context,
            max_context=config.max_seq_len,
            max_seqs=max_seqs,
            kv_memory=options.kv_memory,
        )
        limits = replace(limits, max_context=self.kv_plan.context)
        backend.load(config, weights, kv, limits, self.kv_plan.num_blocks)
        self.config = config
        self.context = self.kv_plan.context
        self.stats = EngineStats(num_total_blocks=self.kv_plan.num_blocks, num_free_blocks=self.kv_plan.num_blocks)
        self._backend = backend
        self._stop_ids = frozenset(stop_ids)
        self._adapters: set[int] = {-1}
        self._live: dict[int, Sequence] = {}
        self._next_id = 0
        self._closed = False
        self._pool = BlockPool(self.kv_plan.num_blocks)
        self._scheduler = Scheduler(
            self._pool,
            kv.block_len,
            self._live,
            self.stats,
            max_seqs=max_seqs,
            max_batch_tokens=options.max_batch_tokens,
            max_score_rows=MAX_SCORE_ROWS,
            prefix_caching=options.prefix_caching,
        )
        self._runner = StepRunner(
            backend,
            BatchBuilder(max_seqs, -(-self.context // kv.block_len)),
            SamplePlanner(config.vocab_size),
            self.stats,
        )

    @property
    def numerics_id(self) -> str:
        """Build, instruction set, backend and KV type: within one id, outputs are bit-equal."""
        return self._backend.numerics_id

    @property
    def has_work(self) -> bool:
        return bool(self._live)

    def load_adapter(self, adapter: Adapter) -> int:
        """Make a LoRA adapter choosable by requests; returns its `Request.adapter`."""
        self._check_open()
        number = self._backend.load_adapter(adapter)
        self._adapters.add(number)
        return number

    def add_request(self, request: Request) -> int:
        """Queue one choice; returns its sequence id. Raises `InputError` for what cannot be run."""
        self._check_open()
        request.check(self.config, self.context)
        self._check_references(request)
        params = request.params
        seed = params.seed if params.seed is not None else secrets.randbits(53)  # exact in a JSON number
        seq = Sequence(
            id=self._next_id,
            request=request,
            seed=seed,
            noise=request.noise or SeedNoise(seed),
            stop_ids=frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else self._stop_ids),
            max_len=min(self.context, len(request.prompt_ids) + (params.max_tokens or self.context)),
            ids=list(request.prompt_ids),
        )
        if params.repetition_penalty != 1 or params.presence_penalty or params.frequency_penalty:
            seq.counts = TokenCounts(request.prompt_ids)
        self._next_id += 1
        self._live[seq.id] = seq
        self._scheduler.add(seq)
        return seq.id

    def add_choices(self, request: Request) -> list[int]:
        """Queue `params.n` choices that share one seed and the prompt's prefill; returns their sequence ids."""
        if request.params.seed is None:
            request = replace(request, params=replace(request.params, seed=secrets.randbits(53)))
        first = self.add_request(request)
        others = range(1, request.params.n)
        return [first] + [self.add_request(request.as_choice(choice, fork_of=first)) for choice in others]

    def step(self) -> list[StepOutput]:
        """Advance the running sequences by one batch: schedule, forward, sample, postprocess.

        A sequence appears in the outputs when it drew a token, completed a scored prompt, or ended. An exception of a
        processor, noise source or tap ends its own request; one of the backend ends those of the batch.
        """
        self._check_open()
        started = perf_counter()
        schedule = self._scheduler.schedule()
        if not schedule.chunks:
            return []
        result = StepResult(schedule.chunks)
        try:
            step = self._runner.forward(schedule, result)
            self._runner.sample(step, result)
        except Exception as error:
            result.fail(error)
        outputs = self._postprocess(result)
        self._count(schedule, perf_counter() - started)
        return outputs

    def finish(self, seq_id: int, reason: FinishReason, keep: int) -> None:
        """End a sequence before its next step, keeping the first `keep` tokens of its answer; no output follows.

        Its processors are rolled back to what is kept. A sequence that ended by itself meanwhile is left as it is.
        """
        seq = self._live.get(seq_id)
        if seq is None:
            return
        if not 0 <= keep <= seq.num_generated:
            raise ValueError(f"cannot keep {keep} of {seq.num_generated} tokens")
        dropped = seq.num_generated - keep
        self._retire(seq)
        self.stats.num_finished += 1
        del seq.ids[seq.num_prompt + keep :]
        for processor in seq.request.processors if dropped else ():
            processor.rollback(dropped)

    def abort(self, seq_id: int) -> None:
        """End a sequence at any moment, waiting or running, and free its blocks; no output follows. Safe to repeat."""
        seq = self._live.get(seq_id)
        if seq is not None:
            self._retire(seq)
            self.stats.num_aborted += 1

    def close(self) -> None:
        """Abort what is left and give memory and threads back. Safe to repeat; other calls raise afterwards."""
        if not self._closed:
            for seq_id in tuple(self._live):
                self.abort(seq_id)
            self._closed = True
            self._backend.close()

    def _postprocess(self, result: StepResult) -> list[StepOutput]:
        """Take in what was computed, scored and drawn, end what ends, and say so."""
        outputs = []
        for chunk in result.chunks:
            seq = chunk.seq
            if seq.status is Status.FINISHED:  # aborted by its own tap or processor
                continue
            if result.computed:
                self._scheduler.advance(chunk)
            output = seq.output()
            ending = result.endings.get(seq.id)
            if seq.id in result.scores:
                seq.prompt_logprobs += result.scores[seq.id]
            if result.computed and seq.request.prompt_logprobs and chunk.completes and seq.num_generated == 0:
                output.prompt_logprobs = tuple(seq.prompt_logprobs)
            if seq.id in result.drawn:
                ending = self._accept(seq, result.drawn[seq.id], output)
            elif ending is None and chunk.completes:
                ending = Ending(FinishReason.LENGTH)  # computed, and no answer is wanted
            if ending is not None and seq.id in self._live:
                self._end(seq, ending, output)
            if output.token_ids or output.finish_reason or output.prompt_logprobs is not None:
                outputs.append(output)
        return outputs

    def _accept(self, seq: Sequence, drawn: Drawn, output: StepOutput) -> Ending | None:
        """Append the drawn token; returns why the sequence ends with it, if it does."""
        seq.append(drawn.token)
        self.stats.num_generated_tokens += 1
        output.token_ids = (drawn.token,)
        if drawn.logprob is not None:
            output.logprobs = (drawn.logprob,)
        try:
            for processor in seq.request.processors:
                processor.accept(output.token_ids)
        except Exception as error:
            return failure(error)
        reason = seq.finish_reason()
        return None if reason is None else Ending(reason)

    def _end(self, seq: Sequence, ending: Ending, output: StepOutput) -> None:
        self._retire(seq)
        self.stats.num_finished += 1
        output.finish_reason, output.error = ending.reason, ending.detail
        if ending.reason is FinishReason.STOP:
            output.stop_match = seq.ids[-1]

    def _retire(self, seq: Sequence) -> None:
        del self._live[seq.id]
        self._scheduler.remove(seq)
        self._gauge()

    def _check_references(self, request: Request) -> None:
        """The adapter and the parent that the request names must be what it takes them for."""
        if request.adapter not in self._adapters:
            raise InputError(f"no adapter {request.adapter} is loaded", hint="Load it with load_adapter first.")
        parent = None if request.fork_of is None else self._live.get(request.fork_of)
        if parent is not None and not request.continues(parent.request):
            raise InputError("a fork must have its parent's prompt, salt and adapter")

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed")

    def _count(self, schedule: Schedule, seconds: float) -> None:
        num_rows = sum(chunk.end - chunk.start for chunk in schedule.chunks)
        self._scheduler.pace.observe(seconds, schedule.num_decodes, num_rows - schedule.num_decodes)
        self.stats.num_steps += 1
        self.stats.step_s += seconds
        self.stats.max_batch_seqs = max(self.stats.max_batch_seqs, len(schedule.chunks))
        self._gauge()

    def _gauge(self) -> None:
        self.stats.num_waiting = len(self._scheduler.waiting)
        self.stats.num_running = len(self._scheduler.running)
        self.stats.num_free_blocks = self._pool.num_free
        self.stats.num_evicted_blocks = self._pool.num_evicted
