"""What the paths about models do: which there are, and loading and unloading them."""

from __future__ import annotations

import time
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response

from openherd.serve.api.models import LoadRequest, UnloadRequest
from openherd.serve.front.access import Tenant, is_own_site
from openherd.serve.front.clients import while_connected
from openherd.serve.front.errors import ApiError
from openherd.serve.front.places import Place
from openherd.serve.front.pool import ModelPool
from openherd.serve.front.workers import ModelWorker


class ModelPaths:
    """Answers about the models of a pool."""

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool
        self._started = int(time.time())

    async def list(self) -> Response:
        """The models that requests can name, with their adapters, and whether they are loaded."""
        return JSONResponse({"object": "list", "data": [self._document(name) for name in self._pool.names]})

    async def one(self, name: str) -> Response:
        """One model."""
        self._pool.find(name)
        return JSONResponse(self._document(name))

    async def load(self, request: Request) -> Response:
        """Load a model, and answer when it is there."""
        asked = await LoadRequest.read(request)
        worker = self._admin(request, asked.model)
        await loaded(self._pool, worker, request, insists=True)
        return JSONResponse({"success": True, **self._document(asked.model)})

    async def unload(self, request: Request) -> Response:
        """Give a model's memory back, or stop loading it."""
        asked = await UnloadRequest.read(request)
        await self._pool.unload(self._admin(request, asked.model), force=asked.force)
        return JSONResponse({"success": True, **self._document(asked.model)})

    def _admin(self, request: Request, name: str) -> ModelWorker:
        """The worker of that name. Raises `ApiError` 403 for a key that may not load and unload, and where there are no
        keys for pages of other sites: being named by --cors-origin lets them use models, not administer them."""
        tenant: Tenant | None = request.state.tenant
        if tenant is None and not is_own_site(request.scope):
            message = "pages of other sites may load and unload only with an admin's key, and this server has no keys"
            raise ApiError(403, message, code="cross_site")
        if tenant is not None and not tenant.is_admin:
            raise ApiError(403, "this key may not load and unload; its line in the file of keys would say admin")
        return self._pool.find(name)[0]

    def _document(self, name: str) -> dict[str, Any]:
        worker, _ = self._pool.find(name)
        failed = {"failed": True} if self._pool.has_failed(worker) else {}
        return {
            "id": name,
            "object": "model",
            "created": self._started,
            "owned_by": "openherd",
            "context": worker.facts.get("context"),
            "numerics_id": worker.facts.get("numerics_id"),
            "tool_calls": worker.facts.get("tool_format"),
            "thinks": worker.facts.get("thinks"),
            "status": {"value": worker.state, **failed},
        }


async def loaded(pool: ModelPool, worker: ModelWorker, request: Request, *, insists: bool = False) -> None:
    """Until the model is there, or the client is gone. Raises `ApiError`s; the load itself goes on in any case.

    The request takes one of the model's places. `insists`: see `ModelPool.wait_loaded`.
    """
    place: Place = request.state.place
    place.with_model(worker.spec.name)
    if worker.is_ready:
        return
    if not await while_connected(request.receive, pool.wait_loaded(worker, insists=insists)):
        raise ApiError(499, "the client went away", code="client_gone")
