"""The tasks of an advected field: what a node runs, and what a gang runs together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from manybody.core.errors import TaskError
from manybody.core.protocols import Context, Ring
from manybody.core.task import Output, Progress, Task
from manybody.engines.fields.engine import FieldEngine
from manybody.engines.fields.spec import AdvectedField, Grid, Moment, Part, Round, part_rows
from manybody.engines.fields.state import FieldState
from manybody.numerics.stencils import HALO

STEPS_A_REPORT = 20
SERIES = ("time", "mean", "variance", "error")


def start(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A slab at the start."""
    part = Part.model_validate(task.parameters)
    return _slab_output(_engine(task, part).start(part.first, part.last), part)


def advance(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A round: a slab some steps later, from itself and as much of its neighbours as that takes."""
    this = Round.model_validate(task.parameters)
    reach = HALO * this.steps
    slab = _engine(task, this).slab(this.last - this.first, reach)
    west = _array(task, inputs, "west", "east_edge", (this.edge, this.columns), this)
    east = _array(task, inputs, "east", "west_edge", (this.edge, this.columns), this)
    own = _array(task, inputs, "own", "slab", (this.last - this.first, this.columns), this)
    slab.load(west[this.edge - reach :], own, east[:reach])
    inset, share = 0, (this.last - this.first) / this.rows  # of the square: all parts together advance it once
    for step in range(1, this.steps + 1):
        inset = slab.advance(inset)
        context.progress(Progress(step / this.steps, share * step * this.time_step, "time units"))
    return _slab_output(slab.values, this)


def gather(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """The whole field at one moment, and the series of what it shows since the start.

    No part of the output depends on how the field was split.
    """
    moment = Moment.model_validate(task.parameters)
    parts = [inputs[name].arrays["slab"] for name in sorted(inputs) if name != "before"]
    field = np.concatenate(parts)
    if field.shape != (moment.rows, moment.columns) or not np.isfinite(field).all():
        raise TaskError(
            f"{task.label}: expected slabs of finite values that make up [{moment.rows}, {moment.columns}]; got "
            f"{[list(part.shape) for part in parts]}. Compute the tasks they come from again."
        )
    engine = _engine(task, moment)
    state = FieldState(field, moment.step)
    found = {
        "time": moment.step * moment.time_step,
        "mean": engine.conserved(state)["mean"],
        "variance": engine.variance(field),
        "error": engine.error(state),
    }
    before = inputs["before"].arrays if "before" in inputs else dict.fromkeys(SERIES, np.empty(0))
    arrays = {name: np.append(before[name], found[name]) for name in SERIES}
    return Output(arrays | {"field": field}, {"step": moment.step, "field_error": found["error"]})


def converge(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """How far the scheme is from the exact solution on a grid of its own, advanced whole."""
    moment = Moment.model_validate(task.parameters)
    engine = _engine(task, moment)
    state = engine.init(task.key)
    while state.step < moment.step:
        state = engine.step(state, min(STEPS_A_REPORT, moment.step - state.step))
        context.progress(Progress(state.step / moment.step, state.step * moment.time_step, "time units"))
    return Output({}, {"step": moment.step, "field_error": engine.error(state)})


def together(task: Task, ring: Ring) -> Output:
    """A member's slab after `step` steps; all members exchange one step's halo before every step."""
    moment = Moment.model_validate(task.parameters)
    first, last = part_rows(moment.rows, ring.size, ring.rank)
    rows = last - first
    if moment.rows // ring.size < HALO:
        raise TaskError(f"{task.label}: expected at least {HALO} rows a member; got {moment.rows} rows for {ring.size} members.")
    engine = _engine(task, moment)
    slab = engine.slab(rows, HALO)
    slab.load(np.zeros(()), engine.start(first, last), np.zeros(()))
    field = slab.field
    for _ in range(moment.step):
        ring.exchange(field[HALO : 2 * HALO], field[rows : rows + HALO], field[:HALO], field[HALO + rows :])
        slab.advance()
    return Output({"slab": slab.values.copy()}, {"first": first, "step": moment.step})


def _engine(task: Task, grid: Grid) -> FieldEngine:
    return FieldEngine(AdvectedField.model_validate(task.system), grid)


def _slab_output(values: np.ndarray, part: Part) -> Output:
    """A slab [rows, columns] and the edges [edge, columns] that its neighbours need of it."""
    return Output(
        {
            "slab": np.ascontiguousarray(values),
            "west_edge": np.ascontiguousarray(values[: part.edge]),
            "east_edge": np.ascontiguousarray(values[len(values) - part.edge :]),
        }
    )


def _array(task: Task, inputs: Mapping[str, Output], name: str, array: str, shape: tuple[int, int], grid: Grid) -> np.ndarray:
    """An array of an input, if it is what the task needs."""
    found = inputs[name].arrays.get(array) if name in inputs else None
    if found is None or found.shape != shape or found.dtype != grid.precision or not np.isfinite(found).all():
        came = "nothing" if found is None else f"{found.dtype} {list(found.shape)}, or values that are not finite"
        raise TaskError(
            f"{task.label}: expected finite {grid.precision} `{array}` {list(shape)} of input `{name}`; got {came}. "
            "Compute the task it comes from again."
        )
    return found
