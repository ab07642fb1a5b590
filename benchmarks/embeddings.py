"""What embedding states costs and saves on this machine: ``python -m benchmarks.embeddings``, as in docs/aggregation.md."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from manybody.federate.transfer import EmbeddingCost


def states() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(*[np.linspace(0, 6, 1024)] * 2, indexing="ij")
    return {
        "300,000 random positions in a box of 30": 30 * rng.random((300_000, 3)),
        "smooth field 1024², noise 10⁻³": np.sin(x) + np.sin(2 * y) + 1e-3 * rng.normal(size=x.shape),
    }


def table() -> Iterator[str]:
    yield "| array | bound | ratio | encode, MB/s | decode, MB/s | pays below, MB/s |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for label, state in states().items():
        for bound in (1e-3, 1e-6):
            cost = EmbeddingCost.measured(state, bound, repeats=20)
            speeds = " | ".join(f"{speed / 1e6:.0f}" for speed in (cost.compress, cost.decompress, cost.break_even))
            yield f"| {label} | {bound:g} | {cost.ratio:.1f} | {speeds} |"


if __name__ == "__main__":
    print("\n".join(table()))
