"""The HTTP application: which path does what."""

from __future__ import annotations

from functools import cache

from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from openherd import __version__
from openherd.serve.api.answers import AnswerFormat
from openherd.serve.api.chat import ChatRequest
from openherd.serve.api.completions import CompletionRequest
from openherd.serve.api.embeddings import EmbeddingRequest
from openherd.serve.api.message_writer import MessageFormat
from openherd.serve.api.messages import CountRequest, MessagesRequest
from openherd.serve.api.models import LoadRequest, UnloadRequest
from openherd.serve.api.response_writer import ResponseFormat
from openherd.serve.api.responses import ResponsesRequest
from openherd.serve.api.sampling import EngineRequest
from openherd.serve.api.texts import DetokenizeRequest, RenderRequest, TokenizeRequest
from openherd.serve.front.access import Access
from openherd.serve.front.admission import Admission
from openherd.serve.front.cors import CrossOrigin
from openherd.serve.front.embeddings import Embeddings
from openherd.serve.front.errors import ApiError, install_error_handlers
from openherd.serve.front.generation import Generation, Route
from openherd.serve.front.heads import HeadAsGet
from openherd.serve.front.metrics import Metered, Metrics
from openherd.serve.front.models import ModelPaths, loaded
from openherd.serve.front.openapi import describe
from openherd.serve.front.page import Page
from openherd.serve.front.places import Places
from openherd.serve.front.pool import ModelPool
from openherd.serve.front.records import RequestLog
from openherd.serve.front.values import Value
from openherd.serve.keys import KeyRing
from openherd.serve.lifecycle import Lifecycle
from openherd.serve.options import ServeOptions

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # of Prometheus' format


class Front:
    """What the paths do."""

    def __init__(self, pool: ModelPool, lifecycle: Lifecycle, metrics: Metrics, *, require_model: bool) -> None:
        self._pool = pool
        self._require_model = require_model
        self._lifecycle = lifecycle
        self._metrics = metrics

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        asked = await ChatRequest.read(request)
        return await self._generation(request, asked, asked.answer_format())

    async def complete(self, request: Request) -> Response:
        """Continue a text."""
        asked = await CompletionRequest.read(request)
        return await self._generation(request, asked, asked.answer_format())

    async def respond(self, request: Request) -> Response:
        """Take the next step of a conversation."""
        asked = await ResponsesRequest.read(request)
        return await self._generation(request, asked, ResponseFormat(asked))

    async def message(self, request: Request) -> Response:
        """Answer a conversation, as Anthropic's API has it."""
        asked = await MessagesRequest.read(request)
        return await self._generation(request, asked, MessageFormat(asked))

    async def count(self, request: Request) -> Response:
        """Tokens of a conversation, as Anthropic's API has it."""
        asked = await CountRequest.read(request)
        return Value(await self._route(request, asked.model), asked.frame())

    async def embed(self, request: Request) -> Response:
        """A vector of each text."""
        asked = await EmbeddingRequest.read(request)
        return Embeddings(await self._route(request, asked.model), asked, self._metrics)

    async def tokenize(self, request: Request) -> Response:
        """Token ids of a text."""
        asked = await TokenizeRequest.read(request)
        return Value(await self._route(request, asked.model), asked.frame())

    async def detokenize(self, request: Request) -> Response:
        """Text of token ids."""
        asked = await DetokenizeRequest.read(request)
        return Value(await self._route(request, asked.model), asked.frame())

    async def render(self, request: Request) -> Response:
        """A conversation as the model reads it."""
        asked = await RenderRequest.read(request)
        return Value(await self._route(request, asked.model), asked.frame())

    async def health(self) -> Response:
        """Whether the server answers at all."""
        return JSONResponse({"status": "ok"})

    async def ready(self) -> Response:
        """Whether requests are taken: 503 while no model can take any, and while the server shuts down."""
        status = "draining" if self._lifecycle.is_draining else "ready" if self._pool.is_ready else "loading"
        return JSONResponse({"status": status}, 200 if status == "ready" else 503)

    async def measure(self) -> Response:
        """Prometheus metrics."""
        return Response(self._metrics.text(), media_type=_CONTENT_TYPE)

    async def _generation(self, request: Request, asked: EngineRequest, answer: AnswerFormat) -> Generation:
        route = await self._route(request, asked.model)
        return Generation(route, answer, self._metrics, stream=bool(asked.stream))

    async def _route(self, request: Request, name: str | None) -> Route:
        """Where a request for that model goes, once it is loaded."""
        if name is None and self._require_model:
            raise ApiError(400, "missing parameter: model", param="model", code="missing_parameter")
        worker, adapter = self._pool.find(name)
        found = adapter or worker.spec.name
        request.state.record.model = found
        await loaded(self._pool, worker, request)
        return Route(found, worker, adapter)


def build_app(pool: ModelPool, lifecycle: Lifecycle, options: ServeOptions, keys: KeyRing, log: RequestLog) -> Metered:
    """The application with its middleware: requests are counted, known, admitted, then read."""
    metrics = Metrics(lifecycle, pool.workers)
    front, models = Front(pool, lifecycle, metrics, require_model=options.require_model), ModelPaths(pool)
    api = FastAPI(title="openherd", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    install_error_handlers(api)
    bodies: dict[str, type[BaseModel]] = {}
    posts = (
        ("/v1/chat/completions", front.chat, ChatRequest),
        ("/v1/completions", front.complete, CompletionRequest),
        ("/v1/responses", front.respond, ResponsesRequest),
        ("/v1/messages", front.message, MessagesRequest),
        ("/v1/messages/count_tokens", front.count, CountRequest),
        ("/v1/embeddings", front.embed, EmbeddingRequest),
        ("/tokenize", front.tokenize, TokenizeRequest),
        ("/detokenize", front.detokenize, DetokenizeRequest),
        ("/apply-template", front.render, RenderRequest),
        ("/models/load", models.load, LoadRequest),
        ("/models/unload", models.unload, UnloadRequest),
    )
    gets = (
        ("/v1/models", models.list),
        ("/v1/models/{name:path}", models.one),
        ("/models", models.list),
        ("/health", front.health),
        ("/ready", front.ready),
        ("/metrics", front.measure),
    )
    for path, post, body in posts:
        api.add_api_route(path, post, methods=["POST"], response_model=None)
        bodies[path] = body
    for path, get in gets:
        api.add_api_route(path, get, methods=["GET"], response_model=None)
    page = Page()
    pages = (("/", page.index), ("/page/{version}/{name:path}", page.file))
    for path, page_get in pages:
        api.add_api_route(path, page_get, methods=["GET"], response_model=None, include_in_schema=False)
    document = cache(lambda: describe(api, bodies, pool.names))
    api.openapi = document  # type: ignore[method-assign]
    places = Places({worker.spec.name: worker.spec.engine.max_seqs for worker in pool.workers}, options.queue)
    admitted = Admission(api, lifecycle=lifecycle, places=places, max_body=options.max_body)
    guarded = HeadAsGet(CrossOrigin(Access(admitted, keys), options.cors_origin))
    paths = [path for path, *_ in (*posts, *gets, *pages)]
    return Metered(guarded, metrics=metrics, log=log, paths=paths)
