"""The Python package `litellm`."""

import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would fetch a table of prices

import litellm
from cases import GUARDED_URL, KEY, LONG, MODEL, QUESTION, SCHEMA, TOOL, TOOL_NAME, URL, raised, run

MESSAGES = [{"role": "user", "content": QUESTION}]


def create(url=URL, key="none", model=MODEL, messages=MESSAGES, **params):
    return litellm.completion(
        model=f"openai/{model}",
        api_base=f"{url}/v1",
        api_key=key,
        max_retries=0,
        messages=messages,
        **{"temperature": 0, **params},
    )


def chat():
    return create().choices[0].message.content


def stream():
    chunks = list(create(stream=True, stream_options={"include_usage": True}))
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    tokens = [chunk.usage.completion_tokens for chunk in chunks if getattr(chunk, "usage", None)]
    return {"text": "".join(texts), "pieces": len(texts), "tokens": sum(tokens)}


def tools():
    chosen = {"type": "function", "function": {"name": TOOL_NAME}}
    message = create(tools=[TOOL], tool_choice=chosen, max_tokens=100).choices[0].message
    call = message.tool_calls[0]
    said = {
        "role": "assistant",
        "content": message.content or "",
        "tool_calls": [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
        ],
    }
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    after = create(messages=[*MESSAGES, said, result], tools=[TOOL], tool_choice="none", max_tokens=100)
    return {
        "name": call.function.name,
        "arguments": json.loads(call.function.arguments),
        "after": after.choices[0].message.content,
    }


def streamed_tools():
    chunks = list(create(tools=[TOOL], tool_choice="required", max_tokens=100, stream=True))
    call = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls[0]
    return {"name": call.function.name, "arguments": json.loads(call.function.arguments)}


def schema():
    asked = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
    return json.loads(create(max_tokens=80, response_format=asked).choices[0].message.content)


def abort():
    chunks = create(stream=True, extra_body=LONG)
    number = sum(1 for _, _ in zip(range(5), chunks, strict=False))
    chunks.completion_stream.close()
    return number


def errors():
    create(GUARDED_URL, KEY, max_tokens=1)
    return {
        "unknown model": raised(create, model="gpt-9"),
        "bad parameter": raised(create, top_p=2),
        "wrong key": raised(create, GUARDED_URL, "wrong"),
        "too many": raised(create, GUARDED_URL, KEY),
    }


run(chat=chat, stream=stream, tools=tools, streamed_tools=streamed_tools, schema=schema, abort=abort, errors=errors)
