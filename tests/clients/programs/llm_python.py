"""The Python package `llm`. It always lets the model choose whether to call a tool, and asks again by itself when told
429 (for the minute that Retry-After says), so neither forced calls nor that error are tried."""

import json
import os
import tempfile
from pathlib import Path

from cases import GUARDED_URL, MODEL, QUESTION, SCHEMA, URL, raised, run

folder = tempfile.TemporaryDirectory()
os.environ["LLM_USER_PATH"] = folder.name
served = {"here": (URL, MODEL), "unknown": (URL, "gpt-9"), "guarded": (GUARDED_URL, MODEL)}
entries = [
    {"model_id": name, "model_name": model, "api_base": f"{url}/v1", "supports_schema": True, "supports_tools": True}
    for name, (url, model) in served.items()
]
Path(folder.name, "extra-openai-models.yaml").write_text(json.dumps(entries))  # JSON is YAML

import llm  # noqa: E402  it reads the file above when imported

model = llm.get_model("here")


def chat():
    return model.prompt(QUESTION, stream=False, temperature=0).text()


def stream():
    response = model.prompt(QUESTION, stream=True, temperature=0)
    texts = list(response)
    return {"text": "".join(texts), "pieces": len(texts), "tokens": response.usage().output}


def tools():
    def get_weather(city: str) -> str:
        """The weather of a city."""
        return "sunny"

    return {"after": model.chain(QUESTION, tools=[get_weather], options={"temperature": 0, "max_tokens": 100}).text()}


def schema():
    return json.loads(model.prompt(QUESTION, schema=SCHEMA, temperature=0, max_tokens=80, stream=False).text())


def abort():
    pieces = iter(model.prompt("Write a very long story.", stream=True, temperature=0, max_tokens=1900))
    number = sum(1 for _, _ in zip(range(5), pieces, strict=False))
    pieces.close()
    return number


def errors():
    def ask(name, **options):
        llm.get_model(name).prompt(QUESTION, stream=False, **options).text()

    return {
        "unknown model": raised(ask, "unknown"),
        "bad parameter": raised(ask, "here", max_tokens=10**6),
        "wrong key": raised(ask, "guarded"),
    }


run(chat=chat, stream=stream, tools=tools, schema=schema, abort=abort, errors=errors)
