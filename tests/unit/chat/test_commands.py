"""The slash commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from openherd.chat.commands import COMMANDS, Session, execute
from openherd.chat.conversation import Conversation
from openherd.chat.sampling import CHANGEABLE
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
    assert execute(session, "/undo").text == "taken back, with its answer: question"
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
    assert "replacing" in execute(session, f"/save {file}").text  # its own file may be written again
    other = Session(Conversation(ScriptedModel([]), SamplingParams()))
    assert execute(other, f"/load {file}").text == f"loaded 3 messages from {file}"
    assert other.conversation.messages == before
    assert "replacing" in execute(other, f"/save {file}").text  # also the one it was loaded from


@pytest.mark.parametrize("forget", ["/new", "/load {}"])
def test_a_file_of_another_conversation_is_replaced_only_when_told(
    session: Session, tmp_path: Path, forget: str
) -> None:
    file, elsewhere = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    execute(session, f"/save {file}")
    execute(session, f"/save {elsewhere}")
    before = file.read_bytes()
    execute(session, forget.format(elsewhere))
    with pytest.raises(InputError, match=r"exists and is not of this conversation\n.*/save! "):
        execute(session, f"/save {file}")
    assert file.read_bytes() == before
    execute(session, "/system brief")
    assert "replacing" in execute(session, f"/save! {file}").text
    assert file.read_bytes() != before


def test_one_message_is_not_messages(tmp_path: Path) -> None:
    session = Session(Conversation(ScriptedModel([]), SamplingParams(), system="brief"))
    assert execute(session, f"/save {tmp_path / 'a.jsonl'}").text.startswith("saved 1 message as ")


@pytest.mark.parametrize(
    ("asked", "shown"),
    [("x" * 60, "x" * 60), ("x" * 61, "x" * 60 + "…"), ("one\ntwo", "one…"), (" one ", "one"), ("", "")],
)
def test_undo_shows_where_it_cut(asked: str, shown: str) -> None:
    session = Session(Conversation(saying("answer"), SamplingParams()))
    list(session.conversation.ask(asked))
    assert execute(session, "/undo").text == f"taken back, with its answer: {shown}"


def test_an_answer_that_would_repeat_says_why(session: Session) -> None:
    assert execute(session, "/regen").text == ""
    execute(session, "/params seed 5")
    assert "/params seed default" in execute(session, "/regen").text
    execute(session, "/params temperature 0")
    outcome = execute(session, "/regen")
    assert "temperature 0 the answer is the same" in outcome.text
    assert outcome.regenerate


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
    assert execute(session, "/params top-k").text.startswith(f"top_k  {SamplingParams().top_k}  ")


def test_help_of_parameters_stays_in_its_column(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    lines = execute(session, "/params").text.splitlines()
    assert max(map(len, lines)) <= 70
    starts = [line for line in lines if not line.startswith(" ")]
    assert [line.split()[0] for line in starts] == list(CHANGEABLE)
    assert len(lines) > len(starts)
    monkeypatch.setenv("COLUMNS", "20")
    assert len(execute(session, "/params").text.splitlines()) == len(CHANGEABLE)


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
        ("/params sed", "did you mean seed"),
    ],
)
def test_a_wrong_command_says_what_to_do(session: Session, line: str, why: str) -> None:
    with pytest.raises(InputError) as caught:
        execute(session, line)
    assert why in str(caught.value)


def test_stats_help_exit(session: Session) -> None:
    stats = execute(session, "/stats").text
    assert "scripted" in stats
    assert "1 exchange, context 3 of 1,000 (0%)" in stats
    assert "its seed       7\n" in stats
    help_page = execute(session, "/help").text
    assert all(command.usage in help_page for command in COMMANDS.values())
    assert execute(session, "/exit").leave
