"""The Python package `langchain-openai`."""

from cases import GUARDED_URL, KEY, LONG, MODEL, QUESTION, SCHEMA, TOOL, TOOL_NAME, URL, raised, run
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI


def connect(url=URL, key="none", model=MODEL, **settings):
    return ChatOpenAI(model=model, base_url=f"{url}/v1", api_key=key, max_retries=0, **{"temperature": 0, **settings})


def chat():
    return connect().invoke(QUESTION).content


def stream():
    chunks = list(connect(stream_usage=True).stream(QUESTION))
    texts = [chunk.content for chunk in chunks if chunk.content]
    tokens = [chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata]
    return {"text": "".join(texts), "pieces": len(texts), "tokens": sum(tokens)}


def tools():
    model = connect(max_tokens=100)
    message = model.bind_tools([TOOL], tool_choice=TOOL_NAME).invoke(QUESTION)
    call = message.tool_calls[0]
    after = model.bind_tools([TOOL], tool_choice="none").invoke(
        [HumanMessage(QUESTION), message, ToolMessage("sunny", tool_call_id=call["id"])]
    )
    return {"name": call["name"], "arguments": call["args"], "after": after.content}


def streamed_tools():
    whole = None
    for chunk in connect(max_tokens=100).bind_tools([TOOL], tool_choice="required").stream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    call = whole.tool_calls[0]
    return {"name": call["name"], "arguments": call["args"]}


def schema():
    return connect(max_tokens=80).with_structured_output(SCHEMA, method="json_schema", strict=True).invoke(QUESTION)


def abort():
    chunks = connect(extra_body=LONG).stream(QUESTION)
    number = sum(1 for _, _ in zip(range(5), chunks, strict=False))
    chunks.close()
    return number


def errors():
    guarded = connect(GUARDED_URL, KEY, max_tokens=1)
    guarded.invoke(QUESTION)
    return {
        "unknown model": raised(connect(model="gpt-9").invoke, QUESTION),
        "bad parameter": raised(connect(top_p=2).invoke, QUESTION),
        "wrong key": raised(connect(GUARDED_URL, "wrong").invoke, QUESTION),
        "too many": raised(guarded.invoke, QUESTION),
    }


run(chat=chat, stream=stream, tools=tools, streamed_tools=streamed_tools, schema=schema, abort=abort, errors=errors)
