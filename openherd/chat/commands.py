"""The slash commands of a conversation: a table, and one short function each."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from openherd.chat import sampling, statistics, transcript
from openherd.chat.conversation import Conversation, Exchange
from openherd.errors import InputError
from openherd.words import counted


@dataclass(slots=True)
class Session:
    """What commands work on."""

    conversation: Conversation
    saved: set[Path] = field(default_factory=set)  # files of this conversation, which it may write again


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command has to say, and what is to be done next."""

    text: str = ""
    regenerate: bool = False
    leave: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    usage: str
    help: str
    run: Callable[[Session, str], Outcome]


def execute(session: Session, line: str) -> Outcome:
    """Run the command that `line` spells. Raises HerdErrors for the person."""
    name, _, argument = line.strip().partition(" ")
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"no command is called {name}{guess}", hint="/help lists them; begin with a space to say it")
    return COMMANDS[name].run(session, argument.strip())


def _system(session: Session, argument: str) -> Outcome:
    conversation = session.conversation
    if argument:
        conversation.system = argument
        return Outcome("the system message is set; it counts from the next answer on")
    return Outcome(conversation.system if conversation.system is not None else "there is no system message")


def _regen(session: Session, argument: str) -> Outcome:
    _none_expected("/regen", argument)
    conversation = session.conversation
    if not conversation.exchanges:
        raise InputError("there is no answer yet to make again")
    return Outcome(sampling.why_repeated(conversation.params), regenerate=True)


def _undo(session: Session, argument: str) -> Outcome:
    _none_expected("/undo", argument)
    undone = session.conversation.undo()
    return Outcome(f"taken back, with its answer: {_opening(undone.asked.content)}")


def _new(session: Session, argument: str) -> Outcome:
    _none_expected("/new", argument)
    session.conversation.begin()
    session.saved.clear()
    return Outcome("a new conversation; the system message stays")


def _save(session: Session, argument: str) -> Outcome:
    path = _path("/save", argument)
    if path.exists() and path not in session.saved:
        raise InputError(
            f"{path} exists and is not of this conversation", hint=f"choose another name, or replace it: /save! {path}"
        )
    return _write(session, path)


def _replace(session: Session, argument: str) -> Outcome:
    return _write(session, _path("/save!", argument))


def _write(session: Session, path: Path) -> Outcome:
    messages = session.conversation.messages
    replaced = ", replacing what it held" if path.exists() else ""
    transcript.save(path, messages, session.conversation.model.name)
    session.saved.add(path)
    return Outcome(f"saved {counted(len(messages), 'message')} as {path}{replaced}")


def _load(session: Session, argument: str) -> Outcome:
    path = _path("/load", argument)
    messages = transcript.load(path)
    has_system = bool(messages) and messages[0].role == "system"
    turns = messages[1:] if has_system else messages
    session.conversation.system = messages[0].content if has_system else None
    exchanges = [Exchange(asked, answered, None) for asked, answered in zip(turns[::2], turns[1::2], strict=True)]
    session.conversation.begin(exchanges)
    session.saved = {path}
    return Outcome(f"loaded {counted(len(messages), 'message')} from {path}")


def _params(session: Session, argument: str) -> Outcome:
    name, _, value = argument.partition(" ")
    conversation = session.conversation
    if not value.strip():
        shown = [sampling.known(name)] if name else list(sampling.CHANGEABLE)
        return Outcome(sampling.described(conversation.params, shown, shutil.get_terminal_size().columns))
    conversation.params = sampling.changed(conversation.params, name, value.strip())
    return Outcome(f"{name} is {value.strip()} from the next answer on")


def _stats(session: Session, argument: str) -> Outcome:
    _none_expected("/stats", argument)
    return Outcome(statistics.page(session.conversation))


def _help(session: Session, argument: str) -> Outcome:
    width = max(len(command.usage) for command in COMMANDS.values())
    lines = [f"{command.usage:{width}}  {command.help}" for command in COMMANDS.values()]
    return Outcome("\n".join([*lines, "", HELP_KEYS]))


def _exit(session: Session, argument: str) -> Outcome:
    return Outcome(leave=True)


def _none_expected(name: str, argument: str) -> None:
    if argument:
        raise InputError(f"{name} stands alone, without {argument!r}")


def _opening(text: str) -> str:
    """The first line of a message, shortened where it says more."""
    line, _, rest = text.strip().partition("\n")
    cut = line[:_OPENING_CHARACTERS]
    return f"{cut.rstrip()}…" if rest or len(cut) < len(line) else line


def _path(name: str, argument: str) -> Path:
    if not argument:
        raise InputError(f"{name} needs a file name", hint=f"try: {name} conversation.jsonl")
    try:
        return Path(argument).expanduser().absolute()
    except RuntimeError:
        raise InputError(f"there is no such home folder: {argument}") from None


_OPENING_CHARACTERS = 60

HELP_KEYS = """Enter sends. Alt-Enter, or a backslash at the end, goes on to a new line;
so does everything between two lines of three double quotes.
Ctrl-C stops the answer; twice at the prompt it leaves.
A message that begins with a slash: put a space before it."""

COMMANDS: dict[str, Command] = {
    "/system": Command("/system [TEXT]", "show or set the system message", _system),
    "/regen": Command("/regen", "answer the last message again", _regen),
    "/undo": Command("/undo", "take the last message and its answer back", _undo),
    "/new": Command("/new", "forget the conversation and begin another", _new),
    "/save": Command("/save FILE", "keep the conversation: .jsonl to load again, .md to read", _save),
    "/save!": Command("/save! FILE", "the same, replacing a file that is there", _replace),
    "/load": Command("/load FILE", "go on with a saved .jsonl conversation", _load),
    "/params": Command("/params [NAME [VALUE]]", "show or change sampling; NAME default goes back", _params),
    "/stats": Command("/stats", "tokens, speed, cache", _stats),
    "/help": Command("/help", "show this", _help),
    "/exit": Command("/exit", "leave", _exit),
}
