"""The Jinja environment of chat templates: no way out, bounded work, and strings that keep their sources.

Built on Jinja's immutable sandbox with the settings, filters and extensions that Hugging Face templates rely on.
Beyond it: every operator, call, item access, loop turn and comparison is a step of the budget; containers are weighed
when they are made, because a few doublings make one that takes for ever to print or compare; attributes of built-in
types are allowed by name; literals of the template are marked as its own.

Not covered: importing or including other templates, `{% autoescape %}`, and filters beyond the table.
"""

# ruff: noqa: N802, N815  (visitors are named by Jinja)
from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.compiler import operators as comparisons
from jinja2.ext import Extension, loopcontrols
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS as JINJA_TESTS
from jinja2.utils import Namespace

from openherd.errors import TemplateError
from openherd.tokenizers import template_filters
from openherd.tokenizers.budget import reserve, tick
from openherd.tokenizers.provenance import TEMPLATE, TracedStr, concat, traced
from openherd.tokenizers.template_filters import MAX_BITS, check_integer, text, weigh

_MAX_RANGE = 10_000
# Of Jinja; 20 to 40 us each to compile, half of it in Python's own compiler, which cannot be stopped half-way. The
# longest templates of released models have three quarters of it.
_MAX_TOKENS = 4_000


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


_ATTRIBUTES: tuple[tuple[type | tuple[type, ...], frozenset[str]], ...] = (
    (
        str,
        _names(
            "capitalize count endswith find format index isalnum isalpha isascii isdecimal isdigit islower isnumeric "
            "isspace istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex "
            "rpartition rsplit rstrip split splitlines startswith strip title upper"
        ),
    ),
    (dict, _names("copy get items keys values")),
    ((list, tuple), _names("copy count index")),
    ((bool, int, float, complex, bytes, type(None)), _names("")),
)
"""What a template may reach on built-in types: methods whose work is bounded by sizes already paid for."""


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Compiles and runs one chat template; the budget is that of `budget.within` around the render."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # no folding: constants are computed under the budget, at run time
            extensions=[loopcontrols, _GenerationTag],
        )
        self.code_generator_class = _CodeGenerator
        self.filters = {name: template_filters.stepped(f) for name, f in template_filters.FILTERS.items()}
        tests: Mapping[str, Any] = JINJA_TESTS
        self.tests = {name: template_filters.stepped(test) for name, test in tests.items()}
        self.globals = {"range": _bounded_range, "namespace": _new_namespace, "dict": _new_dict}
        self.literal = _literal  # from here on: what the code generator calls
        self.text = text
        self.ticked = _ticked
        self.weighed = _weighed
        self.joined = _joined

    def _tokenize(
        self, source: str, name: str | None, filename: str | None = None, state: str | None = None
    ) -> TokenStream:
        """Jinja's tokens, counted: compiling costs in proportion to them."""
        stream = super()._tokenize(source, name, filename, state)
        return TokenStream(_counted(stream), name, filename)

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """How the compiled template joins the body of a macro, a `set` block or a `filter` block."""
        return concat(parts)

    def getattr(self, obj: Any, attribute: str) -> Any:
        tick()
        return super().getattr(traced(obj), attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        tick()
        return super().getitem(traced(obj), argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for types, allowed in _ATTRIBUTES:
            if isinstance(obj, types):
                return attr in allowed
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        inner = super().wrap_str_format(value)
        if inner is None:
            return None
        template = value.__self__

        def bounded(*args: Any, **kwargs: Any) -> str:
            return template_filters.format_fields(self, template, args, kwargs)

        return bounded

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        tick()
        for value in (*args, *kwargs.values()):
            weigh(value)
        return _weighed(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        tick()
        if operator == "%" and isinstance(left, str):
            template_filters.check_percent(left, right)
        for container, times in ((left, right), (right, left)):
            if operator == "*" and isinstance(container, (str, list, tuple)) and isinstance(times, int):
                reserve(len(container) * max(times, 0))
        if isinstance(left, int) and isinstance(right, int):
            _check_bits(operator, left, right)
        return _weighed(super().call_binop(context, operator, traced(left), right))


class _CodeGenerator(CodeGenerator):
    """Jinja's compiler, with hooks where its own sandbox has none. It works under the budget itself."""

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        tick()
        return super().visit(node, *args, **kwargs)

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:
        if isinstance(node.value, str):
            self.write(f"environment.literal({node.value!r})")
        else:
            check_integer(node.value)
            super().visit_Const(node, frame)

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Frame) -> None:
        self.writeline("environment.ticked(None)")
        super().blockvisit(nodes, frame)

    def visit_Operand(self, node: nodes.Operand, frame: Frame) -> None:
        self.write(f" {comparisons[node.op]} environment.ticked(")
        self.visit(node.expr, frame)
        self.write(")")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self.write("environment.weighed(")
        super().visit_List(node, frame)
        self.write(")")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self.write("environment.weighed(")
        super().visit_Dict(node, frame)
        self.write(")")

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        if node.ctx == "load":
            self.write("environment.weighed(")
        super().visit_Tuple(node, frame)
        if node.ctx == "load":
            self.write(")")

    def visit_ScopedEvalContextModifier(self, node: nodes.ScopedEvalContextModifier, frame: Frame) -> None:
        raise TemplateError("the chat template uses {% autoescape %}, which has no meaning here")

    visit_EvalContextModifier = visit_ScopedEvalContextModifier  # type: ignore[assignment]

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible()
        return node.data

    def _output_const_repr(self, group: Iterable[Any]) -> str:
        return f"environment.literal({''.join(group)!r})"

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        self.write("environment.text(")


class _GenerationTag(Extension):
    """`{% generation %}`, which marks the assistant's turn for training: its body is simply rendered."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _counted(tokens: Iterable[Token]) -> Iterator[Token]:
    for number, token in enumerate(tokens):
        tick()
        if number == _MAX_TOKENS:
            raise TemplateError(f"the chat template is a program of more than {_MAX_TOKENS} tokens")
        yield token


def _literal(value: str) -> TracedStr:
    return TracedStr.of(value, TEMPLATE)


def _ticked(value: Any) -> Any:
    tick()
    return value


def _joined(values: Iterable[Any]) -> TracedStr:
    return concat([text(value) for value in values])


def _weighed(value: Any) -> Any:
    weigh(value)
    return traced(value)


def _check_bits(symbol: str, left: int, right: int) -> None:
    bits = max(left.bit_length(), right.bit_length())
    if symbol == "*":
        bits = left.bit_length() + right.bit_length()
    elif symbol == "**":
        bits = left.bit_length() * max(right, 1)
    if bits > MAX_BITS:
        raise TemplateError(f"the chat template computes with integers of more than {MAX_BITS} bits")


def _bounded_range(*args: int) -> range:
    numbers = range(*(check_integer(operator.index(arg)) for arg in args))
    if len(numbers) > _MAX_RANGE:
        raise TemplateError(f"the chat template counts to {len(numbers)}; the most is {_MAX_RANGE}")
    return numbers


def _new_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _new_namespace(*args: Any, **kwargs: Any) -> Namespace:
    return Namespace(*args, **kwargs)
