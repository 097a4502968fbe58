"""The engine: token ids in, token ids out, for many requests at once.

One thread owns an engine and makes all calls; nothing here locks. Output of a request is a function of the model, the
prompt, the sampling parameters and the seed alone, whatever else runs: the backends' arithmetic does not depend on the
batch, and a draw's key depends on (seed, choice, position) only.

Text is not known here: stop strings, templates and guards belong to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from time import perf_counter

from openherd.checkpoints.source import Adapter, TensorSource
from openherd.config import ModelConfig
from openherd.engine.batch import BatchBuilder
from openherd.engine.kv_cache import BlockPool
from openherd.engine.loading import MAX_SCORE_ROWS, load_on
from openherd.engine.protocols import Backend
from openherd.engine.runner import Drawn, Ending, StepResult, StepRunner, failure
from openherd.engine.sampling import SamplePlanner, SeedNoise
from openherd.engine.scheduler import Chunk, Schedule, Scheduler
from openherd.engine.sequence import Request, Sequence, Status, StepOutput, TokenCounts
from openherd.engine.speculate import Drafter, PromptLookup, Speculator
from openherd.errors import EngineError, InputError
from openherd.messages import FinishReason
from openherd.options import EngineOptions
from openherd.stats import EngineStats


class Engine:
    """Runs requests on a backend, which it loads here and closes in `close`.

    `stop_ids` end every answer unless its parameters say `ignore_eos`. Raises `OptionError` and `CapacityError` as
    `plan_kv` does. `kv_plan` says what was chosen and why. `make_drafter` makes each sequence's guesser of tokens.
    """

    def __init__(
        self,
        backend: Backend,
        config: ModelConfig,
        weights: TensorSource,
        *,
        options: EngineOptions | None = None,
        stop_ids: Iterable[int] = (),
        make_drafter: Callable[[], Drafter] = PromptLookup,
    ) -> None:
        options = options or EngineOptions()
        self.kv_plan, limits = load_on(backend, config, weights, options)
        self.config = config
        self.context = self.kv_plan.context
        self.stats = EngineStats(num_total_blocks=self.kv_plan.num_blocks, num_free_blocks=self.kv_plan.num_blocks)
        self._backend = backend
        self._stop_ids = frozenset(stop_ids)
        self._adapters: set[int] = {-1}
        self._live: dict[int, Sequence] = {}
        self._outputs: list[StepOutput] = []  # of this step; those of an interrupted one wait for the next
        self._just_ended: dict[int, int] = {}  # in the last step, with the number of tokens of the answer
        self._next_id = 0
        self._closed = False
        self._scheduler = Scheduler(
            BlockPool(self.kv_plan.num_blocks),
            self.kv_plan.block_len,
            self._live,
            self.stats,
            Speculator(make_drafter, config.vocab_size),
            max_seqs=limits.max_seqs,
            max_batch_tokens=limits.max_batch_tokens,
            max_score_rows=MAX_SCORE_ROWS,
            prefix_caching=options.prefix_caching,
        )
        self._runner = StepRunner(
            backend,
            BatchBuilder(limits.max_seqs, -(-self.context // self.kv_plan.block_len)),
            SamplePlanner(config.vocab_size),
            self.stats,
        )

    @property
    def numerics_id(self) -> str:
        """Build, instruction set, backend and KV type: within one id, outputs are bit-equal."""
        return self._backend.numerics_id

    @property
    def has_work(self) -> bool:
        """Whether another step has something to do or to say."""
        return bool(self._live or self._outputs)

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
        seed = request.drawn_seed()
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
        self._scheduler.gauge()
        return seq.id

    def add_choices(self, choices: Iterable[Request]) -> list[int]:
        """Queue choices of one prompt, which share its prefill: all of them or, if one is refused, none.

        Returns their sequence ids. `Request.choices` makes them.
        """
        seq_ids: list[int] = []
        try:
            for request in choices:
                seq_ids.append(self.add_request(replace(request, fork_of=seq_ids[0]) if seq_ids else request))
        except BaseException:
            for seq_id in seq_ids:
                self.abort(seq_id)
            raise
        return seq_ids

    def step(self) -> list[StepOutput]:
        """Advance the running sequences by one batch: schedule, forward, sample, postprocess.

        A sequence appears in the outputs when it drew a token, completed a scored prompt, or ended. An exception of a
        processor, noise source, tap or drafter ends its own request; one of the backend ends those of the batch. An
        interrupt (Ctrl-C, at any place) passes through; the next steps go on as if it had not been, and no output is
        lost.
        """
        self._check_open()
        try:
            if not self._outputs:
                self._step()
        except BaseException:
            self._recover()
            raise
        outputs = [o for o in self._outputs if o.token_ids or o.finish_reason or o.prompt_logprobs is not None]
        self._outputs = []
        return outputs

    def _step(self) -> None:
        started = perf_counter()
        self._just_ended.clear()
        schedule = self._scheduler.schedule()
        if not schedule.chunks:
            return
        result = StepResult(schedule.chunks)
        try:
            step = self._runner.forward(schedule, result)
            self._runner.sample(step, result)
        except Exception as error:
            result.fail(error)
        self._postprocess(result)
        self._count(schedule, perf_counter() - started)

    def num_computed(self, seq_id: int) -> int:
        """Tokens of an unfinished sequence that are in the KV cache, computed or found there."""
        seq = self._live.get(seq_id)
        return seq.num_computed if seq is not None else 0

    def finish(self, seq_id: int, reason: FinishReason, keep: int) -> None:
        """End a sequence before its next step, keeping the first `keep` tokens of its answer; no output follows.

        Its processors are rolled back to what is kept; what they raise is raised here, once the sequence is gone.
        A sequence that ended by itself meanwhile is left as it is.
        """
        self._drop_outputs(seq_id)
        seq = self._live.get(seq_id)
        if seq is None:
            self.stats.num_generated_tokens -= max(0, self._just_ended.pop(seq_id, keep) - keep)
            return
        if not 0 <= keep <= seq.num_generated:
            raise ValueError(f"cannot keep {keep} of {seq.num_generated} tokens")
        dropped = seq.num_generated - keep
        self.stats.num_generated_tokens -= dropped  # of a run of accepted drafts, behind a stop string
        self._retire(seq)
        self.stats.num_finished += 1
        del seq.ids[seq.num_prompt + keep :]
        for processor in seq.request.processors if dropped else ():
            processor.rollback(dropped)

    def abort(self, seq_id: int) -> None:
        """End a sequence at any moment, waiting or running, and free its blocks; no output follows. Safe to repeat."""
        self._drop_outputs(seq_id)
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

    def _postprocess(self, result: StepResult) -> None:
        """Take in what was computed, scored and drawn, end what ends, and say so."""
        for chunk in result.chunks:
            seq = chunk.seq
            if seq.status is Status.FINISHED:  # aborted by its own tap or processor
                continue
            if result.computed:
                self._scheduler.advance(chunk)
            output = seq.output()
            self._outputs.append(output)
            ending = result.endings.get(seq.id)
            if seq.id in result.scores:
                seq.prompt_logprobs += result.scores[seq.id]
            if ending is not None:
                self._end(seq, ending, output)
                continue
            if seq.request.prompt_logprobs and chunk.completes and seq.num_generated == 0:
                output.prompt_logprobs = tuple(seq.prompt_logprobs)
            if seq.id in result.drawn:
                self._accept(chunk, result.drawn[seq.id], output)
            elif chunk.completes:
                self._end(seq, Ending(FinishReason.LENGTH), output)  # computed, and no answer is wanted

    def _accept(self, chunk: Chunk, drawn: list[Drawn], output: StepOutput) -> None:
        """Append the drawn tokens up to one that ends the sequence, and end it if there is one."""
        seq = chunk.seq
        tokens = tuple(one.token for one in drawn)
        num_taken, reason = seq.ending_in(tokens)
        tokens = tokens[:num_taken]
        if seq.counts is not None:
            for token in tokens:
                seq.counts.add(token)
        output.logprobs = tuple(one.logprob for one in drawn[:num_taken] if one.logprob is not None)
        output.num_drafted = chunk.num_drafted
        output.num_accepted = min(num_taken, len(drawn) - 1)
        # Python delivers signals after calls only: an interrupt finds all lines from here to `extend` done, or none.
        self.stats.num_generated_tokens += num_taken
        self.stats.num_drafted_tokens += output.num_drafted
        self.stats.num_accepted_tokens += output.num_accepted
        output.finish_reason = reason
        output.stop_match = tokens[-1] if reason is FinishReason.STOP else None
        output.token_ids = tokens
        try:
            seq.ids.extend(tokens)
            for processor in seq.request.processors:
                for token in tokens:
                    processor.accept((token,))
        except BaseException as error:
            if seq.request.processors:  # whether they took the tokens in is not known
                self._end(seq, failure(error), output)
            if not isinstance(error, Exception):
                raise
        else:
            if seq.speculation is not None:
                seq.speculation.observe(chunk.proposed, tokens)
            self._scheduler.settle(chunk)
            if reason is not None:
                self._end(seq, Ending(reason), output)

    def _end(self, seq: Sequence, ending: Ending, output: StepOutput) -> None:
        output.finish_reason, output.error = ending.reason, ending.detail
        if ending.reason is not FinishReason.STOP:
            output.stop_match = None
        if seq.id in self._live:  # not aborted by its own processor
            self._just_ended[seq.id] = seq.num_generated
            self._retire(seq)
            self.stats.num_finished += 1

    def _recover(self) -> None:
        """After an interrupt: the outputs made so far count, and all else of the step is done again."""
        self._outputs = [output for output in self._outputs if output.token_ids or output.finish_reason]
        for output in self._outputs:
            if output.finish_reason is not None:
                self._live.pop(output.seq_id, None)
        for seq in self._live.values():
            if seq.counts is not None:
                seq.counts = TokenCounts(seq.request.prompt_ids, seq.ids[seq.num_prompt :])
        self._scheduler.restart()
        self._scheduler.gauge()

    def _drop_outputs(self, seq_id: int) -> None:
        """What an interrupted step still has to say of this sequence is not said."""
        self._outputs = [output for output in self._outputs if output.seq_id != seq_id]

    def _retire(self, seq: Sequence) -> None:
        del self._live[seq.id]
        self._scheduler.remove(seq)
        self._scheduler.gauge()

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
        self._scheduler.observe(schedule, seconds)
        self.stats.num_steps += 1
        self.stats.step_s += seconds
        self.stats.max_batch_seqs = max(self.stats.max_batch_seqs, len(schedule.chunks))
        self._scheduler.gauge()
