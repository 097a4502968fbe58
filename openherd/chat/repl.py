"""The conversation at a keyboard: prompt, keys, completion of commands, and what Ctrl-C means where."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable
from contextlib import closing

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from rich.console import Console
from rich.text import Text

from openherd.chat import render, statistics
from openherd.chat.commands import COMMANDS, Session, execute
from openherd.chat.conversation import Conversation
from openherd.chat.echo import no_echo
from openherd.chat.sampling import CHANGEABLE
from openherd.errors import ContextLengthError, HerdError
from openherd.store.home import history_file
from openherd.visible import visible

_QUOTES = '"""'


def talk(conversation: Conversation) -> None:
    """Read, answer, repeat, until /exit, Ctrl-D, or Ctrl-C twice."""
    console = Console(highlight=False)
    prompt: PromptSession[str] = PromptSession(
        history=_history(console),
        completer=CommandCompleter(),
        complete_while_typing=True,
        multiline=True,
        key_bindings=_keys(),
        prompt_continuation=FormattedText([("class:prompt", "| ")]),
    )
    _note(
        console, f"{conversation.model.name}, {conversation.model.context:,} tokens of context. /help lists commands."
    )
    session = Session(conversation)
    while (text := _read(prompt, console)) is not None:
        if text.startswith("/"):
            if not _command(session, text, console):
                return
        elif text.strip():
            _answer(conversation, conversation.ask(text.strip()), console)


def is_complete(text: str) -> bool:
    """Whether Enter sends: no backslash at the end, no open triple quotes."""
    return not text.endswith("\\") and text.count(_QUOTES) % 2 == 0


def unwrapped(text: str) -> str:
    """A message as meant: without the quotes around it and the backslashes that carried it on."""
    text = text.replace("\\\n", "\n")
    inner = text.strip()
    if inner.startswith(_QUOTES) and inner.endswith(_QUOTES) and len(inner) >= 2 * len(_QUOTES):
        text = inner[len(_QUOTES) : -len(_QUOTES)].strip("\n")
    return text.encode("utf-8", "replace").decode()  # a terminal can send bytes that are no text


class CommandCompleter(Completer):
    """Names of commands, and of parameters after /params."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        head, space, rest = text.partition(" ")
        if not space and text.startswith("/"):
            for name, command in COMMANDS.items():
                if name.startswith(text):
                    yield Completion(name, start_position=-len(text), display_meta=command.help)
        elif head == "/params" and " " not in rest:
            for parameter in CHANGEABLE:
                if parameter.startswith(rest):
                    yield Completion(parameter, start_position=-len(rest))


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_complete(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _read(prompt: PromptSession[str], console: Console) -> str | None:
    """The next message or command; None to leave."""
    interrupted = False
    while True:
        try:
            return unwrapped(prompt.prompt(FormattedText([("class:prompt bold", "> ")])))
        except EOFError:
            return None
        except KeyboardInterrupt:
            if interrupted:
                return None
            interrupted = True
            _note(console, "Ctrl-C again, Ctrl-D or /exit leaves.")


def _command(session: Session, text: str, console: Console) -> bool:
    """Whether to go on."""
    try:
        outcome = execute(session, text)
    except HerdError as error:
        _complain(console, error)
        return True
    if outcome.text:
        console.print(Text(visible(outcome.text)))
    if outcome.regenerate:
        _answer(session.conversation, session.conversation.regenerate(), console)
    return not outcome.leave


def _answer(conversation: Conversation, pieces: Generator[str, None, None], console: Console) -> None:
    """Show an answer as it is made. Ctrl-C stops it; what there is of it stays in the conversation."""
    before = conversation.exchanges[-1:]
    console.print()
    try:
        with closing(pieces), no_echo():
            render.show(console, pieces)
    except KeyboardInterrupt:
        if conversation.exchanges[-1:] == before:
            _note(console, "stopped before the first word; nothing was added to the conversation")
            return
    except ContextLengthError as error:
        # Its own hint is for a single prompt.
        _complain(console, HerdError(error.args[0], hint=statistics.too_long_notice(conversation)))
        return
    except HerdError as error:
        _complain(console, error)
        return
    _note(console, statistics.line(conversation))
    if conversation.context_is_full:
        console.print(Text(statistics.full_notice(conversation.model.context), style="yellow"))


def _history(console: Console) -> History:
    """What was typed, kept between conversations; in memory alone where the store cannot be written."""
    try:
        file = history_file()
        file.touch(mode=0o600)
        return FileHistory(str(file))
    except (HerdError, OSError) as error:
        _note(console, f"what you type will not be remembered: {error}")
        return InMemoryHistory()


def _complain(console: Console, error: HerdError) -> None:
    console.print(Text(visible(str(error)), style="red"))


def _note(console: Console, text: str) -> None:
    console.print(Text(visible(text), style="dim"))
    sys.stdout.flush()
