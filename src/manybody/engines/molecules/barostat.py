"""Constant pressure: now and then the volume changes at random, and a Metropolis test decides whether it stays so.

A move takes ln V to a value drawn evenly within `width` of it. The box and the molecules' centres of mass are multiplied by
(V'/V)^(1/3), while molecules keep shape and velocities. It is accepted with probability min(1, exp a),

    a = (N + 1) ln(V'/V) - (U' - U + p (V' - V)) / kT,

so that V^N exp(-(U + p V) / kT) dV stays the distribution of the volume: N powers are the room of the centres of mass, and
one belongs to the step, which is even in ln V. Sources: K.-H. Chow and D. M. Ferguson, Comput. Phys. Commun. 91, 283 (1995);
J. Aqvist et al., Chem. Phys. Lett. 384, 288 (2004).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from manybody.core.random import Key
from manybody.engines.molecules.forces import Evaluation, ForceField, NearLists
from manybody.engines.molecules.topology import Array
from manybody.numerics.lattice_list import LatticeList

ACCEPTED = 0.5  # share of the moves that tuning aims at: about where the volume forgets fastest
WIDEST = 0.3  # in ln V, that tuning goes to: a gas has no use for more
TUNING_TIME = 10  # moves after which the width is corrected by less and less


def log_acceptance(
    energy_change: float, volume: float, new_volume: float, molecules: int, pressure: float, kT: float
) -> float:  # fmt: skip
    """a of a move from `volume` to `new_volume` that costs `energy_change`; kJ/mol, nm^3, kJ/(mol nm^3)."""
    work = energy_change + pressure * (new_volume - volume)
    return (molecules + 1) * math.log(new_volume / volume) - work / kT


def first_width(molecules: int) -> float:
    """Where tuning begins: the volume of an ideal gas fluctuates by one over root N, that of a liquid by some times less."""
    return 0.3 / math.sqrt(molecules)


def tuned_width(width: float, accepted: float, move: int) -> float:
    """The width after a move that was accepted with probability `accepted`, the `move`-th since the start.

    Robbins and Monro's recursion in ln width: its gain falls as one over the number of moves, so it settles.
    """
    gain = 2 * TUNING_TIME / (TUNING_TIME + move)
    return min(width * math.exp(gain * (accepted - ACCEPTED)), WIDEST)


@dataclass(frozen=True)
class Place:
    """Where the atoms are: a force field in its box, positions [atoms, 3], their neighbour lists, and what acts there.

    slow: the part of it that changes slowly, where that is known and made use of.
    """

    field: ForceField
    positions: Array
    near: NearLists | None
    found: Evaluation
    slow: Evaluation | None = None


@dataclass(frozen=True)
class Barostat:
    """Keeps `pressure`, kJ/(mol nm^3), at temperature kT, kJ/mol, by a move after each `every` time steps.

    `tunes` lets the width of the moves follow from how many are accepted. That breaks detailed balance, so it is for
    equilibration only.
    """

    pressure: float
    kT: float
    every: int
    tunes: bool = False

    def move(self, origin: ForceField, place: Place, width: float, key: Key, number: int) -> tuple[Place, float]:
        """One move, the `number`-th since the start, its chance from `key`: where the atoms are then, and the next width.

        `origin` is the force field in the box it was made for: what is computed in a box must not depend on the way there.
        """
        change, chance = key.derive("volume", number).generator().uniform(size=2)
        trial = _resized(origin, place, math.exp(width * (2 * change - 1) / 3))
        likely = log_acceptance(
            trial.found.energy - place.found.energy, place.field.volume, trial.field.volume,
            place.field.topology.molecules, self.pressure, self.kT,
        )  # fmt: skip
        if self.tunes:
            width = tuned_width(width, math.exp(min(likely, 0.0)) if likely == likely else 0.0, number)
        return (trial, width) if chance < math.exp(min(likely, 0.0)) else (place, width)


def in_box(origin: ForceField, box: Array) -> ForceField:
    """A force field with its box replaced by one of the same shape, of edges `box` [3].

    Particle-mesh Ewald is scaled with it, so that it stays as accurate; cutoffs of Lennard-Jones stay, and the correction
    for what is beyond them goes with one over the volume.
    """
    if origin.box is None or (box == origin.box).all():
        return origin
    return replace(origin, box=box, ewald=origin.ewald.scaled(float(box[0] / origin.box[0])) if origin.ewald else None)


def _resized(origin: ForceField, place: Place, factor: float) -> Place:
    """The box and the centres of mass times `factor`."""
    field, x = place.field, place.positions
    assert field.box is not None
    wide = in_box(origin, field.box * factor)
    moved = x + (factor - 1) * field.centres(x)[field.topology.molecule]
    near = wide.lists(moved, _stretched(place, factor))
    return Place(wide, moved, near, wide.evaluate(moved, near))


def _stretched(place: Place, factor: float) -> NearLists | None:
    """The lists with all distances times `factor`: who was within reach is within so many times it."""
    cut, near = place.field.cut, place.near
    if cut is None or near is None:
        return None
    close = _stretched_list(near.cut, factor, cut.cutoff, cut.cutoff)
    ewald = near.ewald
    if ewald is not None and place.field.ewald is not None:
        reach = place.field.ewald.parameters.cutoff
        ewald = _stretched_list(ewald, factor, reach, reach * factor)
    return NearLists(close, ewald)


def _stretched_list(near: LatticeList, factor: float, cutoff: float, new_cutoff: float) -> LatticeList:
    """A list complete to cutoff + skin, stretched; what it reaches beyond `new_cutoff` is its skin, 0 where that is less."""
    skin = max(0.0, (cutoff + near.skin) * factor - new_cutoff)
    return replace(
        near, offset=near.offset * factor, shift=near.shift * factor, reference=near.reference * factor, skin=skin
    )  # fmt: skip
