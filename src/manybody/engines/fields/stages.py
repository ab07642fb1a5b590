"""The tasks of an advected field: what a node runs, and what a gang runs together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from manybody.core import catalog
from manybody.core.errors import TaskError
from manybody.core.protocols import Context, Ring
from manybody.core.split import Embedding
from manybody.core.task import Output, Progress, Task
from manybody.engines.fields.engine import FieldEngine
from manybody.engines.fields.parts import EXCHANGE_ERROR, Course, Grid, Moment, Part, Round, at_step, part_rows
from manybody.engines.fields.spec import AdvectedField
from manybody.engines.fields.state import FieldState
from manybody.numerics.stencils import HALO

STEPS_A_REPORT = 20
EMBEDDING = "bounded"
SERIES = ("time", "mean", "variance", "error")


def start(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A slab at the start."""
    part = Part.model_validate(task.parameters)
    return _result(_engine(task, part).start(part.first, part.last), part, 0.0)


def advance(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A round: a slab some steps later, from itself and as much of its neighbours as that takes."""
    this = Round.model_validate(task.parameters)
    rows, reach = this.last - this.first, HALO * this.steps
    slab = _engine(task, this).slab(rows, reach)
    own = _rows(task, inputs, "own", rows, this)
    west, east = (_edge(task, inputs, name, reach, this) for name in ("west", "east"))
    slab.load(west[len(west) - reach :], own, east[:reach])
    inset, share = 0, (this.last - this.first) / this.rows  # of the square: all parts together advance it once
    for step in range(1, this.steps + 1):
        inset = slab.advance(inset)
        context.progress(Progress(step / this.steps, share * step * this.time_step, "time units"))
    return _result(slab.values, this, float(inputs["own"].document.get(EXCHANGE_ERROR, 0.0)))


def gather(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """The whole field at one moment, and the series of what it shows since the start.

    No part of the output depends on how the field was split.
    """
    moment = Moment.model_validate(task.parameters)
    names = sorted(name for name in inputs if name != "before")
    parts = [inputs[name].arrays[at_step(moment.step) if name == "gang" else "slab"] for name in names]
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
    errors = [read.document[EXCHANGE_ERROR] for read in inputs.values() if EXCHANGE_ERROR in read.document]
    exchanged = {EXCHANGE_ERROR: max(errors)} if errors else {}
    return Output(arrays | {"field": field}, {"step": moment.step, "field_error": found["error"], **exchanged})


def converge(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """How far the scheme is from the exact solution on a grid of its own, advanced whole."""
    moment = Moment.model_validate(task.parameters)
    engine = _engine(task, moment)
    state = engine.init(task.key)
    while state.step < moment.step:
        state = engine.step(state, min(STEPS_A_REPORT, moment.step - state.step))
        context.progress(Progress(state.step / moment.step, state.step * moment.time_step, "time units"))
    return Output({}, {"step": moment.step, "field_error": engine.error(state)})


def together(task: Task, inputs: Mapping[str, Output], ring: Ring, context: Context) -> Output:
    """A member's slab at every sample of a course; all members exchange one step's halo before every step."""
    course = Course.model_validate(task.parameters)
    first, last = part_rows(course.rows, ring.size, ring.rank)
    rows = last - first
    if course.rows // ring.size < HALO:
        raise TaskError(f"{task.label}: expected at least {HALO} rows a member; got {course.rows} rows for {ring.size} members.")
    engine, kept, end = _engine(task, course), course.moments, course.moments[-1]
    own = inputs["before"].arrays[at_step(course.begin)][first:last] if course.begin else engine.start(first, last)
    slab = engine.slab(rows, HALO)
    slab.load(np.zeros(()), own, np.zeros(()))
    field, found = slab.field, {} if course.begin else {at_step(0): own}
    for step in range(course.begin + 1, end + 1):
        ring.exchange(field[HALO : 2 * HALO], field[rows : rows + HALO], field[:HALO], field[HALO + rows :])
        slab.advance()
        if step in kept:
            found[at_step(step)] = slab.values.copy()
        context.progress(Progress((step - course.begin) / (end - course.begin), step * course.time_step, "time units"))
    return Output(found, {"begin": course.begin, "end": end})


def _engine(task: Task, grid: Grid) -> FieldEngine:
    return FieldEngine(AdvectedField.model_validate(task.system), grid)


def _result(slab: np.ndarray, part: Part, earlier_error: float) -> Output:
    """A slab, and where its neighbours are sent embeddings of its edges, these and the largest error in any so far."""
    slab = np.ascontiguousarray(slab)
    if not part.edge:
        return Output({"slab": slab})
    edges = {"west_edge": slab[: part.edge], "east_edge": slab[len(slab) - part.edge :]}
    coded = {name: _embedding().encode(edge, part.bound) for name, edge in edges.items()}
    messages = {name: np.frombuffer(message, np.uint8) for name, (message, _) in coded.items()}
    return Output({"slab": slab, **messages}, {EXCHANGE_ERROR: max(earlier_error, *(error for _, error in coded.values()))})


def _embedding() -> Embedding:
    return cast("Embedding", catalog.load("embeddings", EMBEDDING))


def _edge(task: Task, inputs: Mapping[str, Output], name: str, rows: int, this: Round) -> np.ndarray:
    """What a round reads of a neighbour: rows of its slab, or the embedding of its edge."""
    if not this.edge:
        return _rows(task, inputs, name, rows, this)
    array = "east_edge" if name == "west" else "west_edge"
    message = inputs[name].arrays.get(array) if name in inputs else None
    decoded = _embedding().decode(message.tobytes()) if message is not None else np.zeros(0)
    return _rows(task, {name: Output({"slab": decoded})}, name, rows, this)


def _rows(task: Task, inputs: Mapping[str, Output], name: str, rows: int, grid: Grid) -> np.ndarray:
    """The slab of an input, or those of its rows that a neighbour reads, if it is what the task needs."""
    found = inputs[name].arrays.get("slab") if name in inputs else None
    if found is None or not _fits(found, rows, grid):
        came = "nothing" if found is None else f"{found.dtype} {list(found.shape)}, or values that are not finite"
        raise TaskError(
            f"{task.label}: expected finite {grid.precision} [{rows} or more, {grid.columns}] of input `{name}`; got {came}. "
            "Compute the task it comes from again."
        )
    return found


def _fits(found: np.ndarray, rows: int, grid: Grid) -> bool:
    alike = found.ndim == 2 and len(found) >= rows and found.shape[1] == grid.columns and found.dtype == grid.precision
    return alike and bool(np.isfinite(found).all())
