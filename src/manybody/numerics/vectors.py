"""Eight doubles side by side as one value in a kernel, for loops of which a compiler does not make SIMD by itself.

A value of them stays in a register. Eight numbers that follow each other in an array are read and written at once; of an array
of several dimensions, C-contiguous, `start` counts all its elements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import llvmlite.ir as ir
import numpy as np
from numba import types
from numba.core.datamodel.models import PrimitiveModel
from numba.extending import intrinsic, register_model

from manybody.numerics.registers import FAST, INT32, LANES, data_of, spread

_REGISTER = ir.VectorType(ir.DoubleType(), LANES)


class Eight(types.Type):
    """Numba's type of eight doubles."""

    def __init__(self) -> None:
        super().__init__(name="Eight")


EIGHT = Eight()


@register_model(Eight)
class _EightModel(PrimitiveModel):
    def __init__(self, manager: Any, kind: Eight) -> None:
        super().__init__(manager, kind, _REGISTER)


def _constant(values: list[float]) -> ir.Constant:
    return ir.Constant(_REGISTER, values)


def _place(context: Any, builder: ir.IRBuilder, kind: Any, array: ir.Value, start: ir.Value) -> ir.Value:
    return builder.bitcast(builder.gep(data_of(context, builder, kind, array), [start]), _REGISTER.as_pointer())


def _zeros(typing: Any) -> Any:
    return EIGHT(), lambda context, builder, signature, given: _constant([0.0] * LANES)


def _counting(typing: Any) -> Any:
    return EIGHT(), lambda context, builder, signature, given: _constant([float(lane) for lane in range(LANES)])


def _load(typing: Any, array: Any, start: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
        return builder.load(_place(context, builder, signature.args[0], *given), align=8)

    return EIGHT(array, types.intp), generate


def _store(typing: Any, value: Any, array: Any, start: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
        builder.store(given[0], _place(context, builder, signature.args[1], *given[1:]), align=8)
        return context.get_dummy_value()

    return types.void(EIGHT, array, types.intp), generate


def _operand(builder: ir.IRBuilder, kind: Any, value: ir.Value) -> ir.Value:
    return value if isinstance(kind, Eight) else spread(builder, value)


def _either(kind: Any) -> Any:
    return kind if isinstance(kind, Eight) else types.float64


def _add(typing: Any, value: Any, other: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
        return builder.fadd(given[0], _operand(builder, other, given[1]), flags=FAST)

    return EIGHT(EIGHT, _either(other)), generate


def _multiply(typing: Any, value: Any, other: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
        return builder.fmul(given[0], _operand(builder, other, given[1]), flags=FAST)

    return EIGHT(EIGHT, _either(other)), generate


def _multiply_add(typing: Any, value: Any, other: Any, more: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
        product = builder.fmul(given[0], _operand(builder, other, given[1]), flags=FAST)
        return builder.fadd(product, given[2], flags=FAST)

    return EIGHT(EIGHT, _either(other), EIGHT), generate


def _move_up(typing: Any, value: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
        lanes = ir.Constant(ir.VectorType(INT32, LANES), [LANES, *range(LANES - 1)])
        return builder.shuffle_vector(given[0], _constant([0.0] * LANES), lanes)

    return EIGHT(EIGHT), generate


def _total(typing: Any, value: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
        found = [builder.extract_element(given[0], INT32(lane)) for lane in range(LANES)]
        while len(found) > 1:  # in pairs, the same way everywhere
            half = len(found) // 2
            found = [builder.fadd(found[lane], found[lane + half]) for lane in range(half)]
        return found[0]

    return types.float64(EIGHT), generate


_Array = np.ndarray
zeros = cast("Callable[[], Eight]", intrinsic(_zeros))
"""Eight zeros."""
counting = cast("Callable[[], Eight]", intrinsic(_counting))
"""0, 1, .. 7."""
load = cast("Callable[[_Array, int], Eight]", intrinsic(_load))
"""Those of an array of doubles from `start` on."""
store = cast("Callable[[Eight, _Array, int], None]", intrinsic(_store))
"""Write them to an array of doubles from `start` on."""
add = cast("Callable[[Eight, Eight | float], Eight]", intrinsic(_add))
"""Sums, lane by lane, or each plus a number."""
multiply = cast("Callable[[Eight, Eight | float], Eight]", intrinsic(_multiply))
"""Products, lane by lane, or each times a number."""
multiply_add = cast("Callable[[Eight, Eight | float, Eight], Eight]", intrinsic(_multiply_add))
"""`add(multiply(value, other), more)`, rounded once where the processor can."""
move_up = cast("Callable[[Eight], Eight]", intrinsic(_move_up))
"""Each in the lane of the next, and 0 in the first."""
total = cast("Callable[[Eight], float]", intrinsic(_total))
"""Their sum."""
