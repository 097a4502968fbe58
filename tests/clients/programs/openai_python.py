"""The Python package `openai`, which checks that every answer has the types it declares."""

import json

import openai
from cases import GUARDED_URL, KEY, LONG, MODEL, QUESTION, SCHEMA, TOOL, TOOL_NAME, URL, raised, run

MESSAGES = [{"role": "user", "content": QUESTION}]


def connect(url=URL, key="none"):
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, _strict_response_validation=True)


create = connect().chat.completions.create


def chat():
    return create(model=MODEL, messages=MESSAGES, temperature=0).choices[0].message.content


def stream():
    chunks = list(
        create(model=MODEL, messages=MESSAGES, temperature=0, stream=True, stream_options={"include_usage": True})
    )
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    return {"text": "".join(texts), "pieces": len(texts), "tokens": chunks[-1].usage.completion_tokens}


def tools():
    asked = {"model": MODEL, "tools": [TOOL], "temperature": 0, "max_tokens": 100}
    chosen = {"type": "function", "function": {"name": TOOL_NAME}}
    message = create(messages=MESSAGES, tool_choice=chosen, **asked).choices[0].message
    call = message.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    after = create(messages=[*MESSAGES, message, result], tool_choice="none", **asked).choices[0].message
    return {
        "name": call.function.name,
        "arguments": json.loads(call.function.arguments),
        "after": after.content,
    }


def streamed_tools():
    with connect().chat.completions.stream(
        model=MODEL,
        messages=MESSAGES,
        tools=[TOOL],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
        max_tokens=100,
    ) as events:
        call = events.get_final_completion().choices[0].message.tool_calls[0]
    return {"name": call.function.name, "arguments": json.loads(call.function.arguments)}


def schema():
    asked = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
    answer = create(model=MODEL, messages=MESSAGES, temperature=0, max_tokens=80, response_format=asked)
    return json.loads(answer.choices[0].message.content)


def abort():
    with create(model=MODEL, messages=MESSAGES, stream=True, extra_body=LONG) as chunks:
        return sum(1 for _, _ in zip(range(5), chunks, strict=False))


def errors():
    guarded = connect(GUARDED_URL, KEY).chat.completions.create
    asked = {"model": MODEL, "messages": MESSAGES, "max_tokens": 1}
    guarded(**asked)
    return {
        "unknown model": raised(create, **{**asked, "model": "gpt-9"}),
        "bad parameter": raised(create, **asked, top_p=2),
        "wrong key": raised(connect(GUARDED_URL, "wrong").chat.completions.create, **asked),
        "too many": raised(guarded, **asked),
    }


run(chat=chat, stream=stream, tools=tools, streamed_tools=streamed_tools, schema=schema, abort=abort, errors=errors)
