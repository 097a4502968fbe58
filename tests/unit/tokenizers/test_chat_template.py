"""Chat templates render the text transformers renders, and every person's words stay known as theirs."""

from __future__ import annotations

import functools
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openherd.errors import TemplateError
from openherd.messages import Message, Origin, Span
from openherd.tokenizers.chat_template import ChatTemplate
from openherd.tokenizers.named_templates import NAMED_TEMPLATES, named_template

PARITY = Path(__file__).parents[2] / "parity"
EXPECTATIONS = json.loads((PARITY / "chat_expectations.json").read_text(encoding="utf-8"))
NOW = datetime.fromisoformat(EXPECTATIONS["now"])
CASES = [(template, talk) for template, talks in EXPECTATIONS["expected"].items() for talk in talks]


def source(name: str) -> str:
    path = PARITY / "chat_templates" / f"{name}.jinja"
    return path.read_text(encoding="utf-8") if path.exists() else named_template(name)


@functools.cache
def compiled(name: str) -> ChatTemplate:
    return ChatTemplate(source(name), bos_token="<s>", eos_token="</s>")


def messages(talk: dict[str, Any]) -> list[Message]:
    return [Message(**(fields | {"tool_calls": tuple(fields.get("tool_calls", ()))})) for fields in talk["messages"]]


def text(spans: list[Span]) -> str:
    return "".join(span.text for span in spans)


@pytest.mark.parametrize(("template", "talk"), CASES)
def test_text_equals_transformers(template: str, talk: str) -> None:
    conversation = EXPECTATIONS["conversations"][talk]
    expected = EXPECTATIONS["expected"][template][talk]

    def render() -> list[Span]:
        return compiled(template).render(
            messages(conversation),
            tools=conversation.get("tools"),
            add_generation_prompt=conversation.get("add_generation_prompt", True),
            now=NOW,
        )

    if expected is None:
        with pytest.raises(TemplateError, match="refuses this conversation"):
            render()
    else:
        assert text(render()) == expected


MARKED = st.text("ab <|im_end|>\n</s>{}%", max_size=20).map(lambda words: f"⟦{words}⟧")


@pytest.mark.parametrize("template", sorted(EXPECTATIONS["expected"]))
@given(system=MARKED, first=MARKED, answer=MARKED, second=MARKED)
def test_no_word_of_a_person_is_taken_for_the_templates(
    template: str, system: str, first: str, answer: str, second: str
) -> None:
    said = [system, first, answer, second]
    talk = [Message(role, content) for role, content in zip(["system", "user", "assistant", "user"], said, strict=True)]
    spans = compiled(template).render(talk, now=NOW)
    authored = "".join(span.text for span in spans if span.origin is Origin.TEMPLATE)
    assert "⟦" not in authored
    assert "⟧" not in authored


@pytest.mark.parametrize("template", ["chatml", "llama-3", "smollm2"])
def test_each_message_comes_out_whole_with_its_origin_and_index(template: str) -> None:
    said = [Message("system", "Be."), Message("user", "Why?"), Message("assistant", "So."), Message("tool", "42")]
    spans = compiled(template).render(said)
    others = [(s.text, s.origin, s.message_index) for s in spans if s.origin is not Origin.TEMPLATE]
    origins = [Origin.SYSTEM, Origin.USER, Origin.ASSISTANT, Origin.TOOL]
    assert others == [(m.content, origins[i], i) for i, m in enumerate(said)]


def test_an_unknown_role_is_a_persons_word() -> None:
    spans = compiled("chatml").render([Message("<|im_end|>", "x")])
    assert Span("<|im_end|>", Origin.USER, 0) in spans


def test_tools_are_not_the_templates_words() -> None:
    tool = {"name": "<|im_end|>", "parameters": {"properties": {"<|im_start|>": {"type": "</s>"}}}}
    spans = compiled("tools").render([Message("user", "x")], tools=[tool])
    authored = "".join(span.text for span in spans if span.origin is Origin.TEMPLATE)
    assert authored.count("<|im_end|>") == 2
    assert authored.count("<|im_start|>") == 3
    assert "</s>" not in authored


EXPRESSIONS = {
    "{{ c }}": True,
    "{{ c + c }}{{ 'x' + c + 'y' }}{{ c ~ 1 ~ c }}": True,
    "{{ c | trim }}{{ c.strip() }}{{ c[1:-1] }}{{ c[0] }}{{ c[::-1] }}": True,
    "{{ c | replace('a', 'b') }}{{ c.replace('<', '<<') }}{{ 'x{}y'.replace('{}', c) }}": True,
    "{{ c | upper | lower }}{{ c | title }}{{ c | capitalize }}": True,
    "{{ [c, c] | join('-') }}{{ '-'.join([c, c]) }}{{ c | list | join }}": True,
    "{{ c | indent(2) }}{{ c | string }}{{ c | safe }}": True,
    "{{ c | tojson }}{{ {'k': c} | tojson }}{{ [c] }}{{ {'k': c} }}": True,
    "{{ '%s' % c }}{{ '%s' | format(c) }}{{ '{}{x}'.format(c, x=c) }}": True,
    "{{ c * 2 }}{{ c.split('|') | join('|') }}{{ c.partition('|')[1] }}": True,
    "{% set ns = namespace(t='') %}{% set ns.t = ns.t + c %}{{ ns.t }}": True,
    "{% macro m(x) %}<{{ x }}>{{ caller() }}{% endmacro %}{% call m(c) %}{{ c }}{% endcall %}": True,
    "{% set b %}{{ c }}{% endset %}{{ b }}{% filter upper %}{{ c }}{% endfilter %}": True,
    "{% for x in c %}{{ x }}{% endfor %}{{ c | first }}{{ c | last }}{{ c | reverse }}": True,
    "{{ messages | map(attribute='content') | join }}{{ messages | tojson }}{{ messages }}": True,
    "{{ 'plain' }}{{ 1 + 1 }}": False,
}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_persons_characters_survive_no_operation_as_the_templates(expression: str) -> None:
    """The message is written in letters the templates do not use; none may come out as a template's."""
    spans = ChatTemplate("{% set c = messages[0].content %}" + expression).render([Message("user", "ⓐ|Ⓑ")])
    authored = "".join(span.text for span in spans if span.origin is Origin.TEMPLATE)
    assert not set(authored) & set("ⓐⒶⓑⒷ")
    assert bool(set(text(spans)) & set("ⓐⒶⓑⒷ")) is EXPRESSIONS[expression]


@pytest.mark.parametrize(
    "expression",
    [
        "{{ '<|end|>' }}<|end|>",
        "{{ '<|' + 'end' + '|>' }}",
        "{{ '<|end|> ' | trim }}",
        "{{ ['<|end|>', messages[0].content] | join }}",
        "{{ '<|{}|>'.format('end') }}",
        "{{ '<|' ~ messages[0].role ~ '|>' }}",
        "{% set b %}<|end|>{% endset %}{{ b }}",
        "{% macro m() %}<|end|>{% endmacro %}{{ m() }}",
        "{{ '<|X|>'.replace('X', 'end') }}{{ '<|end|>' * 2 }}",
        "{{ bos_token }}",
        "{{ ('x' if false else '<|end|>')[0:] }}",
    ],
)
def test_the_templates_own_words_stay_its_own(expression: str) -> None:
    spans = ChatTemplate(expression, bos_token="<|end|>").render([Message("user", "⟦⟧")])
    authored = [span.text for span in spans if span.origin is Origin.TEMPLATE]
    assert "".join(authored).startswith("<|")
    assert "⟦" not in "".join(authored)


def test_a_replacement_inside_a_persons_text_is_that_persons() -> None:
    template = ChatTemplate("{{ messages[0].content | replace('[img]', '<|image|>') }}")
    assert template.render([Message("user", "see [img]")]) == [Span("see <|image|>", Origin.USER, 0)]


def test_no_template_says_how_to_name_one() -> None:
    with pytest.raises(TemplateError, match=r"--template FILE, or --template chatml"):
        ChatTemplate(None)


def test_a_named_template_is_one_of_a_few() -> None:
    for name in NAMED_TEMPLATES:
        ChatTemplate(named_template(name))
    with pytest.raises(TemplateError, match="chatml, llama-2, llama-3"):
        named_template("../chatml")


@pytest.mark.parametrize(
    "bad",
    ["{% for %}", "{{ x", "{{ 'a' | no_such_filter }}", "{% autoescape true %}{% endautoescape %}", "{{ " + "(" * 5000],
)
def test_a_template_that_does_not_compile_is_refused(bad: str) -> None:
    with pytest.raises(TemplateError, match="chat template"):
        ChatTemplate(bad)


@pytest.mark.parametrize(
    "bad", ["{{ x.y.z }}", "{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{% include 'x' %}", "{{ messages() }}"]
)
def test_a_template_that_fails_is_one_clear_error(bad: str) -> None:
    with pytest.raises(TemplateError, match="cannot render this conversation"):
        ChatTemplate(bad).render([Message("user", "x")])


def test_a_long_conversation_is_within_the_bounds() -> None:
    talk = [Message("user" if i % 2 == 0 else "assistant", "word " * 400) for i in range(1001)]
    for name in EXPECTATIONS["expected"]:
        assert compiled(name).render(talk, now=NOW)
