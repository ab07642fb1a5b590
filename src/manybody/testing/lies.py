"""Nodes that lie, for tests: an environment in which every result of a worker is changed before it is stored.

Nothing of the node knows of it: Python runs the file `sitecustomize.py` that `lying` writes as each process starts, and
that changes what the workers store.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from manybody.core.task import Output
from manybody.store.objects import ObjectStore, StoredObject

Lie = Literal["one per cent", "not a number", "wrong shape", "made up"]
VARIABLE = "MANYBODY_TESTING_LIE"


def lying(folder: Path, lie: Lie, inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment for a node whose results are wrong in a given way; writes what makes it so into `folder`.

    `inherited` is what its environment has besides that of this process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = f"from {__name__} import corrupt_this_worker\ncorrupt_this_worker()\n"
    (folder / "sitecustomize.py").write_text(words, encoding="utf-8")
    given = os.environ | dict(inherited or {})
    paths = [str(folder), given.get("PYTHONPATH", "")]
    return dict(inherited or {}) | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), VARIABLE: lie}


def corrupt_this_worker() -> None:
    """Where this process is a worker, have it store other results than it found."""
    if "manybody.network.worker" not in sys.orig_argv:
        return
    change = CHANGES[os.environ[VARIABLE]]
    honest = ObjectStore.put

    def put(store: ObjectStore, output: Output) -> StoredObject:
        return honest(store, output if "checkpoint_of" in output.document else changed(output, change))

    setattr(ObjectStore, honest.__name__, put)


def changed(output: Output, change: Callable[[np.ndarray], np.ndarray]) -> Output:
    """An output with every array of floating-point numbers changed."""
    arrays = {name: change(array) if array.dtype.kind == "f" else array for name, array in output.arrays.items()}
    return replace(output, arrays=arrays)


def _off(array: np.ndarray) -> np.ndarray:
    return np.asarray(1.01 * array, dtype=array.dtype)


def _not_a_number(array: np.ndarray) -> np.ndarray:
    return np.full_like(array, np.nan)


def _wrong_shape(array: np.ndarray) -> np.ndarray:
    return np.concatenate([array.reshape(-1), np.zeros(1, dtype=array.dtype)])


def _made_up(array: np.ndarray) -> np.ndarray:
    return np.asarray(np.random.default_rng().normal(size=array.shape).astype(array.dtype))


CHANGES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "one per cent": _off,
    "not a number": _not_a_number,
    "wrong shape": _wrong_shape,
    "made up": _made_up,
}
