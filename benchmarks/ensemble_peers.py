"""The peers of `ensemble` and `liquid`, run by the Python that has them: one line out for each line in."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[int], None]


def openmm(x: np.ndarray, v: np.ndarray, edge: float, cutoff: float, step: float, threads: int) -> tuple[str, Run]:
    """One system after the other, each in a context of its own that is made once; on the fastest of its platforms and threads."""
    import openmm as mm
    from openmm import unit

    def contexts(platform: str, properties: dict[str, str], count: int) -> list[tuple[mm.VerletIntegrator, mm.Context]]:
        made = []
        for positions, velocities in zip(x[:count], v[:count], strict=True):
            system, force = mm.System(), mm.NonbondedForce()
            for _ in range(len(positions)):
                system.addParticle(1.0)
                force.addParticle(0.0, 1.0, 1.0)
            force.setNonbondedMethod(mm.NonbondedForce.CutoffPeriodic)
            force.setCutoffDistance(cutoff)
            force.setUseDispersionCorrection(False)
            system.addForce(force)
            system.setDefaultPeriodicBoxVectors(*(edge * np.eye(3)))
            integrator = mm.VerletIntegrator(step)
            context = mm.Context(system, integrator, mm.Platform.getPlatformByName(platform), properties)
            context.setPositions(positions * unit.nanometer)
            context.setVelocities(velocities * unit.nanometer / unit.picosecond)
            made.append((integrator, context))
        return made

    def timed(way: tuple[str, dict[str, str]]) -> float:
        ((integrator, _context),) = contexts(*way, 1)
        integrator.step(100)
        begin = time.perf_counter()
        integrator.step(2000)
        return time.perf_counter() - begin

    ways = [("Reference", {}), *(("CPU", {"Threads": str(number)}) for number in range(1, threads + 1))]
    platform, properties = min(ways, key=timed)
    every = contexts(platform, properties, len(x))

    def run(steps: int) -> None:
        for integrator, context in every:
            integrator.step(steps)
            context.getState(positions=True, velocities=True)

    return f"openmm {mm.version.version} {platform} {properties}", run


def torch_sim(x: np.ndarray, v: np.ndarray, edge: float, cutoff: float, step: float, threads: int) -> tuple[str, Run]:
    """All systems in one state of TorchSim, with its own Lennard-Jones model, by list or by all pairs: the faster."""
    from importlib.metadata import version

    import torch
    import torch_sim as ts
    from torch_sim.integrators.nve import nve
    from torch_sim.models.lennard_jones import LennardJonesModel

    torch.set_num_threads(threads)
    kinds = {"device": torch.device("cpu"), "dtype": torch.float64}

    def prepared(count: int, by_list: bool) -> Run:
        atoms = count * x.shape[1]
        state = ts.SimState(
            positions=torch.from_numpy(x[:count].reshape(-1, 3).copy()),
            masses=torch.ones(atoms, **kinds),
            cell=(edge * torch.eye(3, **kinds)).repeat(count, 1, 1),
            pbc=True,
            atomic_numbers=torch.ones(atoms, dtype=torch.int64),
            system_idx=torch.arange(count).repeat_interleave(x.shape[1]),
        )
        model = LennardJonesModel(sigma=1.0, epsilon=1.0, cutoff=cutoff, use_neighbor_list=by_list, **kinds)
        init, update = nve(model, dt=torch.tensor(step, **kinds), kT=torch.tensor(1.0, **kinds))
        moving = init(state)
        moving.momenta = torch.from_numpy(v[:count].reshape(-1, 3).copy())

        def run(steps: int) -> None:
            nonlocal moving
            for _ in range(steps):
                moving = update(moving)

        return run

    def timed(by_list: bool) -> float:
        run = prepared(min(20, len(x)), by_list)
        run(2)
        begin = time.perf_counter()
        run(5)
        return time.perf_counter() - begin

    return f"torch-sim {version('torch-sim-atomistic')}", prepared(len(x), min((True, False), key=timed))


def jax_md(x: np.ndarray, v: np.ndarray, edge: float, cutoff: float, step: float, threads: int) -> tuple[str, Run]:
    """One system in JAX MD with its own neighbour lists, in double precision, a hundred steps a compiled call."""
    from importlib.metadata import version

    import jax
    import jax.numpy as jnp
    from jax_md import energy, simulate, space

    jax.config.update("jax_enable_x64", True)
    positions, velocities = jnp.asarray(x[0]), jnp.asarray(v[0])
    displacement, shift = space.periodic(edge)
    neighbours, potential = energy.lennard_jones_neighbor_list(
        displacement, edge, r_onset=0.999 * cutoff, r_cutoff=cutoff, dr_threshold=0.3
    )
    init, apply = simulate.nve(potential, shift, step)
    near = neighbours.allocate(positions, extra_capacity=8)
    moving = init(jax.random.PRNGKey(0), positions, kT=1.0, neighbor=near).set(momentum=velocities)

    @jax.jit
    def hundred(state: object, near: object) -> object:
        def one(_: int, both: tuple[Any, Any]) -> tuple[Any, Any]:
            state, near = both
            near = near.update(state.position)
            return apply(state, neighbor=near), near

        return jax.lax.fori_loop(0, 100, one, (state, near))

    def run(steps: int) -> None:
        nonlocal moving, near
        for _ in range(steps // 100):
            moving, near = hundred(moving, near)
        jax.block_until_ready(moving)
        if near.did_buffer_overflow:
            raise RuntimeError("Expected room for all neighbours; the lists have overflowed.")

    run(100)
    return f"jax-md {version('jax-md')}", run


def main() -> None:
    """Prepare the peer that is asked for; then time as many steps as each line says."""
    given = np.load(sys.argv[1])
    prepare = {"openmm": openmm, "torch-sim": torch_sim, "jax-md": jax_md}[sys.argv[2]]
    try:
        version, run = prepare(
            given["x"], given["v"], float(given["edge"]), float(given["cutoff"]), float(given["step"]), int(given["threads"])
        )
    except ImportError:
        return
    print(json.dumps({"version": version}), flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        run(int(line))
        print(json.dumps({"seconds": time.perf_counter() - begin}), flush=True)


if __name__ == "__main__":
    main()
