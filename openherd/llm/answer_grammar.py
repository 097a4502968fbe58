"""The grammar of an answer that has parts: calls of functions, which it may or must make, and thoughts before it.

A call is held to its function's schema from the moment it begins; text before it is free. A model that thinks aloud
thinks first. The grammar writes calls in one spelling, the one that `parsers.tool_calls` gives out as it comes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from openherd.constrain import Grammar
from openherd.llm.constrained import Schema, as_grammar
from openherd.llm.tools import Tool, Toolbox
from openherd.parsers import THINK_CLOSE, THINK_OPEN, ModelFormat

MAX_CALLS = 32  # in one answer: a small model may repeat itself for ever
_ANY = r"/(.|\n)*/"


def answer_grammar(
    form: ModelFormat,
    box: Toolbox,
    *,
    control_ids: Mapping[str, int],
    is_thinking: bool,
    answer: Schema | None = None,
    is_loose: bool = False,
) -> Grammar:
    """`control_ids`: markers that are control tokens, with their ids. `is_thinking`: the prompt ends inside a thinking
    section. `answer`: what an answer without calls must be. `is_loose`: arguments are any JSON object.

    Raises `SchemaError` for schemas that are over the bounds or malformed.
    """
    writer = _Writer(form, box, control_ids, is_thinking=is_thinking)
    schemas = {f"arguments_{i}": {"type": "object"} if is_loose else tool.schema for i, tool in enumerate(box.callable)}
    parts = {name: Grammar.json_schema(dict(schema)) for name, schema in schemas.items()}
    if answer is not None:
        parts["answer"] = as_grammar(answer)
    return Grammar.composed("\n".join(writer.rules(with_answer=answer is not None)), parts)


class _Writer:
    """Writes the rules, in llguidance's dialect of Lark: a rule marked [lazy] ends at its first match."""

    def __init__(self, form: ModelFormat, box: Toolbox, control_ids: Mapping[str, int], *, is_thinking: bool) -> None:
        self._form = form.tools
        self._thinks = form.thinks
        self._box = box
        self._control_ids = control_ids
        self._is_thinking = is_thinking

    def rules(self, *, with_answer: bool) -> Iterator[str]:
        rest = "calls" if self._box.must_call else "answer" if with_answer else "free"
        if self._box.tools and rest == "answer":
            rest = "calls | answer"
        yield f"start: {self._with_thinking('rest' if rest == 'free' else 'BLANKS rest')}"
        yield f"rest: {rest}"
        if self._thinks:
            yield from self._thinking()
        if with_answer and not self._box.must_call:
            yield "answer: @answer"
        if rest == "free":
            yield from self._free()
        if self._box.tools:
            yield from self._calls()

    def _with_thinking(self, rest: str) -> str:
        """`rest`: what may follow the thought."""
        if not self._thinks:
            return "rest"
        ends_early = "" if self._box.must_call else " | unfinished"  # the model may stop while it thinks
        return f"thought {rest}{ends_early}" if self._is_thinking else f"rest | thought {rest}{ends_early}"

    def _thinking(self) -> Iterator[str]:
        inside = self._until("thought", THINK_CLOSE, before="" if self._is_thinking else THINK_OPEN)
        yield from inside
        start = "" if self._is_thinking else f"BLANKS {self._marker(THINK_OPEN)} "
        yield f"unfinished: {start}{_ANY}"
        yield r"BLANKS: /[ \n]*/"

    def _until(self, rule: str, marker: str, *, before: str = "") -> Iterator[str]:
        """A rule of any text up to and with a marker, and of `before`, a marker that begins it."""
        start = f"BLANKS {self._marker(before)} " if before else ""
        if marker in self._control_ids:
            yield f"{rule}: {start}INSIDE {self._marker(marker)}"
            yield rf"INSIDE: {_ANY} & ~/(.|\n)*{_escaped(marker)}(.|\n)*/"
        else:
            yield f"{rule}: {start}{rule}_end"
            yield f"{rule}_end[lazy]: {_ANY[:-1]}{_escaped(marker)}/"

    def _free(self) -> Iterator[str]:
        """Text, with calls anywhere in it; text that begins like a call or a thought is one."""
        form, marker = self._form, self._form.marker
        text = f"FIRST: {_ANY}"
        if self._thinks and not self._is_thinking:
            text += rf" & ~/[ \n]*{_escaped(THINK_OPEN)}(.|\n)*/"
        if form.is_bare:
            names = "|".join(tool.name for tool in self._box.callable)
            text += rf' & ~/[ \n]*\{{"name": "({names})", "{form.arguments_key}": (.|\n)*/'
        if marker in self._control_ids:
            text += rf" & ~/(.|\n)*{_escaped(marker)}(.|\n)*/"
        yield text
        starts = ["FIRST"]
        if form.is_bare:
            starts.append("calls")
        if marker in self._control_ids:
            starts.append(f"FIRST {self._marker(marker)} called")
        elif not form.is_bare:
            starts.append("first_marker called")
            yield f"first_marker[lazy]: FIRST {json.dumps(marker)}"
        if form.close and self._box.parallel:  # and text after a call, and further calls in it
            starts[-1] += self._again("next_call") + " TEXT"
            yield f"TEXT: {_ANY}"
            if marker in self._control_ids:
                yield f"next_call: TEXT {self._marker(marker)} called"
            else:
                yield "next_call: next_marker called"
                yield f"next_marker[lazy]: TEXT {json.dumps(marker)}"
        yield f"free: {' | '.join(starts)}"

    def _calls(self) -> Iterator[str]:
        """`calls` from their marker on; `called` is what follows a marker."""
        form = self._form
        if form.in_list:
            further = self._again('", " call')
            yield f'called: " "? "[" call{further} "]"'
            yield f"calls: {self._marker(form.marker)} called"
        elif form.is_bare:
            further = self._again('"; " call')
            yield f"called: call{further}"
            yield "calls: called"
        else:
            yield f'called: "\\n" call "\\n" {self._marker(form.close)}'
            marked = f"{self._marker(form.marker)} called"
            further = self._again(f'"\\n" {marked}')
            yield f"calls: {marked}{further}"
        yield "call: " + " | ".join(f"call_{i}" for i in range(len(self._box.callable)))
        for i, tool in enumerate(self._box.callable):
            yield f'call_{i}: {self._opening(tool)} @arguments_{i} "}}"'

    def _opening(self, tool: Tool) -> str:
        """One terminal, so that it ends where the text that is no call can go on no longer."""
        opening = f'{{"name": "{tool.name}", "{self._form.arguments_key}": '
        return rf"/[ \n]*{_escaped(opening)}/" if self._form.is_bare else json.dumps(opening)

    def _again(self, rule: str) -> str:
        """Further calls, where an answer may make several."""
        return f" ({rule}){{0,{MAX_CALLS - 1}}}" if self._box.parallel else ""

    def _marker(self, marker: str) -> str:
        return f"<[{self._control_ids[marker]}]>" if marker in self._control_ids else json.dumps(marker)


def _escaped(text: str) -> str:
    """For a regular expression between slashes; `re.escape` writes escapes that Rust's syntax does not know."""
    return "".join(f"\\{char}" if char in r".^$*+?{}[]\|()/" else char for char in text)
