"""The slash commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from openherd.chat.commands import COMMANDS, Session, execute
from openherd.chat.conversation import Conversation
from openherd.errors import HerdError, InputError, OptionError
from openherd.options import SamplingParams
from tests.unit.chat.scripted import ScriptedModel, saying


@pytest.fixture
def session() -> Session:
    conversation = Conversation(saying("one two", "three"), SamplingParams())
    list(conversation.ask("question"))
    return Session(conversation)


def test_system(session: Session) -> None:
    assert execute(session, "/system").text == "there is no system message"
    execute(session, "/system  be brief ")
    assert session.conversation.messages[0].content == "be brief"
    assert execute(session, "/system").text == "be brief"


def test_regen_undo_new(session: Session) -> None:
    assert execute(session, "/regen").regenerate
    assert execute(session, "/undo").text == "taken back: question"
    assert session.conversation.messages == []
    for command in ("/regen", "/undo"):
        with pytest.raises(InputError):
            execute(session, command)
    list(session.conversation.ask("again"))
    execute(session, "/new")
    assert session.conversation.messages == []


def test_save_and_load(session: Session, tmp_path: Path) -> None:
    file = tmp_path / "my talk.jsonl"
    execute(session, "/system brief")
    before = session.conversation.messages
    execute(session, f"/save {file}")
    execute(session, f"/save {file}")  # its own file may be written again
    other = Session(Conversation(ScriptedModel([]), SamplingParams()))
    assert execute(other, f"/load {file}").text == f"loaded 3 messages from {file}"
    assert other.conversation.messages == before
    with pytest.raises(InputError, match="exists and was not written by this conversation"):
        execute(other, f"/save {file}")


def test_a_load_that_fails_changes_nothing(session: Session, tmp_path: Path) -> None:
    before = session.conversation.messages
    (tmp_path / "bad.jsonl").write_text("bad")
    with pytest.raises(HerdError):
        execute(session, f"/load {tmp_path / 'bad.jsonl'}")
    assert session.conversation.messages == before


def test_params(session: Session) -> None:
    assert "temperature" in execute(session, "/params").text
    for line in ("/params temperature 0", "/params top-k 40", "/params stop a b", "/params ignore_eos on"):
        execute(session, line)
    params = session.conversation.params
    assert (params.temperature, params.top_k, params.stop, params.ignore_eos) == (0.0, 40, ("a b",), True)
    execute(session, "/params top_k default")
    assert session.conversation.params.top_k == SamplingParams().top_k


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("/params temperature nan", "temperature must be a number"),
        ("/params temperature hot", "temperature cannot be 'hot'"),
        ("/params temprature 1", "did you mean temperature"),
        ("/params n 3", "no parameter is called 'n'"),
        ("/params seed -1", "seed must be a whole number"),
        ("/params ignore_eos maybe", "ignore_eos cannot be"),
    ],
)
def test_a_wrong_parameter_changes_nothing(session: Session, line: str, why: str) -> None:
    with pytest.raises(OptionError, match=why):
        execute(session, line)
    assert session.conversation.params == SamplingParams()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("/sytem x", "did you mean /system"),
        ("/", "no command is called /"),
        ("/zzz", "/help lists them"),
        ("/undo 3", "stands alone"),
        ("/save", "needs a file name"),
        ("/load", "needs a file name"),
        ("/save ~nobody-at-all/x.md", "no such home folder"),
        ("/params seed", "needs a value"),
    ],
)
def test_a_wrong_command_says_what_to_do(session: Session, line: str, why: str) -> None:
    with pytest.raises(InputError) as caught:
        execute(session, line)
    assert why in str(caught.value)


def test_stats_help_exit(session: Session) -> None:
    stats = execute(session, "/stats").text
    assert "scripted" in stats
    assert "context 3 of 1000 (0%)" in stats
    help_page = execute(session, "/help").text
    assert all(command.usage in help_page for command in COMMANDS.values())
    assert execute(session, "/exit").leave
