"""What a compiler does not make of a loop by itself: choosing among eight numbers at a time, in a SIMD register.

Which of `LANES` numbers that follow each other in an array are chosen is told by bits, the lowest for the first. Whole
registers are read and written, so arrays need room for `LANES` more than is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import llvmlite.ir as ir
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from manybody.numerics.jit import FASTMATH, WIDE_REGISTERS

LANES = 8
_INDEX, INT32 = ir.IntType(64), ir.IntType(32)
FAST = tuple(sorted(FASTMATH))
_KINDS = {ir.FloatType(): "f32", ir.DoubleType(): "f64", INT32: "i32"}


def _register(element: ir.Type) -> ir.VectorType:
    return ir.VectorType(element, LANES)


def _loaded(builder: ir.IRBuilder, data: ir.Value, start: ir.Value) -> ir.Value:
    """The register of the numbers from `start` on."""
    place, element = builder.gep(data, [start]), data.type.pointee
    return builder.load(builder.bitcast(place, _register(element).as_pointer()), align=8 if element == ir.DoubleType() else 4)


def spread(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """A register that holds `value` in every lane."""
    empty = ir.Constant(_register(value.type), ir.Undefined)
    first = builder.insert_element(empty, value, INT32(0))
    return builder.shuffle_vector(first, empty, ir.Constant(_register(INT32), [0] * LANES))


def _as_bits(builder: ir.IRBuilder, mask: ir.Value) -> ir.Value:
    return builder.zext(builder.bitcast(mask, ir.IntType(LANES)), _INDEX)


def data_of(context: Any, builder: ir.IRBuilder, kind: Any, array: ir.Value) -> ir.Value:
    """Where the numbers of an array of Numba's type `kind` begin."""
    return context.make_array(kind)(context, builder, array).data


def _close_bits(typing: Any, x: Any, y: Any, z: Any, start: Any, own: Any, reach2: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
        own_at = data_of(context, builder, signature.args[4], given[4])
        found = [_loaded(builder, data_of(context, builder, signature.args[d], given[d]), given[3]) for d in range(3)]
        least = None
        for i in range(LANES):
            total = None
            for d in range(3):
                place = spread(builder, builder.load(builder.gep(own_at, [_INDEX(d * LANES + i)])))
                apart = builder.fsub(found[d], place, flags=FAST)
                square = builder.fmul(apart, apart, flags=FAST)
                total = square if total is None else builder.fadd(total, square, flags=FAST)
            nearer = builder.fcmp_ordered("<", total, least) if least is not None else None
            least = total if nearer is None else builder.select(nearer, total, least)
        return _as_bits(builder, builder.fcmp_ordered("<", least, spread(builder, given[5])))

    return types.intp(x, y, z, types.intp, own, types.float32), generate


def _bits_below(typing: Any, values: Any, start: Any, limit: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
        found = _loaded(builder, data_of(context, builder, signature.args[0], given[0]), given[1])
        return _as_bits(builder, builder.fcmp_ordered("<", found, spread(builder, given[2])))

    return types.intp(values, types.intp, values.dtype), generate


def _count_bits(typing: Any, bits: Any) -> Any:
    return types.intp(types.intp), lambda context, builder, signature, given: builder.ctpop(given[0])


def copying(presses: bool) -> Callable[..., Any]:
    """`copy_chosen` for processors that press chosen lanes together in one instruction, or for all others."""

    def copy(typing: Any, source: Any, start: Any, bits: Any, shift: Any, target: Any, to: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, given: Any) -> ir.Value:
            data, out = (data_of(context, builder, signature.args[k], given[k]) for k in (0, 4))
            found, by = _loaded(builder, data, given[1]), spread(builder, given[3])
            moved = builder.sub(found, by) if data.type.pointee == INT32 else builder.fsub(found, by)
            if out.type.pointee != data.type.pointee:
                moved = builder.fptrunc(moved, _register(out.type.pointee))
            (_press if presses else _one_by_one)(builder, moved, given[2], out, given[5])
            return context.get_dummy_value()

        return types.void(source, types.intp, types.intp, source.dtype, target, types.intp), generate

    return cast("Callable[..., Any]", intrinsic(copy))


def _press(builder: ir.IRBuilder, values: ir.Value, bits: ir.Value, out: ir.Value, to: ir.Value) -> None:
    """Write the chosen values next to each other, and what happens to be behind them."""
    mask = builder.bitcast(builder.trunc(bits, ir.IntType(LANES)), _register(ir.IntType(1)))
    kind = ir.FunctionType(values.type, [values.type, mask.type, values.type])
    name = f"llvm.experimental.vector.compress.v{LANES}{_KINDS[values.type.element]}"
    pressed = builder.call(
        cgutils.get_or_insert_function(builder.module, kind, name), [values, mask, ir.Constant(values.type, ir.Undefined)]
    )
    place = builder.bitcast(builder.gep(out, [to]), values.type.as_pointer())
    builder.store(pressed, place, align=8 if values.type.element == ir.DoubleType() else 4)


def _one_by_one(builder: ir.IRBuilder, values: ir.Value, bits: ir.Value, out: ir.Value, to: ir.Value) -> None:
    """Write every value, each where the next one overwrites it unless it is chosen."""
    for lane in range(LANES):
        builder.store(builder.extract_element(values, INT32(lane)), builder.gep(out, [to]))
        to = builder.add(to, builder.and_(builder.lshr(bits, _INDEX(lane)), _INDEX(1)))


_Arrays = np.ndarray
close_bits = cast("Callable[[_Arrays, _Arrays, _Arrays, int, _Arrays, float], int]", intrinsic(_close_bits))
"""Which of the points x, y, z from `start` on are closer than the root of `reach2` to any of `own` [3, LANES], all float32."""
bits_below = cast("Callable[[_Arrays, int, float], int]", intrinsic(_bits_below))
"""Which of the values from `start` on are below `limit`."""
count_bits = cast("Callable[[int], int]", intrinsic(_count_bits))
"""How many bits are set."""
copy_chosen = copying(WIDE_REGISTERS)
"""Write source[start + k] - shift for the bits k that are set next to each other into `target`, from element `to` on."""
