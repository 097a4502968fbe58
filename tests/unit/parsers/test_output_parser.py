"""Model output as reasoning, text and calls: every format, every split, everything that only looks like a call."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence

import pytest

from openherd.parsers import HERMES, LLAMA_3, MISTRAL, Kind, ModelFormat, OutputParser, Piece, ToolFormat

NAMES = {"weather", "add"}
PARIS = ("weather", '{"city": "Paris"}')
ADD = ("add", '{"a": [1, {"b": "}]\\"{"}]}')


def parser(form: ToolFormat, *, is_held: bool = False, thinks: bool = False, is_thinking: bool = False) -> OutputParser:
    return OutputParser(ModelFormat(form, True, thinks), NAMES, is_held=is_held, is_thinking=is_thinking)


def read(reader: OutputParser, parts: Sequence[str]) -> list[Piece]:
    """Neighbours of one kind joined; calls stay apart. What is held never exceeds what was read."""
    pieces: list[Piece] = []
    length = sum(map(len, parts))
    for part in parts:
        pieces += reader.add(part)
        assert reader.num_held <= length
    pieces += reader.finish()
    assert reader.num_held == 0
    joined: list[Piece] = []
    for piece in pieces:
        assert piece.text or piece.kind is Kind.ARGUMENTS
        if joined and joined[-1].kind == piece.kind != Kind.CALL:
            piece = Piece(piece.kind, joined.pop().text + piece.text)
        joined.append(piece)
    return joined


def calls(pieces: Sequence[Piece]) -> list[tuple[str, object]]:
    found = []
    for place, piece in enumerate(pieces):
        if piece.kind is Kind.CALL:
            assert pieces[place + 1].kind is Kind.ARGUMENTS
            found.append((piece.text, json.loads(pieces[place + 1].text)))
    return found


def text(pieces: Sequence[Piece], kind: Kind = Kind.TEXT) -> str:
    return "".join(piece.text for piece in pieces if piece.kind is kind)


def hermes(*asked: tuple[str, str]) -> str:
    return "\n".join(f'<tool_call>\n{{"name": "{n}", "arguments": {a}}}\n</tool_call>' for n, a in asked)


def mistral(*asked: tuple[str, str]) -> str:
    return "[TOOL_CALLS][" + ", ".join(f'{{"name": "{n}", "arguments": {a}}}' for n, a in asked) + "]"


def llama(*asked: tuple[str, str]) -> str:
    return "; ".join(f'{{"name": "{n}", "parameters": {a}}}' for n, a in asked)


def tagged(*asked: tuple[str, str]) -> str:
    return "<|python_tag|>" + llama(*asked)


WRITERS = [(HERMES, hermes), (MISTRAL, mistral), (LLAMA_3, llama), (LLAMA_3, tagged)]
IDS = ["hermes", "mistral", "llama", "llama-tagged"]


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize(("form", "write"), WRITERS, ids=IDS)
def test_calls_of_each_format(form: ToolFormat, write, is_held: bool) -> None:  # type: ignore[no-untyped-def]
    for asked in ([PARIS], [PARIS, ADD], [ADD, PARIS, ADD]):
        pieces = read(parser(form, is_held=is_held), [write(*asked)])
        assert calls(pieces) == [(name, json.loads(arguments)) for name, arguments in asked]
        assert text(pieces) == ""


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize(("form", "write"), WRITERS, ids=IDS)
def test_a_thousand_splits_change_nothing(form: ToolFormat, write, is_held: bool) -> None:  # type: ignore[no-untyped-def]
    rng = random.Random(5)
    good = write(PARIS, ADD)
    scraps = [
        good, write(PARIS), "  \n", "text ", "<tool_", "</tool_call>", "[TOOL", "[TOOL_CALLS]", "<|python_tag|>",
        "<tool_call>", '{"name": "weather", ', '{"name": "nobody", "arguments": {}}', "}", "]", ", ", ";", "[", '"\\',
        '{"a": "</tool_call>"}', "<think>", "</think>", "</th", "\u00e9\U0001f600",
    ]  # fmt: skip
    num_calls = 0
    for _ in range(1000):
        answer = "".join(rng.choices(scraps, k=rng.randrange(1, 6)))
        options = {"is_held": is_held, "thinks": rng.random() < 0.5, "is_thinking": rng.random() < 0.3}
        whole = read(parser(form, **options), [answer])
        assert read(parser(form, **options), list(answer)) == whole
        cuts = sorted(rng.sample(range(len(answer) + 1), min(len(answer), rng.randrange(1, 6))))
        parts = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
        assert read(parser(form, **options), parts) == whole
        num_calls += len(calls(whole)) if not is_held else 0
    assert num_calls > 100 or is_held


@pytest.mark.parametrize(
    "answer",
    [
        "just text",
        "  text with blanks  \n",
        "a <tool_call that never was",
        "<tool_call>",
        "<tool_call>\n",
        "<tool_call>not an object</tool_call>",
        '<tool_call>{"name": "nobody", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {"x": NaN}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {"x": 1e999}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {"city": Paris}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {"city": "Par',
        '<tool_call>{"name": "weather", "arguments": ' + "[" * 5000 + "]" * 5000 + "}</tool_call>",
        "<tool_call>" + '{"a":' * 5000 + "1" + "}" * 5000,
        '<tool_call>{"name": "weather", "arguments": {"x": ' + "9" * 5000 + "}}",
        "<think>not at the start of a model that thinks</think>",
    ],
    ids=range(16),
)
def test_what_only_looks_like_a_call_is_text_to_the_last_character(answer: str) -> None:
    assert read(parser(HERMES), [answer]) == [Piece(Kind.TEXT, answer)]
    assert text(read(parser(HERMES), list(answer))) == answer


def test_text_stands_around_calls_and_the_blanks_beside_them_go() -> None:
    pieces = read(parser(HERMES), [f"I will look.\n\n{hermes(PARIS)}\n  Done.\n"])
    assert [piece.kind for piece in pieces] == [Kind.TEXT, Kind.CALL, Kind.ARGUMENTS, Kind.TEXT]
    assert (pieces[0].text, pieces[-1].text) == ("I will look.", "Done.\n")


def test_a_list_of_calls_in_one_pair_of_tags() -> None:
    inner = ", ".join(f'{{"name": "{n}", "arguments": {a}}}' for n, a in (PARIS, ADD))
    pieces = read(parser(HERMES), [f"<tool_call>[{inner}]</tool_call>"])
    assert [name for name, _ in calls(pieces)] == ["weather", "add"]
    assert text(pieces) == ""


@pytest.mark.parametrize(
    "written",
    [
        '{"parameters": {"city": "Paris"}, "name": "weather"}',
        '{"type": "function", "function": "weather", "parameters": {"city": "Paris"}}',
        '{"name":"weather","arguments":"{\\"city\\":\\"Paris\\"}"}',
        '  {\n  "name": "weather",\n  "parameters": {"city": "Paris"}\n}\n',
    ],
)
def test_forms_that_models_stray_into(written: str) -> None:
    pieces = read(parser(LLAMA_3), [written])
    assert calls(pieces) == [("weather", {"city": "Paris"})]
    assert text(pieces) == ""


def test_half_a_surrogate_pair_in_arguments_stays_an_escape() -> None:
    pieces = read(parser(LLAMA_3), ['{"name": "weather", "parameters": {"city": "\\ud83d"}}'])
    assert pieces[1].text.encode() == b'{"city": "\\ud83d"}'


def test_json_that_is_no_call_is_an_answer() -> None:
    answer = '{"city": "Paris", "name": "somebody"}'
    assert read(parser(LLAMA_3), [answer]) == [Piece(Kind.TEXT, answer)]


def test_held_calls_come_out_as_they_are_made() -> None:
    reader = parser(HERMES, is_held=True)
    seen = [[(piece.kind, piece.text) for piece in reader.add(char)] for char in hermes(PARIS)]
    assert [piece[1] for pieces in seen for piece in pieces if piece[0] is Kind.ARGUMENTS] == list(PARIS[1])
    cut = read(parser(HERMES, is_held=True), [hermes(PARIS)[:60]])
    assert [piece.kind for piece in cut] == [Kind.CALL, Kind.ARGUMENTS]
    assert PARIS[1].startswith(cut[1].text)


def test_reasoning_comes_first_and_apart() -> None:
    answer = f"<think>\nI should call <tool_call> it.\n</think>\n\n{hermes(PARIS)}"
    pieces = read(parser(HERMES, thinks=True), [answer])
    assert text(pieces, Kind.REASONING) == "I should call <tool_call> it."
    assert calls(pieces) == [("weather", {"city": "Paris"})]
    assert text(pieces) == ""


def test_reasoning_that_the_prompt_opened_or_that_never_ends() -> None:
    opened = read(parser(HERMES, thinks=True, is_thinking=True), ["So.\n</think>\nParis."])
    assert opened == [Piece(Kind.REASONING, "So."), Piece(Kind.TEXT, "Paris.")]
    endless = read(parser(HERMES, thinks=True), [" <think>So </th"])
    assert endless == [Piece(Kind.REASONING, "So </th")]
    late = read(parser(HERMES, thinks=True), ["No. <think>So</think>"])
    assert late == [Piece(Kind.TEXT, "No. <think>So</think>")]


@pytest.mark.parametrize("unit", [" ", "<tool_call>", "{", '<tool_call>{"name":', "<", "[TOOL_CALLS][", "a "])
def test_time_is_linear(unit: str) -> None:
    def seconds(times: int) -> float:
        started = time.thread_time()
        reader = parser(HERMES, thinks=True)
        for _ in range(times):
            reader.add(unit)
        reader.finish()
        return time.thread_time() - started

    seconds(1000)
    short = min(seconds(4000) for _ in range(3))
    long = min(seconds(32000) for _ in range(3))
    assert long < 3 * 8 * short + 0.05, f"{long:.3f} s for eight times the text of {short:.3f} s"


MARKED = [
    ("<tool_response>\nIt is 20 degrees.\n</tool_response>", "It is 20 degrees.\n"),
    ("So:\n<tool_response>\n20\n</tool_response>\nDone.", "So:\n20\nDone."),
    ("a <tool_response>b</tool_response> c", "a b c"),
    ("<tool_response><tool_response>\n\nx", "\nx"),
    ("</tool_response>", ""),
    ("a <tool_resp", "a <tool_resp"),
    ("a </tool_responses> <tool_call", "a </tool_responses> <tool_call"),
    ("1 < 2 </ 3 <<tool_response>", "1 < 2 </ 3 <"),
]


@pytest.mark.parametrize("has_names", [True, False])
@pytest.mark.parametrize(("written", "shown"), MARKED, ids=range(len(MARKED)))
def test_the_marks_of_results_are_left_out(written: str, shown: str, has_names: bool) -> None:
    """A model that has read results writes their marks into its answer; its reader has never seen them."""
    for width in (1, 2, 3, 7, len(written)):
        form = ModelFormat(HERMES, False, False)
        reader = OutputParser(form, NAMES if has_names else set(), has_tools=True)
        pieces = read(reader, [written[start : start + width] for start in range(0, len(written), width)])
        assert {piece.kind for piece in pieces} <= {Kind.TEXT}
        # Blanks before what may become a call, and at its end, wait for what follows; nothing else is changed.
        assert text(pieces) == shown
    plain = OutputParser(ModelFormat(HERMES, False, False), NAMES)
    assert text(read(plain, [written])) == written, "only where the prompt speaks of tools"


def test_marks_of_results_inside_arguments_and_beside_calls() -> None:
    asked = ("add", '{"a": "<tool_response>"}')
    for width in (1, 5, 1000):
        written = f"Look: <tool_resp{hermes(asked)}<tool_response>3</tool_response>"
        reader = OutputParser(ModelFormat(HERMES, True, False), NAMES, has_tools=True)
        pieces = read(reader, [written[start : start + width] for start in range(0, len(written), width)])
        assert calls(pieces) == [("add", {"a": "<tool_response>"})]
        assert [piece.kind for piece in pieces] == [Kind.TEXT, Kind.CALL, Kind.ARGUMENTS, Kind.TEXT]
        assert text(pieces) == "Look: <tool_resp3"


SECTIONS = [
    ("<think>ab</think>c", False, 17),
    ("  <think>\n</think>", False, 18),
    ("ab</think>c", True, 10),
    ("no section <think>x</think>", False, 0),
    ("<thin", False, 0),
    ("<think>ab</thin", False, None),
    ("ab", True, None),
]


@pytest.mark.parametrize(("written", "is_thinking", "end"), SECTIONS, ids=range(len(SECTIONS)))
def test_where_the_thinking_section_ends(written: str, is_thinking: bool, end: int | None) -> None:
    for width in (1, 3, 100):
        reader = parser(HERMES, thinks=True, is_thinking=is_thinking)
        read(reader, [written[start : start + width] for start in range(0, len(written), width)])
        assert reader.reasoning_end == end
    assert parser(HERMES).reasoning_end == 0
