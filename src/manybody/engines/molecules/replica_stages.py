"""The tasks of replica exchange: what a node runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from manybody.core.errors import TaskError
from manybody.core.protocols import Context
from manybody.core.task import Output, Task
from manybody.engines.molecules.exchange import swaps
from manybody.engines.molecules.replicas import Exchange, ReplicaLeg
from manybody.engines.molecules.stages import Recorder, continued, engine_of


def exchange(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Who goes on with whose configuration, from the energies that the rungs ended with.

    Arrays: source [rungs], probability [rungs - 1] (-1 where a pair has no turn).
    """
    asked = Exchange.model_validate(task.parameters)
    missing = [name for rung in range(len(asked.ladder)) if (name := f"rung {rung}") not in inputs]
    if missing:
        raise TaskError(f"{task.label}: expected an input `{missing[0]}`; got {', '.join(inputs) or 'none'}. Add it to the task.")
    energies = [float(inputs[f"rung {rung}"].arrays["potential_energy"][-1]) for rung in range(len(asked.ladder))]
    source, probability = swaps(asked.turn, energies, asked.ladder, task.key)
    return Output({"source": source, "probability": probability, "energy": np.array(energies)})


def replicate(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A round of a rung, from its own last state or its partner's, as the exchange before it says.

    The document tells the `walker`, the rung where this configuration began; the array ``exchange_probability`` is that of
    the exchange before it, empty in the first round.
    """
    asked = ReplicaLeg.model_validate(task.parameters)
    engine = engine_of(task, asked.leg)
    source, tried = asked.rung, np.empty(0)
    if "exchange" in inputs:
        source, tried = int(inputs["exchange"].arrays["source"][asked.rung]), inputs["exchange"].arrays["probability"]
    came = "state" if source == asked.rung else "partner"
    state = continued(task, engine, inputs, came)
    if source != asked.rung:
        state = replace(state, velocities=state.velocities * math.sqrt(asked.ladder[asked.rung] / asked.ladder[source]))
    recorder = Recorder(engine, asked.leg, context)
    output = recorder.output(recorder.begin(state))
    told = {"walker": int(inputs[came].document.get("walker", source)), "rung": asked.rung}
    return Output({**output.arrays, "exchange_probability": tried}, {**output.document, **told})
