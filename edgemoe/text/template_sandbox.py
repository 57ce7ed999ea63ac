"""The jinja2 environment of chat templates: a sandbox in which every operation is charged.

On top of jinja2's immutable sandbox, only a list of filters and methods is available, and the
template is rewritten so that each loop, call, literal, comparison and concatenation passes
through the TemplateBudget of the current rendering.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from string import Formatter
from typing import Any, NoReturn

from jinja2 import Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from edgemoe.errors import ArgumentError
from edgemoe.text.template_budget import TemplateBudget, TemplateLimitError, check_format

# fmt: off
_FILTERS = frozenset({
    "abs", "attr", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first",
    "float", "groupby", "indent", "int", "items", "join", "last", "length", "list", "lower",
    "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "round", "safe",
    "select", "selectattr", "sort", "string", "title", "tojson", "trim", "unique", "upper"
})
_STRING_METHODS = frozenset({
    "capitalize", "count", "endswith", "find", "format", "index", "isalnum", "isalpha",
    "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join",
    "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind",
    "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip",
    "swapcase", "title", "upper"
})
# fmt: on
# These look at each character of a string.
_ITERATING_FILTERS = frozenset({"groupby", "list", "max", "min", "sort", "unique"})
_DICT_METHODS = frozenset({"get", "items", "keys", "values"})
_LIST_METHODS = frozenset({"count", "index"})
_MAX_RANGE = 100_000
_MAX_INDENT = 16


class TemplateRaisedError(ArgumentError):
    """A template called raise_exception(): the messages do not suit it."""


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """One environment belongs to one template; `budget` is set anew for each rendering."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
    budget: TemplateBudget

    def __init__(self) -> None:
        # Without the optimizer nothing is computed while the template is compiled.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            autoescape=False,
            cache_size=0,
            extensions=[loopcontrols, _GenerationTag],
        )
        self.filters = {
            name: _charged_filter(self, function, iterates=name in _ITERATING_FILTERS)
            for name, function in self.filters.items()
            if name in _FILTERS
        }
        self.filters.update(
            {
                "tojson": _charged_filter(self, _to_json),
                "replace": _charged_filter(self, self._replace),
                "round": _charged_filter(self, _round),
                "indent": _charged_filter(self, _indent),
                "join": self._join,
                _WEIGH: self._weigh,
                _COUNT: self._count,
                _CONCATENATE: self._concatenate,
            }
        )
        self.globals = {
            "range": self._range,
            "dict": dict,
            "namespace": self.globals["namespace"],
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }
        # Compiled templates join their output with this attribute.
        self.concat = self._concatenate  # type: ignore[method-assign]

    def compile_template(self, source: str) -> Any:
        """A compiled template whose operations are charged."""
        tree = _ChargeOperations().visit(self.parse(source))
        return self.from_string(tree)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.budget.check_operator(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, _context: Context, _function: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.budget.charge()
        owner = getattr(_function, "__self__", None)
        name = getattr(_function, "__name__", "")
        if isinstance(owner, str) and name == "replace":
            return self._replace(owner, *args)
        if isinstance(owner, str) and name == "join" and len(args) == 1:
            return self._join(args[0], owner)
        if isinstance(owner, str) and name in ("split", "rsplit", "splitlines"):
            separator = args[0] if args and isinstance(args[0], str) else None
            self.budget.charge(owner.count(separator) if separator else len(owner) // 2)
        return self.budget.weigh(super().call(_context, _function, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        # Formats may nest, so a width need not be visible in the text; none is allowed.
        if wrapped is None:
            return None
        text = str(value.__self__)
        if any(field[2] for field in Formatter().parse(text)):
            raise TemplateLimitError("it uses str.format with a format specification")

        def charged(*args: Any, **kwargs: Any) -> str:
            self.budget.charge_format(text, text.count("{"), [args, kwargs])
            return wrapped(*args, **kwargs)

        return charged

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str):
            return attr in _STRING_METHODS
        if isinstance(obj, Mapping):
            return attr in _DICT_METHODS
        if isinstance(obj, (list, tuple)):
            return attr in _LIST_METHODS
        if obj is None or isinstance(obj, (int, float, range)):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def _weigh(self, value: object) -> object:
        return self.budget.weigh(value)

    def _count(self, items: Iterable[object]) -> Iterator[object]:
        return self.budget.count(items)

    def _concatenate(self, parts: Iterable[object]) -> str:
        return self.budget.join(parts)

    def _range(self, *bounds: int) -> range:
        numbers = range(*bounds)
        # len() of a huge range overflows; these bounds are exact and cannot.
        span = abs(numbers.stop - numbers.start) // abs(numbers.step)
        if span > _MAX_RANGE:
            raise TemplateLimitError(f"it uses a range of more than {_MAX_RANGE} numbers")
        return numbers

    def _replace(self, text: object, old: object, new: object, count: int | None = None) -> str:
        source, wanted, replacement = str(text), str(old), str(new)
        times = source.count(wanted)
        if count is not None and count >= 0:
            times = min(times, count)
        self.budget.charge_text(len(source) + times * max(len(replacement) - len(wanted), 0))
        return source.replace(wanted, replacement, times)

    def _join(
        self, value: Iterable[Any], d: object = "", attribute: str | int | None = None
    ) -> str:
        separator = str(d)
        parts: list[object] = []
        for item in self.budget.count(value):
            if parts:
                parts.append(separator)
            parts.append(item if attribute is None else self.getitem(item, attribute))
        return self.budget.join(parts)


class _GenerationTag(Extension):
    """`{% generation %}` marks what the model writes, for training; here it is transparent."""

    tags = frozenset({"generation"})  # type: ignore[assignment]

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_WEIGH, _COUNT, _CONCATENATE = "_weigh", "_count", "_concatenate"


class _ChargeOperations(NodeTransformer):
    """Wraps the nodes that make or compare values in the charging filters above."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, _COUNT)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), _CONCATENATE)

    def _weighed(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, _WEIGH)

    visit_Compare = visit_Test = visit_Dict = visit_List = _weighed

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        # A tuple on the left of an assignment is a list of targets, not a value.
        return self._weighed(node) if node.ctx == "load" else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        sliced = isinstance(node.arg, nodes.Slice)
        return self._weighed(node) if sliced else self.generic_visit(node)


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _charged_filter(
    environment: TemplateEnvironment, function: Callable[..., Any], *, iterates: bool = False
) -> Callable[..., Any]:
    """The filter with its first argument and its result charged; lazy results become lists."""

    # jinja2 hands some filters its context or environment before the value.
    passed = getattr(function, "jinja_pass_arg", None)
    position = 0 if passed is None else 1

    def charged(*args: Any, **kwargs: Any) -> Any:
        budget = environment.budget
        for value in args[position : position + 1]:
            budget.weigh(value)
            if iterates and isinstance(value, str):
                budget.charge(len(value))
        result = function(*args, **kwargs)
        if hasattr(result, "__next__"):
            result = list(budget.count(result))
        return budget.weigh(result)

    if passed is not None:
        charged.jinja_pass_arg = passed  # type: ignore[attr-defined]
    return charged


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if isinstance(value, Undefined):
        raise ArgumentError("the template writes an undefined value as JSON")
    if indent is not None and not 0 <= indent <= _MAX_INDENT:
        raise TemplateLimitError(f"it indents JSON by more than {_MAX_INDENT}")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _round(value: float, precision: int = 0, method: str = "common") -> float:
    if method != "common" or not -300 <= precision <= 300:
        raise TemplateLimitError("it rounds in a way that is not supported")
    return round(value, precision)


def _indent(text: object, width: int = 4, first: bool = False, blank: bool = False) -> str:
    if not 0 <= width <= _MAX_INDENT:
        raise TemplateLimitError(f"it indents text by more than {_MAX_INDENT}")
    lines = str(text).split("\n")
    margin = " " * width
    return "\n".join(
        margin + line if (first or number) and (blank or line) else line
        for number, line in enumerate(lines)
    )


def _raise_exception(message: object) -> NoReturn:
    raise TemplateRaisedError(str(message))


def _strftime_now(pattern: str) -> str:
    if len(pattern) > 64:
        raise SecurityError("strftime_now takes a short pattern")
    check_format(pattern)
    return datetime.now().strftime(pattern)
