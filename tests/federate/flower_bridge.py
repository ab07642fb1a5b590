"""Flower's strategies over our backends. Run by test_flower_bridge.py, with an interpreter that has Flower."""

import importlib.util
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from flwr.server.strategy import FedAvg as LegacyFedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.serverapp import strategy

from manybody.core import catalog
from manybody.core.task import Output
from manybody.federate.flower import Client, FlowerGrid, SecureTraining, Training
from manybody.federate.flower.secagg import SecAggPlusTraining, secagg_plus
from manybody.network.local import Embedded
from manybody.store.encoding import encode
from manybody.store.objects import ObjectStore
from manybody.testing.federation import Town

HERE = Path(__file__).parent
PLUGINS = HERE / "plugins"
RECORDED = json.loads((HERE / "flower-1.41.0.json").read_text())["after"]
logging.getLogger("flwr").setLevel(logging.CRITICAL)


@pytest.fixture(autouse=True, scope="module")
def method(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANYBODY_HOME", str(tmp_path_factory.mktemp("home")))
        patch.syspath_prepend(PLUGINS)
        patch.setenv("PYTHONPATH", str(PLUGINS) + os.pathsep + os.environ.get("PYTHONPATH", ""))
        catalog.entries.cache_clear()
        yield
    catalog.entries.cache_clear()


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    return ObjectStore(tmp_path_factory.mktemp("objects"))


@pytest.fixture(scope="module")
def backend(method, objects):
    with Embedded(objects.root, 2) as backend:
        yield backend


def record(tensors):
    return ArrayRecord({name: Array(np.asarray(values)) for name, values in tensors.items()})


def tensors(record):
    return {name: array.numpy() for name, array in record.items()}


def parties(objects, count=3, features=4):
    """Clients whose data are of one truth w, with noise, and of different numbers of samples."""
    rng = np.random.default_rng(7)
    w, found = rng.normal(size=features), []
    for number in range(count):
        x = rng.normal(size=(20 + 10 * number, features))
        y = x @ w + 0.1 * rng.normal(size=len(x))
        found.append((x, y))
    clients = [
        Client(f"site-{i}", {"data": objects.put(Output({"x": x, "y": y})).digest}, {"steps": 3, "rate": 0.3})
        for i, (x, y) in enumerate(found)
    ]
    return clients, found


@pytest.fixture(scope="module")
def oracle():
    spec = importlib.util.spec_from_file_location("flower_oracle", HERE / "flower_oracle.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STRATEGIES = {
    "mean": strategy.FedAvg,
    "fedprox": lambda **options: strategy.FedProx(proximal_mu=0.1, **options),
    "median": strategy.FedMedian,
    "trimmed": lambda **options: strategy.FedTrimmedAvg(beta=0.3, **options),
    "krum": lambda **options: strategy.Krum(num_malicious_nodes=2, **options),
    "multi-krum": lambda **options: strategy.MultiKrum(num_malicious_nodes=2, num_nodes_to_select=3, **options),
    "fedavgm": lambda **options: strategy.FedAvgM(server_learning_rate=0.5, server_momentum=0.9, **options),
    "fedadagrad": lambda **options: strategy.FedAdagrad(eta=0.1, tau=1e-3, **options),
    "fedadam": lambda **options: strategy.FedAdam(eta=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3, **options),
    "fedyogi": lambda **options: strategy.FedYogi(eta=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3, **options),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_give_over_the_bridge_what_is_on_record(name, backend, objects, oracle):
    """Seven clients answer what is on record, three rounds; the recorded answers equal those of our own rules."""
    by_round = oracle.rounds()
    samples = [1] * oracle.NODES if "krum" in name else oracle.SAMPLES
    clients = []
    for node in range(oracle.NODES):
        answers = {f"{r}/{k}": v for r, nodes in enumerate(by_round, start=1) for k, v in nodes[node].items()}
        clients.append(Client(f"node-{node}", {"data": objects.put(Output(answers)).digest}, {"samples": samples[node]}))
    training = Training(
        "least-squares",
        stages={"train": "replay"},
        settings={"server-round": "round", "proximal-mu": "pull"},
    )
    after = {}
    with FlowerGrid(backend, objects, training, clients) as grid:
        STRATEGIES[name](fraction_evaluate=0.0).start(
            grid, record(oracle.start()), num_rounds=3, evaluate_fn=lambda number, arrays: after.update({number: tensors(arrays)})
        )
    assert sorted(after) == [0, 1, 2, 3]
    for number, recorded in enumerate(RECORDED[name], start=1):
        for tensor, values in recorded.items():
            np.testing.assert_allclose(after[number][tensor], values, rtol=2e-14, atol=2e-15, err_msg=f"{name}, {tensor}")


def test_training_finds_what_all_data_together_say(backend, objects):
    """Federated averaging of one gradient step each, weighted by samples, is a gradient step on all data."""
    clients, data = parties(objects)
    clients = [Client(c.name, c.inputs, c.parameters | {"steps": 1}) for c in clients]
    x, y = (np.concatenate(parts) for parts in zip(*data, strict=True))
    w = np.zeros(4)
    with FlowerGrid(backend, objects, Training("least-squares"), clients) as grid:
        result = strategy.FedAvg().start(grid, record({"w": w}), num_rounds=5)
    for _ in range(5):
        w = w - 0.3 * x.T @ (x @ w - y) / len(y)
    np.testing.assert_allclose(tensors(result.arrays)["w"], w, rtol=1e-13)  # a sum of 90 products in another order
    losses = [result.evaluate_metrics_clientapp[number]["loss"] for number in range(1, 6)]
    assert losses[-1] == pytest.approx(np.mean((x @ w - y) ** 2) / 2, rel=1e-12)
    assert losses == sorted(losses, reverse=True)


def mean_of_steps(data, w):
    """What federated averaging gives: the mean of what each site's three steps end with, weighted by samples."""
    ends = []
    for x, y in data:
        end = w.copy()
        for _ in range(3):
            end = end - 0.3 * x.T @ (x @ end - y) / len(y)
        ends.append(end)
    samples = [len(y) for _, y in data]
    return np.average(ends, axis=0, weights=samples), sum(samples)


def quantised(parties, samples, limit=8.0, levels=2**22, heaviest=1000.0):
    """How far Flower's sum may be off: a level a party of weight times value, and half a level of each weight."""
    return parties * (2 * limit / levels + limit / levels) * heaviest / samples


@pytest.mark.parametrize("lost", [(), (2,)], ids=["all there", "one is lost after its keys are shared"])
def test_flowers_secure_aggregation_gives_the_mean(lost, backend, objects):
    clients, data = parties(objects)
    stage = Training("least-squares", stages={"train": "spoil"})
    clients = [
        Client(c.name, c.inputs, dict(c.parameters) | ({"how": "fail"} if number in lost else {}))
        for number, c in enumerate(clients, start=1)
    ]
    secure = SecAggPlusTraining(stage, ["w"])
    workflow = SecAggPlusWorkflow(num_shares=3, reconstruction_threshold=2)
    with FlowerGrid(backend, objects, secure, clients) as grid:
        after, _ = secagg_plus(grid, workflow, LegacyFedAvg(fraction_evaluate=0.0), {"w": np.zeros(4)}, rounds=1)
    kept = [each for number, each in enumerate(data, start=1) if number not in lost]
    wanted, samples = mean_of_steps(kept, np.zeros(4))
    np.testing.assert_allclose(after["w"], wanted, rtol=0, atol=quantised(len(kept), samples))


@pytest.fixture(scope="module")
def town(method, tmp_path_factory):
    """A gateway and three nodes, each a process with a folder of its own."""
    with Town(tmp_path_factory.mktemp("town"), lease_s=20.0) as town:
        town.add_nodes("anna", "bert", "cleo")
        yield town


@pytest.fixture(scope="module")
def sites(town):
    """A client on each node, whose data are in the node's own folder and nowhere else."""
    _, data = parties(town.home.objects)
    for name, (x, y) in zip(town.nodes, data, strict=True):
        held = town.folder / name / "held"
        held.mkdir(exist_ok=True)
        (held / "liquid.safetensors").write_bytes(encode(Output({"x": x, "y": y})))
    parameters = {"held": "liquid", "steps": 3, "rate": 0.3}
    return [Client(name, parameters=parameters, node=name) for name in town.nodes], data


def test_a_federation_trains_on_data_that_stay_where_they_are(town, sites):
    clients, data = sites
    with town.backend() as backend, FlowerGrid(backend, town.home.objects, Training("least-squares"), clients) as grid:
        assert list(grid.get_node_ids()) == [1, 2, 3]
        result = strategy.FedAvg().start(grid, record({"w": np.zeros(4)}), num_rounds=2)
    w = np.zeros(4)
    for _ in range(2):
        w, _ = mean_of_steps(data, w)
    np.testing.assert_allclose(tensors(result.arrays)["w"], w, rtol=1e-13)


def test_three_nodes_aggregate_by_flowers_protocol(town, sites):
    clients, data = sites
    secure = SecAggPlusTraining(Training("least-squares"), ["w"])
    workflow = SecAggPlusWorkflow(num_shares=3, reconstruction_threshold=2)
    with town.backend() as backend, FlowerGrid(backend, town.home.objects, secure, clients) as grid:
        after, _ = secagg_plus(grid, workflow, LegacyFedAvg(fraction_evaluate=0.0), {"w": np.zeros(4)}, rounds=2)
    w = np.zeros(4)
    for _ in range(2):
        w, samples = mean_of_steps(data, w)
    np.testing.assert_allclose(after["w"], w, rtol=0, atol=2 * quantised(3, samples))
    kept = [town.folder / name / "secrets" / f"{secure.session}-{number}" for number, name in enumerate(town.nodes, 1)]
    assert all(folder.is_dir() for folder in kept), "every node keeps its own secrets"
    assert not (town.home.path / "secrets").exists(), "and the gateway none"


def test_three_nodes_aggregate_by_our_protocol(town, sites):
    """Any strategy that averages, here Flower's FedAdam; and a node without its data is left out of the round."""
    clients, data = sites
    secure = SecureTraining(Training("least-squares"), threshold=2)
    adam = {"eta": 0.1, "fraction_evaluate": 0.0}
    with town.backend() as backend:
        with FlowerGrid(backend, town.home.objects, Training("least-squares"), clients) as grid:
            wanted = tensors(strategy.FedAdam(**adam).start(grid, record({"w": np.zeros(4)}), num_rounds=2).arrays)
        with FlowerGrid(backend, town.home.objects, secure, clients) as grid:
            found = tensors(strategy.FedAdam(**adam).start(grid, record({"w": np.zeros(4)}), num_rounds=2).arrays)
            np.testing.assert_allclose(found["w"], wanted["w"], rtol=0, atol=1e-8)  # m / sqrt(v) turns 1e-11 into 1e-9
            (town.folder / "bert" / "held" / "liquid.safetensors").unlink()
            kept = tensors(strategy.FedAvg(fraction_evaluate=0.0).start(grid, record({"w": np.zeros(4)}), num_rounds=1).arrays)
    np.testing.assert_allclose(kept["w"], mean_of_steps([data[0], data[2]], np.zeros(4))[0], rtol=0, atol=1e-11)
    assert all((town.folder / name / "secrets").is_dir() for name in town.nodes)
    assert not (town.home.path / "secrets").exists()
