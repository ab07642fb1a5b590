"""Formulas as text: arithmetic of numbers, names and known functions, and nothing else gets through.

A study file may come from anybody, and a formula in it becomes code. So a text is taken apart here once: what is left is a
tree of operations that `evaluated` walks, with floats, tensors or SymPy's symbols alike; no text is ever executed.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Collection, Mapping
from functools import cache
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, NoReturn

from manybody.core.errors import InputError, Problem

if TYPE_CHECKING:
    import sympy

FUNCTIONS = ("exp", "log", "sqrt", "sin", "cos", "tanh", "erf", "erfc")  # known to SymPy, math and torch by the same name
OF_ANGLES = (*FUNCTIONS, "wrapped")  # wrapped(x) is x less whole turns, -pi to pi: which way round an angle differs
LONGEST, DEEPEST = 2000, 60  # characters, and operations inside each other: far beyond any formula, far below what Python stands
_CHARACTERS = re.compile(r"[A-Za-z0-9_+\-*/()., \t\n]*")  # no quotes, comments or backslashes: it stands in generated files
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_TAKEN = {*FUNCTIONS, "kernel", "math", "parameters", "r", "r2"}  # what generated code uses besides
_OPERATIONS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: operator.pow,
    ast.UAdd: operator.pos, ast.USub: operator.neg,
}  # fmt: skip
_IN_FLOATS: dict[str, Callable[[float], float]] = {name: getattr(math, name) for name in FUNCTIONS}
_IN_FLOATS["wrapped"] = lambda angle: math.remainder(angle, 2 * math.pi)


def parsed(text: str, names: Collection[str], where: str, functions: Collection[str] = FUNCTIONS) -> ast.expr:
    """The tree of an arithmetic text over `names` and `functions`. Raises `InputError`, with the column, for anything else.

    Its numbers and what it makes of them alone are finite. `where` is what a message calls the text. Functions are
    `FUNCTIONS`, or `OF_ANGLES`.
    """
    if len(text) > LONGEST:
        _refuse(where, f"at most {LONGEST} characters", f"{len(text)}", "Write it in fewer, or as a table.")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:  # nested too deeply; a null character
        _refuse(where, "an arithmetic expression", f"`{text}`", f"{getattr(error, 'msg', error)}.")
    _check(tree, names, where, functions, DEEPEST)
    if not _CHARACTERS.fullmatch(text):
        _refuse(
            where,
            "letters, digits, spaces and the signs + - * / ( ) . _",
            f"`{text}`",
            "Leave out comments, and all other signs.",
        )
    return tree


def refuse_names(names: Collection[str], where: str) -> None:
    """Raise `InputError` for a parameter that cannot be called so in generated code."""
    for name in names:
        if not _NAME.fullmatch(name) or iskeyword(name) or name in _TAKEN:
            remedy = f"Other than {', '.join(sorted(_TAKEN))} and Python's own words."
            _refuse(where, "parameters named by letters, digits and _", f"`{name[:40]}`", remedy)


def evaluated(node: ast.expr, names: Mapping[str, Any], functions: Mapping[str, Callable[[Any], Any]], number: Any = None) -> Any:
    """The value of a tree that `parsed` gave: names and functions as said, each number through `number` where it is given."""
    match node:
        case ast.Constant(value=value):
            return value if number is None else number(value)
        case ast.Name(id=name):
            return names[name]
        case ast.UnaryOp(op=op, operand=operand):
            return _OPERATIONS[type(op)](evaluated(operand, names, functions, number))
        case ast.Call(func=ast.Name(id=name), args=[argument]):
            return functions[name](evaluated(argument, names, functions, number))
        case ast.BinOp(left=left, op=op, right=right):
            sides = (evaluated(side, names, functions, number) for side in (left, right))
            return _OPERATIONS[type(op)](*sides)
    raise ValueError(f"expected arithmetic; got {ast.unparse(node)}. Parse it with `parsed` first.")


def in_floats(tree: ast.expr, names: Mapping[str, float]) -> float:
    """The value of a tree in double precision; an overflow is infinite, and what is not defined is not a number."""
    try:
        return float(evaluated(tree, names, _IN_FLOATS, float))
    except OverflowError:
        return math.inf
    except (ZeroDivisionError, ValueError, TypeError):  # TypeError: the root of a negative number became a complex one
        return math.nan


def symbolic(text: str, names: Mapping[str, sympy.Expr], where: str, functions: Collection[str] = FUNCTIONS) -> sympy.Expr:
    """A text as an expression of SymPy over symbols by name."""
    import sympy

    def number(value: float) -> sympy.Expr:
        return sympy.Integer(value) if isinstance(value, int) else sympy.Float(repr(value))

    known = {name: getattr(sympy, name) for name in FUNCTIONS} | {"wrapped": _symbolic_wrapped()}
    return evaluated(parsed(text, names, where, functions), names, known, number)


@cache
def _symbolic_wrapped() -> type[sympy.Function]:
    """`wrapped` as SymPy's: its slope is 1."""
    import sympy

    def slope(self: sympy.Function, place: int = 1) -> sympy.Expr:
        return sympy.Integer(1)

    return type("wrapped", (sympy.Function,), {"is_real": True, "fdiff": slope})


def _check(node: ast.expr, names: Collection[str], where: str, functions: Collection[str], depth: int) -> bool:
    """Refuse what is not arithmetic in a tree; whether there is a name in it."""
    if depth == 0:
        _refuse(where, f"at most {DEEPEST} operations inside each other", "more", "Write it in fewer.")
    place = f"{where}, column {node.col_offset + 1}"
    match node:
        case ast.Constant(value=value) if type(value) in (int, float):
            return _finite(node, place)
        case ast.Name(id=name):
            if name not in names:
                _refuse(place, f"one of {', '.join(sorted(names))}", name, "Name it among the parameters.")
            return True
        case ast.UnaryOp(op=ast.UAdd() | ast.USub(), operand=operand):
            return _check(operand, names, where, functions, depth - 1)
        case ast.Call(func=function, args=arguments, keywords=keywords):
            if not isinstance(function, ast.Name) or function.id not in functions:
                _refuse(place, f"one of the functions {', '.join(functions)}", ast.unparse(function), "Use one of these.")
            if len(arguments) != 1 or keywords:
                _refuse(place, f"one argument of {function.id}", ast.unparse(node), "Give it one.")
            return _check(arguments[0], names, where, functions, depth - 1) or _finite(node, place)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.Pow(), right=right):
            named = [_check(side, names, where, functions, depth - 1) for side in (left, right)]
            if isinstance(node.op, ast.Div) and not named[1] and in_floats(right, {}) == 0:
                _refuse(place, "a finite number", ast.unparse(node), "Divide by another one than zero.")
            return any(named) or _finite(node, place)
    came = type(node.op).__name__ if isinstance(node, ast.BinOp | ast.UnaryOp) else type(node).__name__
    _refuse(place, "arithmetic of numbers, names and functions", came, "Write it with + - * / ** only.")


def _finite(constant: ast.expr, place: str) -> bool:
    """Refuse numbers that overflow or are not defined; False, for there is no name in them."""
    if not math.isfinite(in_floats(constant, {})):
        _refuse(place, "a finite number", ast.unparse(constant), "Write another one.")
    return False


def _refuse(where: str, expected: str, came: str, remedy: str) -> NoReturn:
    raise InputError(Problem(where, expected, came, remedy))
