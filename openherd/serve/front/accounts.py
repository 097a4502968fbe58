"""What a request used, told to the metrics and to the key that asked."""

from __future__ import annotations

from dataclasses import dataclass

from openherd.serve.api.answers import Usage
from openherd.serve.front.access import Tenant
from openherd.serve.front.calls import Call
from openherd.serve.front.metrics import ModelMetrics


@dataclass(frozen=True, slots=True)
class Account:
    """Of one request. `tenant` is None on a server without keys."""

    metrics: ModelMetrics
    tenant: Tenant | None

    @property
    def salt(self) -> str:
        """Requests of different salts share nothing."""
        return self.tenant.salt if self.tenant else ""

    def finished(self, call: Call, usage: Usage) -> None:
        """All of the answer is there, and this is its usage."""
        self.metrics.finished(usage)
        if call.finish():
            self._used(usage.prompt_tokens + usage.completion_tokens)

    def unfinished(self, call: Call) -> None:
        """Its client went away, or it failed: what had been computed until then was used all the same."""
        if not call.has_failed:
            self.metrics.cancelled(call.used_completion_tokens)
        elif call.prompt_tokens:  # it had been accepted
            self.metrics.failed(call.used_completion_tokens)
        self._used(call.used_prompt_tokens + call.used_completion_tokens)

    def _used(self, tokens: int) -> None:
        if self.tenant:
            self.tenant.used(tokens)
