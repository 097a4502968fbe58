"""Hostile chat templates: none gets out, none runs on (BARS X5: 0.25 s of CPU, 1 MiB of output)."""

from __future__ import annotations

import builtins
import os
import time
import tracemalloc
from typing import Any

import pytest

from openherd.errors import TemplateError
from openherd.messages import Message
from openherd.tokenizers.chat_template import ChatTemplate
from tests.bounds import only_new_objects

CPU_SECONDS = 0.25
OUTPUT_BYTES = 2**20

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ messages[0].content.__class__.__init__.__globals__ }}",
    "{{ messages[0].content._runs }}",
    "{{ messages[0]['content']['__reduce__']() }}",
    "{{ cycler.__init__.__globals__.os.system('echo pwned') }}",
    "{{ namespace.__globals__ }}{{ namespace().__init__.__globals__ }}",
    "{{ raise_exception.__globals__['__builtins__'] }}",
    "{{ strftime_now.__closure__ }}{{ strftime_now.__code__ }}",
    "{{ range.__self__ }}{{ range.__globals__.operator }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ self._TemplateReference__context.environment }}",
    "{{ self.__init__.__globals__ }}{{ loop }}{{ environment.filters }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ ['{0.__class__}'] | map('format', '') | list }}",
    "{{ messages | map(attribute='__class__') | list }}{{ messages | attr('__class__') }}",
    "{{ messages | map('attr', '__class__') | list }}",
    "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{{ m.__init__.__globals__ }}{{ m._func }}",
    "{% for x in [1] %}{{ loop._iterator }}{{ loop.__init__.__globals__ }}{% endfor %}",
    "{% set x = messages.append(1) %}{% set y = messages[0].update(a=1) %}{{ messages.clear() }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.getcwd() }}",
    "{% extends '/etc/passwd' %}",
    "{{ messages[0].content.encode().decode('unicode_escape') }}{{ (1).to_bytes(10**9, 'big') }}",
    "{{ dict.mro() }}{{ dict.fromkeys(range(9999)) }}",
    "{{ ''['for' 'mat']('{0.__class__}') }}{{ ''.format_map({'a': 1}) }}",
]
BOMBS = [
    "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}",
    "{% for a in range(9999) %}{% for b in range(9999) %}{% if a == b %}{% endif %}{% endfor %}{% endfor %}",
    "{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}",
    "{{ 'x' * 10**9 }}",
    "{{ [0] * 10**9 }}",
    "{{ range(10**9) | list }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ 9 ** 999 * 9 ** 999 * 9 ** 999 }}"
    "{% set n = namespace(v=3) %}{% for i in range(99) %}{% set n.v = n.v * n.v %}{% endfor %}",
    "{% set n = namespace(v='x') %}{% for i in range(99) %}{% set n.v = n.v + n.v %}{% endfor %}{{ n.v }}",
    "{% set n = namespace(v='x') %}{% for i in range(99) %}{% set n.v = n.v ~ n.v %}{% endfor %}",
    "{% set n = namespace(v='x') %}{% for i in range(99) %}{% set n.v = n.v.replace('x', 'xxx') %}{% endfor %}",
    "{% set n = namespace(v='x') %}{% for i in range(99) %}{% set n.v = n.v | replace('', 'xx') %}{% endfor %}",
    "{% set n = namespace(v='x') %}{% for i in range(99) %}{% set n.v = [n.v, n.v, n.v] | join(n.v) %}{% endfor %}",
    "{% set n = namespace(v=[1]) %}{% for i in range(99) %}{% set n.v = [n.v, n.v] %}{% endfor %}{{ n.v }}",
    "{% set n = namespace(v=[1]) %}{% for i in range(99) %}{% set n.v = n.v + n.v %}{% endfor %}",
    "{% set n = namespace(v=1) %}{% for i in range(99) %}{% set n.v = {'a': n.v, 'b': n.v} %}{% endfor %}"
    "{{ n.v | tojson }}",
    "{% set n = namespace(v=1, w=1) %}{% for i in range(99) %}{% set n.v = (n.v, n.v) %}"
    "{% set n.w = (n.w, n.w) %}{% endfor %}"
    "{{ n.v == n.w }}",
    "{% set n = namespace(v=1) %}{% macro m() %}{% set n.v = varargs %}{% endmacro %}"
    "{% for i in range(99) %}{{ m(n.v, n.v) }}{% endfor %}{{ n.v }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% block b %}{{ self.b() }}{% endblock %}",
    "{% for x in [1] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "{% for x in range(9) recursive %}{% if loop.depth < 30 %}{{ loop(range(9)) }}{% endif %}{% endfor %}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%(a)999999999s' | format(a=1) }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ '{:>{}}'.format(1, 1000000000) }}",
    "{{ 'x'.center(10**9) }}{{ 'x' | center(10**9) }}",
    "{{ 'x'.ljust(10**9) }}{{ '1'.zfill(10**9) }}{{ '\\t'.expandtabs(10**9) }}",
    "{{ [1] | tojson(indent=10**9) }}",
    "{{ 'a\\nb' | indent(10**9) }}",
    "{{ strftime_now('%099999999Y') }}",
    "{{ ('x' * 200000).split('x') | map('upper') | join('y' * 200000) }}",
    "{% set s = 'x' * 200000 %}{% for i in range(9999) %}{% set t = s | upper %}{% endfor %}",
    "{% set s = 'x' * 200000 %}{% for i in range(9999) %}{{ s in s ~ 'y' }}{% endfor %}",
    "{% set s = 'x' * 200000 %}{{ " + " or ".join(["s.count('xx') == 1"] * 2000) + " }}",
    "{% set s = range(9999) | list %}{{ " + " or ".join(["s | sort == 1"] * 2000) + " }}",
    "{% set s = range(9999) | list %}{% for i in s %}{{ s | unique | list | length }}{% endfor %}",
    "{% set s = range(9999) %}{{ s | map('string') | map('upper') | select('in', s) | list | length }}",
    "{{ messages | batch(10**9, 'x') | list }}{{ messages | slice(10**9) | list }}",
    "{{ ('9' * 200000) | int }}",
    "{{ lipsum(n=10**9) }}",
    "{{ " + "(" * 200 + "1" + ")" * 200 + " }}",
    "{{ " + "-" * 20000 + "1 }}",
    "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "{{ a }}" * 9000,
    "{{ 1 + 1 }}" * 5900,
    "{{ x.y.z | default(1) }}" * 2500,
    "{#" * 30000,
    "x" * 2**17,
    "{% set n = namespace(v='') %}{% for i in range(9999) %}{% set n.v = n.v ~ messages[0].content %}{% endfor %}"
    "{{ n.v }}",
]

LONG = "{% set s = 'a' * 200000 %}"
LISTS = LONG + "{% set v = [s ~ 'b'] * 9999 %}{% set w = [s ~ 'b'] * 9999 %}"
SINGLE_OPERATIONS = [  # each was seconds or gigabytes within one call of Python's own, where no step is seen
    LONG + "{{ s.rfind('ab' ~ 'a' * 100000) }}",
    LONG + "{{ s.rindex('ab' ~ 'a' * 100000) }}",
    LONG + "{{ s.rpartition('ab' ~ 'a' * 100000) }}",
    LONG + "{{ s.rsplit('ab' ~ 'a' * 100000) }}",
    LONG
    + "{{ s.find('a' * 100000 ~ 'ba') }}{{ s.count('a' * 100000 ~ 'ba') }}{{ s.split('a' * 100000 ~ 'ba') | count }}",
    "{{ ('\u4e00' * 200000).strip('\u4e01' * 200000 ~ '\u4e00') }}",
    "{{ ('\u4e00' * 200000) | trim('\u4e01' * 200000 ~ '\u4e00') }}",
    LONG + "{{ [s ~ 'a', s ~ 'b'] * 5000 | sort(case_sensitive=true) | length }}",
    LONG + "{{ ([s ~ 'a', s ~ 'b'] * 5000) | sort(case_sensitive=true) | length }}",
    LONG + "{{ ([s ~ 'a', s ~ 'b'] * 5000) | max(case_sensitive=true) | length }}",
    LISTS + "{{ v" + " == w == v" * 500 + " }}",
    LISTS + "{{ v.count(s ~ 'b') }}{{ v.index(s ~ 'c') }}",
    LISTS + "{% for i in range(999) %}{{ (s ~ 'c') in v }}{% endfor %}",
    LISTS + "{{ v | select('in', w) | list | length }}",
    "{{ range(0, 9999 * (2 ** 61 - 1), 2 ** 61 - 1) | unique | list | length }}",
    "{{ range(0, 23058430092136939510000, 2305843009213693951) | unique | list | length }}",
    "{{ range(0, ('f' * 20) | int(0, 16), 2 ** 61 - 1) | unique | list | length }}",
    "{{ 5 | round(-1000000000) }}",
    "{{ 5 | round(1000000000, 'ceil') }}",
    LONG + "{{ '%(a)s' * 9999 % {'a': s} }}",
    LONG + "{{ ('%(a)s' * 9999) | format(a=s) }}",
    LONG + "{{ ('{0:s}' * 9999).format(s) }}",
    LONG + "{{ ('{0!r}' * 9999).format(s) }}",
    "{{ '%(a)s' * 9999 % {'a': [1] * 9999} }}",
    "{{ ('%(' * 60000) % 1 }}",
    "{{ ('%((a))99999999s') % {'(a)': 1} }}",
    "{{ ('a-' * 100000) | title | length }}",
    "{{ ('0.' ~ '1' * 200000) | float }}{{ ('f' * 200000) | int(0, 16) }}{{ ('9' * 200000) | float }}",
    "{% set s = ([messages[0].content, 'x'] * 5000) | join %}{{ (s * 3 ~ s ~ s ~ s).replace('x', 'yz') }}",
    "{% set s = ([messages[0].content, 'x'] * 5000) | join %}{{ (s ~ s ~ s ~ s).split('x') }}",
]
PROGRAMS = [  # what compiling costs, in Jinja and in Python
    "{{ " + " ~ ".join(f"a{i}" for i in range(1950)) + " }}",
    "{{ " + " < ".join(f"a{i}" for i in range(1950)) + " }}",
    "{{ [" + ", ".join(["a"] * 1950) + "] }}",
    "{% macro m(" + ", ".join(f"a{i}" for i in range(1950)) + ") %}{% endmacro %}",
    "".join(f"{{% macro m{i}() %}}{{% endmacro %}}" for i in range(440)),
    "{% for a in b %}" * 50 + "{{ a }}" * 1200 + "{% endfor %}" * 50,
    "{% if a %}" * 90 + "{{ a }}" * 1100 + "{% endif %}" * 90,
    "{% if a %}" + "{% elif b %}" * 950 + "{% endif %}",
    "{{ " + "9" * 60000 + " }}{{ 0x" + "f" * 60000 + " }}",
]
PAYLOADS = ESCAPES + BOMBS + SINGLE_OPERATIONS + PROGRAMS


def run(source: str) -> str:
    try:
        return "".join(span.text for span in ChatTemplate(source).render([Message("user", "hello")]))
    except TemplateError:
        return ""


@pytest.fixture(autouse=True)
def warm() -> None:
    """Jinja's own one-time work (its lexer's expressions) is not the payload's."""
    run("{% for m in messages %}{{ m.content }}{% endfor %}")


@pytest.mark.parametrize("source", PAYLOADS, ids=lambda source: source[:60])
def test_a_payload_is_stopped_in_time(source: str) -> None:
    def spent() -> tuple[float, str]:
        with only_new_objects():
            start = time.thread_time()
            output = run(source)
            return time.thread_time() - start, output

    seconds, output = spent()
    # A virtual machine's clock charges a thread for time that its host gave to others, so a disturbed run is repeated,
    # later, for disturbances last: they only ever add time, and a payload that is not stopped takes as long every time.
    for _ in range(8):
        if seconds > CPU_SECONDS:
            time.sleep(0.5)
            seconds, output = spent()
    assert seconds <= CPU_SECONDS
    assert len(output.encode()) <= OUTPUT_BYTES


def test_the_budget_is_what_stops_a_loop() -> None:
    with pytest.raises(TemplateError, match="takes too long"):
        ChatTemplate(BOMBS[0]).render([Message("user", "hello")])


def test_compiling_and_rendering_share_one_budget() -> None:
    source = "{{ " + " ~ ".join(f"a{i}" for i in range(1950)) + " }}" + BOMBS[0]
    start = time.thread_time()
    assert run(source) == ""
    assert 0.1 <= time.thread_time() - start <= CPU_SECONDS


@pytest.mark.parametrize("source", ESCAPES, ids=lambda source: source[:60])
def test_nothing_internal_is_reached(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[str] = []

    def watch(name: str) -> Any:
        return lambda *args, **kwargs: reached.append(name)

    for module, name in ((os, "system"), (os, "popen"), (builtins, "eval"), (builtins, "open")):
        monkeypatch.setattr(module, name, watch(name))
    output = run(source)
    monkeypatch.undo()
    assert reached == []
    for trace in ("<class", "<module", "<code", "<cell", "builtins", "pwned", "root:", "<method-wrapper", "0x"):
        assert trace not in output


@pytest.mark.parametrize("source", BOMBS + SINGLE_OPERATIONS + PROGRAMS, ids=lambda source: source[:60])
def test_a_bomb_does_not_fill_memory(source: str) -> None:
    tracemalloc.start()
    try:
        run(source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 64 * 2**20


def test_the_conversation_is_untouched() -> None:
    said = [Message("user", "hello")]
    run("{{ messages.clear() }}{{ messages[0].pop('content') }}")
    assert said == [Message("user", "hello")]
