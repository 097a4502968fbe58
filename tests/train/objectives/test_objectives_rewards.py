"""Checks of answers are total and quick, whatever a model writes; what cannot be checked is refused when it is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openherd.errors import InputError, OptionError
from openherd.tokenizers import ChatTemplate
from openherd.train.objectives.prompts import read_prompts
from openherd.train.objectives.rewards import MAX_ANSWER_BYTES, REWARDS, exact, json_schema, number, regex
from openherd.train.rows import RowError
from tests.bounds import within_cpu
from tests.train.objectives.tiny_tokenizer import tiny_tokenizer

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}
HOSTILE = [
    "",
    " ",
    "\x00",
    "\ud800",
    "\ufffd" * 50,
    "9" * MAX_ANSWER_BYTES,
    "-" * MAX_ANSWER_BYTES,
    "1," * (MAX_ANSWER_BYTES // 2),
    "[" * MAX_ANSWER_BYTES,
    '{"a":' * 10_000,
    "a" * MAX_ANSWER_BYTES,
    "a" * (10 * MAX_ANSWER_BYTES),
    "é" * MAX_ANSWER_BYTES,
    '{"name": "' + "\\" * 60_000,
    "1e999999999",
    "0." + "0" * 60_000 + "1",
]
CHECKS = {
    "exact": exact("yes"),
    "number": number("12"),
    "regex": regex("(a+)+b"),
    "regex of words": regex("(.*a){20}.*"),
    "json_schema": json_schema(SCHEMA),
}


@pytest.mark.parametrize("name", CHECKS)
def test_every_answer_gets_0_or_1_in_linear_time(name: str) -> None:
    CHECKS[name]("warm up")
    for answer in HOSTILE:
        assert within_cpu(2, lambda answer=answer: CHECKS[name](answer)) in (0.0, 1.0)


@pytest.mark.parametrize(
    ("expected", "answer", "reward"),
    [
        (18, "She makes 9 * 2 = 18 dollars.", 1),
        ("9 * 2 = <<9*2=18>>18\n#### 18", "The answer is 18.00", 1),
        ("#### 1,234", "1234", 1),
        ("1234", "it is 1,234.", 1),
        ("-5", "minus: -5", 1),
        ("5", "7-5", 1),
        ("18", "18 or 19", 0),
        ("18", "eighteen", 0),
        ("0.5", "0.50", 1),
        (3.5, "it is 3.5", 1),
        (3.5, "it is 3", 0),
        (4.0, "4", 1),
        (-1e-07, "-0.0000001", 1),
        (1e22, "10,000,000,000,000,000,000,000", 1),
        ("0.5", ".5", 0),
    ],
)
def test_number_compares_the_last_number(expected: object, answer: str, reward: int) -> None:
    assert number(expected)(answer) == reward


@pytest.mark.parametrize(
    ("pattern", "answer", "reward"),
    [
        ("[0-9]{3}", "123", 1),
        ("[0-9]{3}", " 123\n", 1),
        ("[0-9]{3}", "1234", 0),
        ("(?i)yes", "YES", 1),
        ("é+", "éé", 1),
    ],
)
def test_regex_must_match_the_whole_answer(pattern: str, answer: str, reward: int) -> None:
    assert regex(pattern)(answer) == reward


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        ('{"name": "Ada"}', 1),
        ('{\n  "name": "Ada",\n  "age": 36\n}', 1),
        ('{"name": "Ada", "age": 36.5}', 0),
        ('{"age": 36}', 0),
        ('{"name": "Ada"} and more', 0),
        ('{"name": "Ada"', 0),
        ("null", 0),
    ],
)
def test_json_schema_accepts_valid_answers_only(answer: str, reward: int) -> None:
    assert json_schema(SCHEMA)(answer) == reward


def test_exact_ignores_white_space_at_the_ends_only() -> None:
    assert exact(" yes ")("yes\n") == 1
    assert exact("yes")("Yes") == exact("yes")("y es") == 0


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        ("exact", 3),
        ("exact", "x" * (MAX_ANSWER_BYTES + 1)),
        ("number", "none"),
        ("number", True),
        ("number", None),
        ("number", "9" * 100),
        ("number", float("nan")),
        ("number", float("inf")),
        ("number", 1e300),
        ("regex", "("),
        ("regex", "(?=a)b"),
        ("regex", r"(a)\1"),
        ("regex", "a{1000000}"),
        ("regex", "((a{1000}){1000}){1000}"),
        ("json_schema", "{}"),
        ("json_schema", {"type": "nonsense"}),
        ("json_schema", {"not": {}}),
        ("json_schema", False),
    ],
)
def test_what_cannot_be_checked_is_refused_at_once(reward: str, expected: object) -> None:
    with pytest.raises(InputError):
        REWARDS[reward](expected)


def test_prompts_of_gsm8k_and_of_conversations_are_read(tmp_path: Path) -> None:
    rows = [
        {"question": "2+2", "answer": "it is 4\n#### 4"},
        {"prompt": "3+3", "answer": 6, "other": "not used"},
        {"messages": [{"role": "system", "content": "sum"}, {"role": "user", "content": "4+4"}], "answer": "8"},
    ]
    file = write(tmp_path, rows)
    tokenizer = tiny_tokenizer()
    template = ChatTemplate("{% for m in messages %}{{ m.content }}.{% endfor %}")
    prompts = read_prompts([file], "number", tokenizer, template, max_tokens=20)
    assert [tokenizer.decode(prompt.ids) for prompt in prompts.items] == ["22.", "33.", "sum.44."]  # no + in there
    assert [prompt.check("8") for prompt in prompts.items] == [0, 0, 1]
    assert prompts.items[2].where == f"{file}:3"
    assert prompts.fingerprint == read_prompts([file], "number", tokenizer, template, max_tokens=30).fingerprint
    write(tmp_path, rows[:2])
    assert prompts.fingerprint != read_prompts([file], "number", tokenizer, template, max_tokens=20).fingerprint


def test_without_a_template_a_prompt_is_text_to_go_on_from(tmp_path: Path) -> None:
    file = write(tmp_path, [{"prompt": "abc", "answer": "d"}])
    (prompt,) = read_prompts([file], "exact", tiny_tokenizer(), None, max_tokens=9).items
    assert tiny_tokenizer().decode(prompt.ids) == "abc"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ([], "an object with prompt or messages"),
        ({"prompt": "a"}, "an object with prompt or messages, and answer"),
        ({"answer": "a"}, "prompt must be text"),
        ({"prompt": "  ", "answer": "a"}, "prompt must be text"),
        ({"prompt": 3, "answer": "a"}, "prompt must be text"),
        ({"messages": [], "answer": "a"}, "messages must be a list"),
        ({"messages": [{"role": "user"}], "answer": "a"}, r"messages\[0\] must be an object"),
        ({"messages": [{"role": "robot", "content": "a"}], "answer": "a"}, "role must be one of"),
        ({"messages": [{"role": "assistant", "content": "a"}], "answer": "a"}, "end with the user's turn"),
        ({"messages": [{"role": "user", "content": "a"}], "answer": "a"}, "needs a chat template"),
        ({"prompt": "a", "answer": 3}, "expected answer must be text"),
        ({"prompt": "a" * 50, "answer": "a"}, "50 tokens; from 1 to 20"),
    ],
)
def test_a_malformed_row_is_refused_with_its_place(tmp_path: Path, row: object, says: str) -> None:
    file = write(tmp_path, [{"prompt": "fine", "answer": "fine"}, row])
    with pytest.raises(RowError, match=says) as refused:
        read_prompts([file], "exact", tiny_tokenizer(), None, max_tokens=20)
    assert str(refused.value).startswith(f"{file}:2: ")


def test_a_line_that_is_no_json_is_refused_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a", "answer": "a"}\n{"prompt": \n')
    with pytest.raises(RowError, match=r"prompts.jsonl:2: not JSON"):
        read_prompts([file], "exact", tiny_tokenizer(), None, max_tokens=20)


def test_an_unknown_reward_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, [])
    with pytest.raises(InputError, match="hold no prompt"):
        read_prompts([file], "exact", tiny_tokenizer(), None, max_tokens=20)
    with pytest.raises(OptionError, match=r"grpo\.reward must be one of exact, number, regex, json_schema"):
        read_prompts([file], "correct", tiny_tokenizer(), None, max_tokens=20)


def write(folder: Path, rows: list[object]) -> Path:
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
