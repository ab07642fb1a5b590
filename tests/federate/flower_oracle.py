"""Run Flower's own strategies on three rounds of random tensors and print what they make of them, as JSON.

Run with an interpreter that has Flower, to make the recording anew:

    FLWR_TELEMETRY_ENABLED=0 python tests/federate/flower_oracle.py > tests/federate/flower-1.41.0.json
"""

import json
import logging
import sys
from dataclasses import dataclass

import numpy as np

ROUNDS, NODES = 3, 7
SAMPLES = [10, 20, 5, 40, 8, 16, 1]
SHAPES = {"bias": (3,), "weight": (2, 3)}


@dataclass(frozen=True)
class Reply:
    """What a strategy reads of a message. Flower's own can only be made inside its runtime."""

    content: object

    def has_error(self):
        return False


def rounds():
    """What the nodes send: [rounds][nodes] of named tensors. Numbers of a generator that both sides run."""
    rng = np.random.Generator(np.random.Philox(key=2021))
    return [[{k: rng.normal(size=s) for k, s in SHAPES.items()} for _ in range(NODES)] for _ in range(ROUNDS)]


def start():
    """The parameters before the first round."""
    return {k: np.full(s, 0.5) for k, s in SHAPES.items()}


def replies(tensors, samples):
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

    for named, count in zip(tensors, samples, strict=True):
        arrays = ArrayRecord({k: Array(v) for k, v in named.items()})
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": count})})
        yield Reply(content)


def run(strategy, samples):
    """The parameters after each round, as nested lists."""
    from flwr.app import Array, ArrayRecord

    current, after = start(), []
    for number, tensors in enumerate(rounds(), start=1):
        if hasattr(strategy, "current_arrays"):
            as_record = type(strategy).__name__ == "FedAvgM"
            strategy.current_arrays = ArrayRecord({k: Array(v) for k, v in current.items()}) if as_record else current
        arrays, _ = strategy.aggregate_train(number, list(replies(tensors, samples)))
        current = {k: arrays[k].numpy() for k in sorted(SHAPES)}
        after.append({k: v.tolist() for k, v in current.items()})
    return after


def main():
    import flwr
    from flwr.serverapp import strategy

    logging.disable(logging.CRITICAL)
    equal = [1] * NODES
    strategies = {
        "mean": (strategy.FedAvg(), SAMPLES),
        "fedprox": (strategy.FedProx(proximal_mu=0.1), SAMPLES),
        "median": (strategy.FedMedian(), SAMPLES),
        "trimmed": (strategy.FedTrimmedAvg(beta=0.3), SAMPLES),
        "krum": (strategy.Krum(num_malicious_nodes=2), equal),
        "multi-krum": (strategy.MultiKrum(num_malicious_nodes=2, num_nodes_to_select=3), equal),
        "fedavgm": (strategy.FedAvgM(server_learning_rate=0.5, server_momentum=0.9), SAMPLES),
        "fedadagrad": (strategy.FedAdagrad(eta=0.1, tau=1e-3), SAMPLES),
        "fedadam": (strategy.FedAdam(eta=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3), SAMPLES),
        "fedyogi": (strategy.FedYogi(eta=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3), SAMPLES),
    }
    after = {name: run(*of) for name, of in strategies.items()}
    json.dump({"flwr": flwr.__version__, "after": after}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
