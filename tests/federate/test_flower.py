"""Our rules against Flower's strategies: its recorded answers always, a live Flower where there is one.

A live one is found by `manybody.testing.flower`.
"""

import importlib.util
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from manybody.federate.fedadagrad import FedAdagrad
from manybody.federate.fedadam import FedAdam
from manybody.federate.fedavgm import FedAvgM
from manybody.federate.fedyogi import FedYogi
from manybody.federate.krum import Krum
from manybody.federate.mean import WeightedMean
from manybody.federate.median import CoordinateMedian
from manybody.federate.proximal import FedProx
from manybody.federate.tensors import Contribution, Round
from manybody.federate.trimmed import TrimmedMean
from manybody.testing.flower import REMEDY, interpreter

ORACLE = Path(__file__).with_name("flower_oracle.py")
RECORDED = json.loads(Path(__file__).with_name("flower-1.41.0.json").read_text())

RULES = {
    "mean": WeightedMean(),
    "fedprox": FedProx(),
    "median": CoordinateMedian(),
    "trimmed": TrimmedMean(bad=2),  # Flower cuts int(0.3 * 7) at each end
    "krum": Krum(bad=2),
    "multi-krum": Krum(bad=2, keep=3),
    "fedavgm": FedAvgM(learning_rate=0.5, beta=0.9),
    "fedadagrad": FedAdagrad(learning_rate=0.1, initial_variance=0.0),  # Flower starts v at zero
    "fedadam": FedAdam(learning_rate=0.1, initial_variance=0.0),
    "fedyogi": FedYogi(learning_rate=0.1, initial_variance=0.0),
}


def oracle_module():
    spec = importlib.util.spec_from_file_location("flower_oracle", ORACLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def corrected(rule, number):
    """Flower's FedAdam multiplies its rate by sqrt(1 - b2^(t+1)) / (1 - b1^(t+1)), which the paper does not."""
    if rule.name != "fedadam":
        return rule
    factor = np.sqrt(1 - rule.beta2 ** (number + 1)) / (1 - rule.beta ** (number + 1))
    return rule.model_copy(update={"learning_rate": rule.learning_rate * float(factor)})


def ours(name):
    oracle, rule = oracle_module(), RULES[name]
    state, after = rule.start(oracle.start()), []
    for number, tensors in enumerate(oracle.rounds(), start=1):
        sent = [Contribution.of(f"{i}", t, samples=s) for i, (t, s) in enumerate(zip(tensors, oracle.SAMPLES, strict=True))]
        state = corrected(rule, number).step(state, Round.of(sent))
        after.append(state.parameters)
    return after


def assert_equal(name, theirs):
    """To a few units in the last place: Flower adds in another order, and its Krum selects by the Gram form."""
    for mine, other in zip(ours(name), theirs, strict=True):
        for tensor, values in mine.items():
            np.testing.assert_allclose(values, other[tensor], rtol=2e-14, atol=2e-15, err_msg=f"{name}, {tensor}")


@pytest.mark.parametrize("name", RULES)
def test_agrees_with_flowers_recorded_answers(name):
    assert RECORDED["flwr"] == "1.41.0"
    assert_equal(name, RECORDED["after"][name])


def test_agrees_with_a_live_flower():
    python = interpreter()
    if python is None:
        pytest.skip(REMEDY)
    environment = os.environ | {"FLWR_TELEMETRY_ENABLED": "0"}
    done = subprocess.run([python, str(ORACLE)], capture_output=True, text=True, timeout=120, env=environment, check=True)
    live = json.loads(done.stdout)
    assert set(live["after"]) == set(RULES)
    for name in RULES:
        assert_equal(name, live["after"][name])
