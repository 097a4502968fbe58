"""GET /v1/models, and POST /models/load and /models/unload under the names that llama.cpp's server uses."""

from __future__ import annotations

from pydantic import Field

from openherd.serve.api.requests import ApiRequest


class LoadRequest(ApiRequest):
    model: str = Field(max_length=512, description="Which of the models of GET /v1/models.")


class UnloadRequest(LoadRequest):
    force: bool = Field(default=False, description="End the requests that run on it; without, they make it a 409.")
