"""Counters for Prometheus, and the id of each request.

Labels are paths of our own, methods, statuses and the models' names: nothing that a client wrote. Token counters grow
by exactly what `usage` reports, when the request ends; what cancelled and failed ones had used is counted apart.
Families with `openherd_model_` in their names are the same once more for each model.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openherd.serve.api.answers import Usage
from openherd.serve.front.records import Record, RequestLog, request_id
from openherd.serve.front.workers import ModelWorker
from openherd.serve.lifecycle import Lifecycle

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)
_TOKEN_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)


class Metrics:
    """All of one server's."""

    def __init__(self, lifecycle: Lifecycle, workers: Iterable[ModelWorker]) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "openherd_http_requests", "Answered requests.", ("path", "method", "status"), registry=registry
        )
        self._prompt = Counter("openherd_prompt_tokens", "Prompt tokens, as in usage.", registry=registry)
        self._completion = Counter("openherd_completion_tokens", "Generated tokens, as in usage.", registry=registry)
        self._cached = Counter("openherd_cached_tokens", "Prompt tokens found in the cache.", registry=registry)
        self._cut = Counter("openherd_cancelled_requests", "Requests whose client went away.", registry=registry)
        self._cut_tokens = Counter(
            "openherd_cancelled_completion_tokens", "Tokens generated for them.", registry=registry
        )
        self._failed = Counter(
            "openherd_failed_requests", "Requests that ended with an error after they were accepted.", registry=registry
        )
        self._failed_tokens = Counter(
            "openherd_failed_completion_tokens", "Tokens generated for them.", registry=registry
        )
        self._ttft = Histogram(
            "openherd_time_to_first_token_seconds", "From arrival to the first text.", buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._tpot = Histogram(
            "openherd_time_per_output_token_seconds", "Each answer's mean after its first text.",
            buckets=_TOKEN_SECONDS, registry=registry,
        )  # fmt: skip
        self._of_models = _OfModels(registry)
        Gauge("openherd_requests", "Admitted requests now.", registry=registry).set_function(
            lambda: lifecycle.num_requests
        )
        registry.register(_Engines(tuple(workers)))

    def of(self, model: str) -> ModelMetrics:
        """Where requests of one model are counted."""
        ttft = _Both(self._ttft, self._of_models.ttft.labels(model))
        tpot = _Both(self._tpot, self._of_models.tpot.labels(model))
        return ModelMetrics(self, model, ttft, tpot)

    def finished(self, model: str, usage: Usage) -> None:
        self._prompt.inc(usage.prompt_tokens)
        self._completion.inc(usage.completion_tokens)
        self._cached.inc(usage.cached_tokens)
        self._of_models.prompt.labels(model).inc(usage.prompt_tokens)
        self._of_models.completion.labels(model).inc(usage.completion_tokens)
        self._of_models.cached.labels(model).inc(usage.cached_tokens)

    def cancelled(self, completion_tokens: int) -> None:
        self._cut.inc()
        self._cut_tokens.inc(completion_tokens)

    def failed(self, completion_tokens: int) -> None:
        self._failed.inc()
        self._failed_tokens.inc(completion_tokens)

    def answered(self, path: str, method: str, status: int) -> None:
        self._requests.labels(path, method, str(status)).inc()

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)


class _Both:
    """A histogram of all models, and the same of one."""

    def __init__(self, of_all: Histogram, of_one: Histogram) -> None:
        self._histograms = (of_all, of_one)

    def observe(self, value: float) -> None:
        for histogram in self._histograms:
            histogram.observe(value)


class ModelMetrics:
    """One model's part of the metrics."""

    def __init__(self, metrics: Metrics, model: str, ttft: _Both, tpot: _Both) -> None:
        self._metrics = metrics
        self._model = model
        self.ttft = ttft
        self.tpot = tpot

    def finished(self, usage: Usage) -> None:
        """A request ended, and this is its usage."""
        self._metrics.finished(self._model, usage)

    def cancelled(self, completion_tokens: int) -> None:
        """A client went away, and so many tokens had been generated for it."""
        self._metrics.cancelled(completion_tokens)

    def failed(self, completion_tokens: int) -> None:
        """A request ended with an error, and so many tokens had been generated for it."""
        self._metrics.failed(completion_tokens)


class _OfModels:
    """Families with a label for the model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        label, prefix = ("model",), "openherd_model_"
        self.prompt = Counter(f"{prefix}prompt_tokens", "Prompt tokens, as in usage.", label, registry=registry)
        self.completion = Counter(f"{prefix}completion_tokens", "Generated tokens.", label, registry=registry)
        self.cached = Counter(f"{prefix}cached_tokens", "Prompt tokens found in the cache.", label, registry=registry)
        self.ttft = Histogram(
            f"{prefix}time_to_first_token_seconds", "To the first text.", label, buckets=_SECONDS, registry=registry
        )
        self.tpot = Histogram(
            f"{prefix}time_per_output_token_seconds", "After it.", label, buckets=_TOKEN_SECONDS, registry=registry
        )


class _Engines:
    """The engines' own counters and gauges, read when asked."""

    _GAUGES = {  # noqa: RUF012
        "num_running": "Sequences in the engine's batch.",
        "num_waiting": "Sequences that wait for the engine.",
        "num_free_blocks": "KV blocks that can be had.",
        "num_total_blocks": "KV blocks in all.",
        "max_batch_seqs": "Most sequences that one step has had.",
    }
    _COUNTERS = {  # noqa: RUF012
        "num_steps": "Engine steps.",
        "num_prompt_tokens": "Prompt tokens computed.",
        "num_cached_tokens": "Prompt tokens found in the cache or shared.",
        "num_generated_tokens": "Tokens drawn, those of cancelled requests included.",
        "num_finished": "Sequences that ended.",
        "num_aborted": "Sequences that were cancelled.",
        "num_preemptions": "Sequences that gave their blocks back and were computed again.",
        "num_split_prompts": "Prompts prefilled in more than one chunk.",
    }

    def __init__(self, workers: tuple[ModelWorker, ...]) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("openherd_worker_up", "Whether the model's worker is ready.", labels=["model"])
        restarts = CounterMetricFamily("openherd_worker_restarts", "Times a worker was replaced.", labels=["model"])
        for worker in self._workers:
            up.add_metric([worker.spec.name], float(worker.is_ready))
            restarts.add_metric([worker.spec.name], worker.num_restarts)
        yield up
        yield restarts
        used = GaugeMetricFamily("openherd_engine_used_blocks", "KV blocks that sequences hold.", labels=["model"])
        for worker in self._workers:
            held = worker.stats.get("num_total_blocks", 0) - worker.stats.get("num_free_blocks", 0)
            used.add_metric([worker.spec.name], held)
        yield used
        for names, family in ((self._GAUGES, GaugeMetricFamily), (self._COUNTERS, CounterMetricFamily)):
            for name, help_text in names.items():
                metric: Metric = family(f"openherd_engine_{name.removeprefix('num_')}", help_text, labels=["model"])
                for worker in self._workers:
                    metric.add_sample(
                        metric.name + ("_total" if metric.type == "counter" else ""),
                        {"model": worker.spec.name},
                        worker.stats.get(name, 0),
                    )
                yield metric


class Metered:
    """ASGI middleware, the outermost: gives each request an id and a record, counts its answer, and logs it.

    An answer's header x-request-id is the client's where it sent a harmless one; `request_id` in the state is always
    random, since documents are named after it.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, log: RequestLog, paths: Collection[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log
        self._paths = frozenset(paths)
        # With a parameter in them; longest first.
        self._prefixes = sorted((path.partition("{")[0] for path in paths if "{" in path), key=len, reverse=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = Record(
            request_id([value for name, value in scope["headers"] if name == b"x-request-id"]),
            method=scope["method"] if scope["method"] in _METHODS else "other",
            path=self._known(scope["path"]),
        )
        scope["state"] = {
            **scope.get("state", {}),
            "request_id": secrets.token_hex(12),
            "arrived": record.arrived,
            "record": record,
        }

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                self._metrics.answered(record.path, record.method, message["status"])
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", record.id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            self._log.add(record)

    def refused(self, status: int) -> str:
        """Count and log what the connection answered itself, since it was no request; returns the answer's id."""
        record = Record(request_id(()), status=status)
        self._metrics.answered(record.path, record.method, status)
        self._log.add(record)
        return record.id

    def _known(self, path: str) -> str:
        """A path of our own: what else a client asks for is its text, and no label or line of ours."""
        if path in self._paths:
            return path
        return next((f"{prefix}..." for prefix in self._prefixes if path.startswith(prefix)), "other")
