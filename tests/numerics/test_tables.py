"""Tables of pair potentials: what files may say, orders of convergence, and kernels against their plain twins."""

import math

import numpy as np
import pytest
import torch

from manybody.core.errors import InputError
from manybody.numerics.integrators import NO_BATH
from manybody.numerics.plain_pairs import PlainTable
from manybody.numerics.tables import MOST_PIECES, Pieces, Table, enough_pieces, read_table
from manybody.numerics.tabulated import table_kernel

CUTOFF = 2.5


def lennard_jones(points, forces=True, low=0.8, high=CUTOFF):
    r = np.linspace(low, high, points)
    return Table(r, energy(r), force(r) if forces else None)


def energy(r):
    return 4 * (r**-12 - r**-6)


def force(r):
    return 24 * (2 * r**-13 - r**-7)


def columns(table, *more):
    return "\n".join(" ".join(f"{value:.17g}" for value in row) for row in zip(table.r, table.energy, *more, strict=True))


@pytest.mark.parametrize("forces", [True, False], ids=["three columns", "two columns"])
def test_errors_fall_with_the_fourth_power_of_the_spacing_and_the_third_in_forces(forces):
    r = np.linspace(0.9, 2.4, 2001)
    found = []
    for points in (100, 200, 400):
        table = lennard_jones(points, forces)
        u, slope = table.at(r)
        found.append((np.abs(u - energy(r)).max(), np.abs(-slope - force(r)).max()))
    orders = np.log2(np.array(found[:-1]) / np.array(found[1:]))
    assert orders[-1] == pytest.approx([4, 3], abs=0.25)


def test_pieces_converge_as_the_splines_do_and_their_force_is_their_slope():
    table, r = lennard_jones(4000), np.linspace(0.9, 2.4, 500)
    squares = torch.from_numpy(r**2)
    found = []
    for count in (64, 128, 256):
        plain = PlainTable(Pieces.of(table, CUTOFF, count))
        pull = plain.force_over_r(squares)
        found.append(
            ((plain.energy(squares).numpy() - energy(r)), r * pull.numpy() - force(r)),
        )
        leaf = squares.clone().requires_grad_()
        (slope,) = torch.autograd.grad(plain.energy(leaf).sum(), leaf)
        assert torch.allclose(pull, -2 * slope, rtol=1e-12, atol=1e-11)
    errors = np.abs(np.array(found)).max(axis=2)
    assert np.log2(errors[1] / errors[2]) == pytest.approx([4, 3], abs=0.4)


def test_pieces_are_as_fine_as_the_points_and_no_more_than_fit():
    assert enough_pieces(lennard_jones(20), CUTOFF) == 512
    fine = lennard_jones(2000)
    pieces = enough_pieces(fine, CUTOFF)
    assert (CUTOFF**2 - 0.64) / pieces <= np.diff(fine.r**2).min() < 2 * (CUTOFF**2 - 0.64) / pieces
    assert enough_pieces(lennard_jones(200_000), CUTOFF) == MOST_PIECES


def test_one_energy_through_pieces_kernel_and_plain_twin_and_none_below_the_table():
    pieces = Pieces.of(lennard_jones(300), CUTOFF)
    kernel, plain = table_kernel(pieces), PlainTable(pieces)
    for r in (0.8, 1.0, 1.37, CUTOFF):
        squares = torch.tensor([r * r], dtype=torch.float64)
        assert kernel.energy(r) == pytest.approx(pieces.energy(r), rel=1e-12, abs=1e-12)
        assert kernel.energy(r) == pytest.approx(plain.energy(squares).item(), rel=1e-12, abs=1e-12)
        assert kernel.force(r) == pytest.approx(r * plain.force_over_r(squares).item(), rel=1e-11, abs=1e-11)
    below = torch.tensor([0.79**2], dtype=torch.float64)
    values = [kernel.energy(0.79), kernel.force(0.79), pieces.energy(0.79), plain.energy(below), plain.force_over_r(below)]
    assert all(math.isnan(value) for value in values)


def test_dynamics_conserves_the_energy_of_the_table_to_the_second_order_of_the_step():
    """256 atoms without a heat bath; the kernel's totals are those of the plain twin, too."""
    cells, constant = 4, (4 / 0.6) ** (1 / 3)
    box = np.full(3, cells * constant)
    basis = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]) + 0.25
    grid = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    x = ((grid + basis) * constant).reshape(-1, 3)
    v = np.random.default_rng(1).standard_normal(x.shape)
    v -= v.mean(axis=0)
    # Weeks, Chandler and Andersen: it ends smoothly at its cutoff, so that nothing jumps but the third derivative at knots.
    end = 2 ** (1 / 6)
    r = np.linspace(0.7, end, 400)
    pieces = Pieces.of(Table(r, energy(r) + 1, force(r)), end)
    kernel = table_kernel(pieces)
    spread = []
    for dt, steps in ((0.004, 500), (0.002, 1000)):
        rows = np.empty((steps // 5, 8))
        nothing = np.empty((0, 1, 1)), np.empty(0)
        among = end, (0.4, 0.25), kernel.values
        atoms = kernel.module.start(x, v, box, *among, 1)
        atoms, failed, _ = kernel.module.advance(atoms, box, *among, dt, NO_BATH, 1.0, 1.0, 765.0, *nothing, 5, rows, 1)
        assert failed < 0
        y = kernel.module.by_name(atoms.x, atoms.names)
        whole = rows[:, 0] + rows[:, 3]
        spread.append(whole[20:].std() / 765)
        _, plain_energy, virial, pairs = PlainTable(pieces).evaluate(torch.from_numpy(y), torch.from_numpy(box), end)
        assert rows[-1, :3] == pytest.approx([plain_energy, virial, pairs], rel=1e-9)
    assert spread[0] < 1e-3
    assert spread[0] / spread[1] == pytest.approx(4, rel=0.3)


def test_columns_are_read_with_comments_and_with_or_without_forces():
    table = lennard_jones(12)
    for more in ((), (table.force,)):
        read = read_table(f"# r u f\n\n{columns(table, *more)}  # the last\n", "a.txt")
        assert np.array_equal(read.r, table.r)
        assert np.array_equal(read.energy, table.energy)
        assert (read.force is not None) == bool(more)


def lammps(table, settings, keyword="PAIR"):
    rows = zip(range(1, 1 + len(table.r)), table.r, table.energy, table.force, strict=True)
    body = "\n".join(f"{i} {r:.15g} {u:.15g} {f:.15g}" for i, r, u, f in rows)
    return f"# UNITS: lj\n{keyword}\nN {len(table.r)} {settings}\n\n{body}\n\n"


def test_tables_of_lammps_are_read_by_keyword_and_by_their_spacing():
    even = lennard_jones(30)
    r = np.sqrt(np.linspace(0.64, CUTOFF**2, 30))
    squares = Table(r, energy(r), force(r))
    text = lammps(even, "R 0.8 2.5", "EVEN") + lammps(squares, "RSQ 0.8 2.5 FPRIME 1 0", "SQUARES") + lammps(even, "", "AS_IS")
    for keyword, wanted in (("EVEN", even), ("SQUARES", squares), ("AS_IS", even)):
        assert read_table(text, "a.table", keyword).r == pytest.approx(wanted.r, rel=1e-13)
    with pytest.raises(InputError, match="one of EVEN, SQUARES, AS_IS"):
        read_table(text, "a.table")
    assert read_table(lammps(even, ""), "a.table").energy == pytest.approx(even.energy, rel=1e-14)


GOOD = [f"{r} {energy(r)} {force(r)}" for r in (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7)]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "a.txt: expected columns"),
        (["# nothing but a comment"], "a.txt: expected columns"),
        ([*GOOD[:3], "1.25 x 2", *GOOD[3:]], "line 4: expected 3 finite numbers; got 1.25 x 2"),
        ([*GOOD[:3], "1.25 3", *GOOD[3:]], "line 4: expected 3 finite numbers; got 1.25 3"),
        ([*GOOD[:3], "1.25 nan 1", *GOOD[3:]], "line 4: expected 3 finite numbers"),
        ([*GOOD[:3], *GOOD[1:]], "line 4: expected distances above 0 that grow; got 1.1"),
        (["0 9 9", *GOOD], "line 1: expected distances above 0"),
        (GOOD[:4], "at least 5 points"),
        (["1 2 3 4 5"] * 9, "line 1: expected two or three columns"),
        ([f"{r} {energy(r)} {-force(r)}" for r in np.linspace(1, 2, 20)], r"force -du/dr between .*Turn its sign"),
        (["PAIR", "R 1 2", "1 1 1 1"], "line 1: expected a keyword, and a line `N POINTS`"),
        (["PAIR", "N some", "1 1 1 1"], "line 2: expected `N` and the number of points"),
        (["PAIR", "N 5 BITMAP", "1 1 1 1"], "`N` says|BITMAP|5 points"),
        (["PAIR", "N 5 R 1", *[f"{k} 1 1 1" for k in range(5)]], "line 2: expected `R` with the first and the last r"),
        (["PAIR", "N 9", "1 1 1 1"], "line 3: expected 9 points, as `N` says; got 1"),
        (["PAIR", "N 5", "1 1 1"], "line 3: expected four numbers"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(lines, said):
    with pytest.raises(InputError, match=said):
        read_table("\n".join(lines), "a.txt")
