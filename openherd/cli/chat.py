"""herd chat: a conversation in the terminal, or with whatever is piped in."""

from __future__ import annotations

import sys

from openherd.cli import assumptions, output
from openherd.cli.flags import (
    ENGINE,
    ConversationFlags,
    EngineFlags,
    JsonFlag,
    OfflineFlag,
    parse_adapter,
    require_text,
    start_lightly,
    warn_of_many_threads,
)
from openherd.errors import OptionError


def chat(
    model: str | None = None,
    /,
    *,
    system: str | None = None,
    template: str | None = None,
    adapter: str | None = None,
    params: ConversationFlags | None = None,
    engine: EngineFlags = ENGINE,
    offline: OfflineFlag = False,
    json: JsonFlag = False,
) -> None:
    """Talk with a model in the terminal. Piped input is answered line by line, as plain text, in one conversation,
    greedily unless --temperature says otherwise.

    Parameters
    ----------
    model
        A catalogue name or a file; none: the default model.
    system
        A system message before the conversation.
    template
        A built-in chat template (chatml, llama-2, llama-3) or a Jinja file instead of the model's own.
    adapter
        A LoRA adapter, as NAME=PATH or PATH.
    """
    params = params or ConversationFlags()
    require_text({"--system": system, "--stop": "".join(params.stop)})
    for flag, asked in (("--n", params.n != 1), ("--logprobs", params.logprobs is not None)):
        if asked:
            raise OptionError(f"{flag} has no effect in a conversation; herd run has it", hint="try: herd run --help")
    name, adapters = parse_adapter(adapter)
    warn_of_many_threads(engine.threads)
    start_lightly()

    from openherd.chat.conversation import Conversation
    from openherd.llm import LLM

    at_keyboard = sys.stdin.isatty() and sys.stdout.isatty() and not json
    with LLM.load(model, options=engine, template=template, adapters=adapters, offline=offline) as llm:
        assumptions.say(llm.assumed)
        if llm.context < llm.config.max_seq_len:
            output.note(
                f"the context is {llm.context} of the {llm.config.max_seq_len} tokens the model was trained for"
            )
        conversation = Conversation(llm, params, system=system, adapter=name)
        if at_keyboard:
            from openherd.chat.repl import talk

            talk(conversation)
        else:
            from openherd.chat.piped import answer_lines

            answer_lines(conversation, sys.stdin.buffer, sys.stdout, sys.stderr, as_json=json)
