"""Trajectories of a run of water as files that MDTraj, ASE and h5py read back; a restart from a stored result."""

import ase.io
import h5py
import mdtraj
import numpy as np
import pytest
from typer.testing import CliRunner

from manybody.cli import app
from manybody.core.errors import InputError
from manybody.core.study import Point, Realisation
from manybody.engines.molecules.spec import KELVIN, MOLECULAR_UNITS, ForceFieldDynamics, WaterBox
from manybody.engines.molecules.stages import equilibrate, produce
from manybody.store.objects import ObjectStore
from manybody.study.trajectories import Frames, frames_of, write_trajectory

SYSTEM = WaterBox(temperature=300 * KELVIN, molecules=64, cutoff=0.6, switch=0.5, electrostatics="reaction-field")
METHOD = ForceFieldDynamics(equilibration=0.02, duration=0.08, segment=0.04, sample_every=0.01, frame_every=0.02)


@pytest.fixture(scope="module")
def realisation():
    return Realisation(Point(0, "water", SYSTEM, METHOD), 0, *METHOD.plan(SYSTEM, seed=3, repeat=0))


@pytest.fixture(scope="module")
def outputs(realisation, tmp_path_factory):
    """The result of each task, written to a store and read back before the next one starts from it."""
    store, found = ObjectStore(tmp_path_factory.mktemp("objects")), {}
    for task in realisation.tasks:
        stage = equilibrate if task.stage == "equilibrate" else produce
        inputs = {name: found[digest] for name, digest in task.inputs.items()}
        found[task.digest] = store.get(store.put(stage(task, inputs, Quiet())).digest)
    return found


class Quiet:
    """A context that nobody listens to."""

    device, threads = "cpu", 1

    def progress(self, progress):
        pass

    def resume(self):
        return None

    def keep(self, output):
        pass


@pytest.fixture(scope="module")
def frames(realisation, outputs):
    return frames_of(realisation, lambda task: outputs[task.digest], MOLECULAR_UNITS)


def test_frames_of_all_segments_follow_each_other(realisation, outputs, frames):
    assert frames.times == pytest.approx([0.02, 0.04, 0.06, 0.08])
    last = outputs[realisation.tasks[-1].digest].arrays
    assert np.array_equal(frames.positions[-1], last["positions"].astype(np.float32))
    assert frames.boxes == pytest.approx(np.full((4, 3), SYSTEM.box))
    assert frames.numbers.tolist() == [8, 1, 1] * 64


@pytest.mark.parametrize(("kind", "exact"), [("xtc", 6e-4), ("dcd", 1e-6), ("pdb", 6e-5), ("gro", 6e-4)])
def test_mdtraj_reads_what_was_written(tmp_path, frames, kind, exact):
    write_trajectory(frames, tmp_path / f"water.{kind}")
    top = None if kind in ("pdb", "gro") else _topology(tmp_path, frames)
    found = mdtraj.load(str(tmp_path / f"water.{kind}"), top=top)
    assert np.abs(found.xyz - frames.positions).max() < exact  # half a unit of the last digit that the format keeps
    assert found.unitcell_lengths == pytest.approx(frames.boxes, abs=exact)
    assert found.unitcell_angles == pytest.approx(np.full((4, 3), 90.0), abs=1e-4)
    if kind in ("xtc", "gro"):
        assert found.time == pytest.approx(frames.times, abs=1e-5)
    assert [atom.element.symbol for atom in found.topology.atoms][:3] == ["O", "H", "H"]


def _topology(folder, frames):
    write_trajectory(frames, folder / "top.pdb")
    return str(folder / "top.pdb")


def test_ase_reads_extended_xyz_in_its_units(tmp_path, frames):
    write_trajectory(frames, tmp_path / "water.extxyz")
    found = ase.io.read(tmp_path / "water.extxyz", index=":")
    assert [image.info["time"] for image in found] == pytest.approx(frames.times)
    assert np.abs(found[-1].positions - 10 * frames.positions[-1]).max() < 1e-7
    assert found[0].cell.lengths() == pytest.approx(10 * frames.boxes[0])
    assert found[0].pbc.all()
    assert found[0].get_chemical_formula() == "H128O64"


def test_h5md_holds_every_digit_with_units(tmp_path, frames):
    write_trajectory(frames, tmp_path / "water.h5md")
    with h5py.File(tmp_path / "water.h5md") as file:
        particles = file["particles/all"]
        assert np.array_equal(particles["position/value"], frames.positions)
        assert particles["position/value"].attrs["unit"] == "nm"
        assert particles["position/time"].attrs["unit"] == "ps"
        assert np.array_equal(particles["position/time"], frames.times)
        assert np.array_equal(particles["box/edges/value"], frames.boxes)
        assert particles["box"].attrs["boundary"].tolist() == ["periodic"] * 3
        assert file["h5md"].attrs["version"].tolist() == [1, 1]


def test_particles_without_element_or_box_keep_their_numbers(tmp_path):
    x = np.arange(12.0).reshape(2, 2, 3)
    free = Frames(x, np.array([0.5, 1.0]), np.zeros((2, 3)), np.zeros(2, dtype=np.int64), physical=False)
    write_trajectory(free, tmp_path / "free.xyz")
    assert ase.io.read(tmp_path / "free.xyz", index=1).positions == pytest.approx(x[1])
    write_trajectory(free, tmp_path / "free.xtc")
    write_trajectory(free, tmp_path / "free.h5md")
    with h5py.File(tmp_path / "free.h5md") as file:
        assert "edges" not in file["particles/all/box"]
        assert "unit" not in file["particles/all/position/value"].attrs
    assert sorted(path.name for path in tmp_path.iterdir()) == ["free.h5md", "free.xtc", "free.xyz"]
    with pytest.raises(InputError, match="an ending of xtc, dcd"):
        write_trajectory(free, tmp_path / "free.trj")


def test_a_restart_from_a_stored_result_has_the_same_bits(realisation, outputs):
    """One task of 0.04 ps from a result in the store is the bits of the engine that never stopped."""
    start, first, second = realisation.tasks
    whole = produce(first, {"state": outputs[start.digest]}, Quiet())
    again = produce(second, {"state": whole}, Quiet())
    for name, values in outputs[second.digest].arrays.items():
        assert np.array_equal(values, again.arrays[name]), name


def test_a_run_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MANYBODY_HOME", str(tmp_path))
    told = CliRunner().invoke(app, ["trajectory", "7", str(tmp_path / "water.xtc")])
    assert isinstance(told.exception, InputError)
    assert "7" in str(told.exception)
