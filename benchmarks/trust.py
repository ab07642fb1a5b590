"""Escape rate against cost of four policies of trust, on simulated networks of 1,000 nodes.

``python -m benchmarks.trust --write docs`` writes the tables into docs/network-trust.md and the figure
docs/figures/trust.svg; the same seeds give the same bytes. ``--seeds 2`` is a quick look.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from manybody.core.random import Key
from manybody.network.assurance import Fault, assure, spot_for
from manybody.network.simulation.population import Kind, Outcome, Population, Rule
from manybody.network.simulation.run import Interval, escape_interval, simulate
from manybody.network.trust import TrustPolicy

NAMES: dict[Rule, str] = {
    "none": "no checks",
    "quorum": "double computation, quorum 2",
    "boinc": "adaptive replication as BOINC's",
    "ours": "ours",
}
COLOURS: dict[Rule, str] = {"none": "#888888", "quorum": "#4477aa", "boinc": "#ccaa33", "ours": "#aa3377"}
FLIPS = Fault(label="bit flips", rate=0.2, wrong=1, as_verifier=True)
STEALTH = Fault(label="colluders that falsify one segment", rate=0.2, wrong=1, friends=0.02)


def runs(rule: Rule, population: Population, seeds: int, policy: TrustPolicy | None = None) -> list[Outcome]:
    return [simulate(rule, population, Key.from_seed(seed, "benchmarks.trust"), policy) for seed in range(seeds)]


def number(value: float) -> str:
    """Two digits, and no more zeros than help."""
    if value == 0.0:
        return "0"
    return f"{value:.2g}" if value >= 1e-4 else f"{value:.1e}"


def interval(found: Interval) -> str:
    return (
        number(found.mean) if found.high == found.low else f"{number(found.mean)} ({number(found.low)} to {number(found.high)})"
    )


# --- tables ----------------------------------------------------------------------------------------------------


def comparison(outcomes: dict[Rule, list[Outcome]]) -> Iterator[str]:
    heads = "policy", "seeds", "cost", "false given", "stand in the end, of those given", "pass at first", "false among all"
    yield "| " + " | ".join((*heads, "good nodes expelled")) + " |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for rule, done in outcomes.items():
        given = sum(o.false_given for o in done)
        stand = sum(o.false_accepted for o in done)
        escape = interval(escape_interval(done)) if stand else f"0 of {given}, {number(expected(done))} expected"
        cost = Interval.of([o.cost for o in done])
        yield (
            f"| {NAMES[rule]} | {len(done)} | {cost.mean:.4f} | {given / len(done):.0f} | {escape} "
            f"| {number(sum(o.false_at_first for o in done) / given)} | {number(Interval.of([o.share for o in done]).mean)} "
            f"| {sum(o.good_caught for o in done) / len(done):.2g} |"
        )


def expected(done: list[Outcome]) -> float:
    """What the closed form expects to stand of ours, of those given: all of it by the nodes that flip bits.

    Whole false results of the other kinds pass with chances below one in a million (`assurance.standard_faults`).
    """
    population = Population()
    share = population.bad / len(population.mix)
    results = round(population.results / (1 - population.bad))  # those that are left do the work of the caught, too
    standing = assure(results, population.segments, FLIPS, bad=share).share * population.nodes * results
    return standing * len(done) / sum(o.false_given for o in done)


def by_kind(outcomes: dict[Rule, list[Outcome]]) -> Iterator[str]:
    kinds = [kind for kind in Kind if kind != Kind.GOOD]
    labels = {
        Kind.LAZY: "lazy",
        Kind.FLIPS: "bit flips",
        Kind.OFF: "off by 1 %",
        Kind.COLLUDING: "colluding",
        Kind.TURNING: "turning",
    }
    yield "| stand in the end, of those given by | " + " | ".join(labels[kind] for kind in kinds) + " |"
    yield "| --- |" + " --- |" * len(kinds)
    for rule, done in outcomes.items():
        cells = []
        for kind in kinds:
            given = sum(o.given_by_kind[kind.name.lower()] for o in done)
            stand = sum(o.accepted_by_kind[kind.name.lower()] for o in done)
            cells.append(f"{number(stand / given)} of {given / len(done):.0f}" if given else "none given")
        yield f"| {NAMES[rule]} | " + " | ".join(cells) + " |"


def limits(seeds: int) -> Iterator[str]:
    """Where the aim is missed: simulated, beside the closed form."""
    yield "| what is different | simulated: stand in the end | closed form | cost | aim of 1 in 1,000 at 1.15 |"
    yield "| --- | --- | --- | --- | --- |"
    cases = [
        ("bit flips only, 100 results a node", Population(results=100, mix=(Kind.FLIPS,), bad=0.02), FLIPS),
        ("bit flips only, 200 results a node", Population(results=200, mix=(Kind.FLIPS,), bad=0.02), FLIPS),
        (
            "bit flips in 2 % of results, 300 results a node",
            Population(mix=(Kind.FLIPS,), bad=0.02, flips=0.02),
            FLIPS.model_copy(update={"rate": 0.02}),
        ),
        (
            "colluders falsify one segment of 20, 100 results a node",
            Population(results=100, mix=(Kind.COLLUDING,), bad=0.02, lie_segments=1),
            STEALTH,
        ),
        (
            "colluders falsify one segment of 20, 300 results a node",
            Population(mix=(Kind.COLLUDING,), bad=0.02, lie_segments=1),
            STEALTH,
        ),
        ("good nodes only, 1 result in 1,000 with a one-off error", Population(bad=0.0, transient=0.001), None),
    ]
    for label, population, fault in cases:
        done = runs("ours", population, seeds)
        found = escape_interval(done)
        cost = Interval.of([o.cost for o in done]).mean
        # Those that are left do the work of the caught ones, too.
        form = (
            assure(round(population.results / (1 - population.bad)), 20, fault, bad=population.bad).in_the_end if fault else None
        )
        expected = found.mean if form is None else max(found.mean, form)
        reached = "reached" if expected <= 1e-3 and cost < 1.15 else "missed"
        yield f"| {label} | {interval(found)} | {'none' if form is None else number(form)} | {cost:.4f} | {reached} |"


def closed_forms() -> Iterator[str]:
    """What `assure` says for a certificate, by results a node and by the share of segments checked."""
    heads = "segments checked", "results a node", "bit flips: stand in the end", "stealthy colluders: stand in the end"
    yield "| " + " | ".join((*heads, "checks cost", "redoing costs")) + " |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for spot in (0.05, 0.1, 0.15):
        for results in (50, 100, 300, 1000):
            flips, stealth = (assure(results, 20, fault, TrustPolicy(spot=spot), bad=0.02) for fault in (FLIPS, STEALTH))
            yield (
                f"| {spot:.0%} | {results} | {number(flips.in_the_end)} | {number(stealth.in_the_end)} "
                f"| {flips.checks:.1%} | {max(flips.redone, stealth.redone):.1%} |"
            )


def needed() -> Iterator[str]:
    """The least share of segments to check for the aim, 1 in 1,000 standing, and what it costs."""
    yield "| results a node | against bit flips: check | cost | against stealthy colluders: check | cost |"
    yield "| --- | --- | --- | --- | --- |"
    for results in (50, 100, 200, 300, 500, 1000):
        cells = []
        for fault in (FLIPS, STEALTH):
            policy = spot_for(1e-3, results, 20, fault)
            cost = 1 + assure(results, 20, fault, policy, bad=0.02).extra_cost if policy else None
            cells.append(f"{policy.spot:.0%} | {cost:.3f}" if policy else "not reached | ")
        yield f"| {results} | {cells[0]} | {cells[1]} |"


# --- figure ----------------------------------------------------------------------------------------------------


def figure(outcomes: dict[Rule, list[Outcome]], seeds: int, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "manybody"
    from matplotlib import pyplot as plt

    image, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for rule, done in outcomes.items():
        cost, stand = Interval.of([o.cost for o in done]).mean, escape_interval(done).mean
        label = NAMES[rule] if stand else f"{NAMES[rule]}: none stood, this many expected"
        left.plot(cost, stand or expected(done), "o" if stand else "v", color=COLOURS[rule], ms=8, label=label)
    spots = [0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.11, 0.12, 0.15, 0.2]
    for results, style in ((100, ":"), (300, "-")):
        found = [assure(results, 20, FLIPS, TrustPolicy(spot=spot), bad=0.1) for spot in spots]
        label = f"ours, if all bad nodes flipped bits,\n{results} results a node (closed form)"
        left.plot([1 + f.extra_cost for f in found], [f.in_the_end for f in found], style, color=COLOURS["ours"], label=label)
    left.axhline(1e-3, color="black", lw=0.6)
    left.axvline(1.15, color="black", lw=0.6)
    left.set(yscale="log", ylim=(1e-6, 2), xlim=(0.95, 2.2), xlabel="cost, over computing everything once")
    left.set(ylabel="false results that stand in the end,\nof those given")
    left.legend(fontsize=7, loc="lower right")
    _course(right, seeds)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(image)


def _course(axes: object, seeds: int) -> None:
    """Escape against results a node: the closed form as a line, the simulation as points."""
    grid = [10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 400]
    for fault, colour, changes in (
        (FLIPS, "#228833", {"mix": (Kind.FLIPS,)}),
        (STEALTH, "#ee6677", {"mix": (Kind.COLLUDING,), "lie_segments": 1}),
    ):
        axes.plot(grid, [assure(n, 20, fault, bad=0.02).in_the_end for n in grid], color=colour, label=fault.label)
        for results in (10, 20, 50, 100, 150):
            done = runs("ours", Population(results=results, bad=0.02, **changes), seeds)
            found = escape_interval(done)
            if found.mean > 0:
                error = [[found.mean - max(found.low, 1e-9)], [found.high - found.mean]]
                axes.errorbar(results, found.mean, yerr=error, fmt="o", color=colour, ms=4, capsize=2)
    axes.axhline(1e-3, color="black", lw=0.6)
    axes.set(yscale="log", xscale="log", ylim=(1e-6, 2), xlabel="results a node", ylabel="stand in the end, of those given")
    axes.legend(fontsize=8)


# --- command ---------------------------------------------------------------------------------------------------


def replaced(text: str, block: str, lines: Sequence[str]) -> str:
    """`text` with the lines between the markers of `block` replaced."""
    begin, end = f"<!-- {block}: generated -->\n", f"<!-- {block}: end -->\n"
    before, rest = text.split(begin)
    return before + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="folder of the docs to write into")
    parser.add_argument("--seeds", type=int, default=40, help="runs of ours; a quarter as many of the others")
    options = parser.parse_args()
    few = max(2, math.ceil(options.seeds / 4))
    outcomes = {rule: runs(rule, Population(), options.seeds if rule == "ours" else few) for rule in NAMES}
    blocks = {
        "comparison": list(comparison(outcomes)),
        "kinds": list(by_kind(outcomes)),
        "limits": list(limits(few)),
        "needed": list(needed()),
        "closed-forms": list(closed_forms()),
    }
    for lines in blocks.values():
        print("\n".join(lines), end="\n\n")
    if options.write:
        page = options.write / "network-trust.md"
        text = page.read_text()
        for block, lines in blocks.items():
            text = replaced(text, block, lines)
        page.write_text(text)
        figure(outcomes, few, options.write / "figures" / "trust.svg")


if __name__ == "__main__":
    main()
