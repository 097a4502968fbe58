"""herd run: one completion."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from openherd.cli import assumptions, output
from openherd.cli.flags import (
    ENGINE,
    SAMPLING,
    EngineFlags,
    JsonFlag,
    OfflineFlag,
    SamplingFlags,
    parse_adapter,
    require_text,
    start_lightly,
    warn_of_many_threads,
)
from openherd.errors import EngineError, InputError, OptionError, SchemaError

if TYPE_CHECKING:
    from openherd.llm import LLM, Stream
    from openherd.messages import Completion, Message

MAX_PROMPT_BYTES = 64 << 20


def run(
    model: str | None = None,
    /,
    *,
    prompt: Annotated[str, Parameter(name=["--prompt", "-p"], allow_leading_hyphen=True)],
    chat: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    system: str | None = None,
    template: str | None = None,
    schema: str | None = None,
    adapter: str | None = None,
    special: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    params: SamplingFlags = SAMPLING,
    engine: EngineFlags = ENGINE,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
) -> None:
    """Write one completion to standard output as it comes, and one line of statistics to standard error.

    Parameters
    ----------
    model
        A catalogue name or a file; none: the default model.
    prompt
        The text to complete; - reads it from standard input, without the newline at its end.
    chat
        Take the prompt as a user's message and answer it through the model's chat template.
    system
        A system message before the prompt; needs --chat.
    template
        A built-in chat template (chatml, llama-2, llama-3) or a Jinja file instead of the model's own.
    schema
        Hold the answer to a JSON schema: a file, or the schema itself if it begins with a brace.
    adapter
        A LoRA adapter, as NAME=PATH or PATH.
    special
        Control tokens written in the prompt count as such instead of as text.
    """
    _check(chat=chat, system=system, template=template, special=special, params=params, as_json=json)
    require_text({"--prompt": prompt, "--system": system, "--schema": schema, "--stop": "".join(params.stop)})
    text = _read_prompt(prompt)
    wanted = _read_schema(schema) if schema is not None else None
    name, adapters = parse_adapter(adapter)
    warn_of_many_threads(engine.threads)
    start_lightly()

    from openherd.llm import LLM

    with LLM.load(model, options=engine, template=template, adapters=adapters, offline=offline) as llm:
        assumptions.say(llm.assumed)
        _warn_of_short_context(llm, engine.context)
        asked = _conversation(text, system) if chat else text
        with llm.stream(asked, params, schema=wanted, adapter=name, special=special) as stream:
            if not json and params.n == 1:
                _write(stream)
            else:
                for _ in stream:
                    pass
        _report(llm, stream.completions, as_json=json)


def _check(
    *, chat: bool, system: str | None, template: str | None, special: bool, params: SamplingFlags, as_json: bool
) -> None:
    """Options that would have no effect are refused."""
    if not chat:
        for flag, value in (("--system", system), ("--template", template)):
            if value is not None:
                raise OptionError(f"{flag} has no effect without --chat", hint="Add --chat.")
    elif special:
        raise OptionError("--special has no effect with --chat, whose template writes the control tokens")
    if params.logprobs is not None and not as_json:
        raise OptionError("--logprobs is reported with --json only", hint="Add --json.")


def _read_prompt(prompt: str) -> str:
    if prompt != "-":
        return prompt
    data = sys.stdin.buffer.read(MAX_PROMPT_BYTES + 1)
    if len(data) > MAX_PROMPT_BYTES:
        raise InputError(f"the prompt on standard input is longer than {MAX_PROMPT_BYTES >> 20} MiB")
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError as why:
        raise InputError(f"the prompt on standard input is not UTF-8 text (byte {why.start})") from None


def _read_schema(schema: str) -> dict[str, Any]:
    """Inline JSON or a file of it. Raises `SchemaError`."""
    import json

    from openherd.constrain.bounds import MAX_SCHEMA_BYTES

    text, where = schema, "--schema"
    if not schema.lstrip().startswith("{"):
        where = schema
        try:
            with Path(schema).open("rb") as file:
                text = file.read(MAX_SCHEMA_BYTES + 1).decode()
        except OSError as why:
            raise SchemaError(f"cannot read the schema {schema}: {why.strerror}") from None
        except UnicodeDecodeError:
            raise SchemaError(f"the schema {schema} is not UTF-8 text") from None
    if len(text.encode("utf-8", "surrogatepass")) > MAX_SCHEMA_BYTES:
        raise SchemaError(f"the schema {where} is longer than {MAX_SCHEMA_BYTES} bytes")
    try:
        value: Any = json.loads(text)
    except ValueError as why:  # bad JSON, or a number of more digits than Python converts
        raise SchemaError(f"the schema {where} is not JSON: {why}") from None
    except RecursionError:
        raise SchemaError(f"the schema {where} is nested too deeply") from None
    if not isinstance(value, dict):
        raise SchemaError(f"the schema {where} is not a JSON object")
    return value


def _conversation(text: str, system: str | None) -> list[Message]:
    from openherd.messages import Message

    before = [] if system is None else [Message("system", system)]
    return [*before, Message("user", text)]


def _warn_of_short_context(llm: LLM, asked: int | None) -> None:
    if asked is None and llm.context < llm.config.max_seq_len:
        output.note(
            f"herd: the context is {llm.context} of the model's {llm.config.max_seq_len} tokens; memory is short"
        )


def _write(stream: Stream) -> None:
    """The text as it comes. On a terminal, control characters of the model's are made visible."""
    from openherd.llm.aloud import ThinkingAloud
    from openherd.visible import visible

    to_terminal = sys.stdout.isatty()
    last, aloud = "", ThinkingAloud()
    for delta in stream:
        text = aloud.text(delta)
        sys.stdout.write(visible(text) if to_terminal else text)
        sys.stdout.flush()
        last = text or last
    if not last.endswith("\n") and (last or stream.completions[0].error is None):
        sys.stdout.write("\n")


def _report(llm: LLM, completions: list[Completion], *, as_json: bool) -> None:
    for completion in completions:
        if completion.error is not None:
            raise EngineError(f"the answer ended with an error: {completion.error}")
        if as_json:
            output.document(_document(llm, completion))
        elif len(completions) > 1:
            print(f"--- {completion.choice + 1} of {len(completions)} ---\n{completion.text}")
    if not as_json:
        output.note(_statistics(llm, completions))


def _document(llm: LLM, completion: Completion) -> dict[str, Any]:
    timing = {"load_s": llm.load_s, **completion.timing}
    document = {
        "text": completion.text,
        "token_ids": list(completion.token_ids),
        "prompt_tokens": completion.usage.prompt_tokens,
        "completion_tokens": completion.usage.completion_tokens,
        "speculation": {"drafted": completion.usage.drafted_tokens, "accepted": completion.usage.accepted_tokens},
        "finish_reason": completion.finish_reason.value,
        "seed": completion.seed,
        "numerics_id": llm.numerics_id,
        # null where nothing was measured: one token has no decode rate
        "timing": {key: timing.get(key) for key in ("load_s", "ttft_s", "prefill_tokens_per_s", "decode_tokens_per_s")},
    }
    if completion.reasoning:
        document["reasoning"] = completion.reasoning
    if completion.logprobs:
        document["logprobs"] = [
            {"token_id": p.token_id, "logprob": p.logprob, "top": [list(pair) for pair in p.top]}
            for p in completion.logprobs
        ]
    return document


def _statistics(llm: LLM, completions: list[Completion]) -> str:
    first = completions[0]
    timing = first.timing
    tokens = sum(completion.usage.completion_tokens for completion in completions)
    parts = [f"{first.usage.prompt_tokens} + {tokens} tokens", f"load {llm.load_s:.2f} s"]
    if "ttft_s" in timing:
        parts.append(f"first token {timing['ttft_s']:.2f} s ({timing['prefill_tokens_per_s']:.0f} tok/s)")
    if "decode_tokens_per_s" in timing:
        parts.append(f"then {timing['decode_tokens_per_s']:.0f} tok/s")
    if drafted := sum(completion.usage.drafted_tokens for completion in completions):
        parts.append(f"{sum(completion.usage.accepted_tokens for completion in completions)} of {drafted} drafts right")
    reasons = sorted({completion.finish_reason.value for completion in completions})
    return "herd: " + ", ".join([*parts, f"finish {'/'.join(reasons)}", f"seed {first.seed}"])
