"""Generated kernels against their plain twins, finite differences and known answers."""

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from manybody.core.errors import InputError
from manybody.numerics import jit
from manybody.numerics.pairs import LENNARD_JONES, PairPotential, generate
from manybody.numerics.plain_pairs import PlainPairs

UNIT = {"epsilon": 1.0, "sigma": 1.0}
MORSE = PairPotential("morse", "depth*(1 - exp(-a*(r - place)))**2 - depth", ("depth", "a", "place"))
BUCKINGHAM = PairPotential("buckingham", "A*exp(-B*r) - C/r2**3 + 1/r + 0.1*r**3", ("A", "B", "C"))
SHAPES = [
    (LENNARD_JONES, {"epsilon": 1.3, "sigma": 0.9}),
    (MORSE, {"depth": 0.7, "a": 2.0, "place": 1.1}),
    (BUCKINGHAM, {"A": 90.0, "B": 4.0, "C": 0.5}),
    (PairPotential("yukawa", "strength*exp(-kappa*r)/r", ("strength", "kappa")), {"strength": 2.0, "kappa": 1.5}),
    (PairPotential("erfc", "erfc(a*r)/r - sqrt(r)*log(r)", ("a",)), {"a": 0.8}),
]


def liquid(atoms: int = 300, density: float = 0.8, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Points no closer than about 0.8, in an anisotropic box."""
    generator = np.random.default_rng(seed)
    cells = math.ceil(atoms ** (1 / 3))
    grid = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), -1).reshape(-1, 3)[:atoms] / cells
    box = (atoms / density) ** (1 / 3) * np.array([0.9, 1.0, 1 / 0.9])
    return (grid + generator.uniform(-0.01, 0.01, grid.shape)) * box + generator.uniform(-20, 20, 3), box


@pytest.mark.parametrize(("potential", "values"), SHAPES, ids=lambda value: getattr(value, "name", ""))
def test_energy_and_force_match_plain_torch_and_each_other(potential, values):
    kernel, plain = potential.bind(values), PlainPairs(potential, values)
    for r in (0.9, 1.0, 1.37, 2.5):
        r2 = torch.tensor([r * r], dtype=torch.float64)
        assert kernel.energy(r) == pytest.approx(float(plain.energy(r2)), rel=1e-12, abs=1e-13)
        assert kernel.force(r) == pytest.approx(r * float(plain.force_over_r(r2)), rel=1e-11, abs=1e-12)
        h = 1e-5  # the error of a central difference is h^2 u'''/6, and eps u / h of round-off: about 1e-8 of these
        slope = (kernel.energy(r + h) - kernel.energy(r - h)) / (2 * h)
        assert kernel.force(r) == pytest.approx(-slope, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("potential", "values"), SHAPES[:2], ids=lambda value: getattr(value, "name", ""))
def test_all_pairs_match_plain_torch(potential, values):
    x, box = liquid()
    cutoff = 0.49 * box.min()
    forces, energy, virial, pairs = potential.bind(values).evaluate(x, box, cutoff)
    expected = PlainPairs(potential, values).evaluate(torch.from_numpy(x), torch.from_numpy(box), cutoff)
    assert np.abs(forces - expected[0].numpy()).max() <= 1e-10 * np.abs(forces).max()
    assert pairs == expected[3]
    assert energy == pytest.approx(expected[1], rel=1e-10)
    assert virial == pytest.approx(expected[2], rel=1e-10)


def test_forces_are_the_slope_of_the_energy():
    x, box = liquid(200)
    kernel, cutoff = LENNARD_JONES.bind(UNIT), 2.5
    forces, *_ = kernel.evaluate(x, box, cutoff)
    shift = kernel.energy(cutoff)

    def energy(positions: np.ndarray) -> float:
        _, plain, _, pairs = kernel.evaluate(positions, box, cutoff)
        return plain - shift * pairs

    h = 1e-5
    for atom, axis in ((0, 0), (17, 1), (199, 2)):
        up, down = x.copy(), x.copy()
        up[atom, axis] += h
        down[atom, axis] -= h
        assert forces[atom, axis] == pytest.approx(-(energy(up) - energy(down)) / (2 * h), rel=1e-5, abs=1e-5)


def test_two_atoms_across_the_boundary():
    box = np.array([10.0, 11.0, 12.0])
    x = np.array([[0.25, 5.0, 5.0], [9.25, 5.0, 5.0]])  # 1 apart through the face: u = 0, force 24
    forces, energy, virial, pairs = LENNARD_JONES.bind(UNIT).evaluate(x, box, 3.0)
    assert pairs == 1
    assert energy == pytest.approx(0.0, abs=1e-12)
    assert forces[0] == pytest.approx([24.0, 0.0, 0.0], rel=1e-12)
    assert virial == pytest.approx(24.0, rel=1e-12)


def test_overlap_gives_no_finite_force():
    x, box = liquid(64)
    x[9] = x[41]
    forces, *_ = LENNARD_JONES.bind(UNIT).evaluate(x, box, 1.9)
    assert not np.isfinite(forces[[9, 41]]).any()


def test_cutoff_beyond_half_the_box_is_refused():
    x, box = liquid(64)
    with pytest.raises(InputError, match=r"up to half the box.*Lower it"):
        LENNARD_JONES.bind(UNIT).evaluate(x, box, 0.51 * box.min())


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("__import__('os').system('true')", "Use one of these"),
        ("r.real", "Attribute"),
        ("epsilon*(1/r", "arithmetic expression"),
        ("epsilon/s", "Name it among the parameters"),
        ("gamma(r)", "one of the functions"),
        ("r if r else 1", "IfExp"),
        ("'r'", "Constant"),
    ],
)
def test_what_is_no_arithmetic_is_refused(expression, said):
    with pytest.raises(InputError, match=said):
        PairPotential("wrong", expression, ("epsilon",))


def test_missing_parameter_is_refused():
    with pytest.raises(InputError, match="values for epsilon, sigma; got epsilon"):
        LENNARD_JONES.bind({"epsilon": 1.0})


def test_kept_source_needs_no_sympy(tmp_path, monkeypatch):
    monkeypatch.setenv("MANYBODY_CACHE", str(tmp_path))
    jit.keep_source(jit.kernel_path(LENNARD_JONES.digest), generate(LENNARD_JONES))
    program = (
        "import sys; from manybody.numerics.pairs import LENNARD_JONES as u;"
        "print(u.bind({'epsilon': 1.0, 'sigma': 1.0}).energy(2 ** (1 / 6)), 'sympy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"MANYBODY_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    energy, sympy = done.stdout.split()
    assert float(energy) == pytest.approx(-1.0, rel=1e-12)
    assert sympy == "False"


def test_writers_that_race_leave_one_whole_file(tmp_path):
    path, text = tmp_path / "kernels" / "kernel_a.py", "x = 1\n" * 1000
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: jit.keep_source(path, text), range(40)))
    assert path.read_text() == text
    assert [found.name for found in path.parent.iterdir()] == ["kernel_a.py"]
    written = path.stat().st_mtime_ns
    jit.keep_source(path, text)
    assert path.stat().st_mtime_ns == written, "an existing kernel was written again: its compiled code is lost"
