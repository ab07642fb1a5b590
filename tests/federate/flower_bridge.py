"""Flower's strategies over our backends. Run by test_flower_bridge.py, with an interpreter that has Flower."""

import importlib.util
import json
import logging
import os
import re
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.server.strategy import FedAvg as LegacyFedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.serverapp import strategy
from flwr.supercore import telemetry

from manybody.core import catalog
from manybody.core.errors import InputError, TaskError
from manybody.core.task import Output, Task
from manybody.federate.flower import Client, FlowerGrid, SecureTraining, Training, record, tensors
from manybody.federate.flower.records import pack, unpack
from manybody.federate.flower.secagg import SecAggPlusTraining, secagg_plus
from manybody.federate.spec import FederatedLearning
from manybody.learn.potentials.spec import FederatedLiquid
from manybody.network.cluster import Cluster
from manybody.network.cluster_local import LocalCluster
from manybody.network.local import Embedded
from manybody.store.encoding import decode, encode
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


def changed(clients, number, **parameters):
    """The clients, one of them with other parameters."""
    return [
        Client(c.name, c.inputs, dict(c.parameters) | (parameters if place == number else {})) for place, c in enumerate(clients)
    ]


def asking(grid, **settings):
    """The messages of a round for all clients, by Flower's own strategy."""
    return strategy.FedAvg().configure_train(1, record({"w": np.zeros(4)}), ConfigRecord(settings), grid)


@pytest.mark.parametrize(
    ("how", "code", "reason"),
    [
        ("fail", ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "the training diverged"),
        ("die", ErrorCode.NODE_UNAVAILABLE, "SIGKILL"),
        ("nan", ErrorCode.MOD_FAILED_PRECONDITION, "expected finite numbers"),
        ("shape", ErrorCode.MOD_FAILED_PRECONDITION, r"expected float64\[4\]; got float64\[3\]"),
        ("type", ErrorCode.MOD_FAILED_PRECONDITION, r"expected float64\[4\]; got float32\[4\]"),
        ("name", ErrorCode.MOD_FAILED_PRECONDITION, r"tensor w: expected float64\[4\]; got nothing"),
        ("samples", ErrorCode.MOD_FAILED_PRECONDITION, "`samples`, a positive number"),
    ],
)
def test_a_client_that_gives_no_answer_is_an_error_and_left_out(how, code, reason, backend, objects):
    clients, data = parties(objects)
    training = Training("least-squares", stages={"train": "spoil"})
    with FlowerGrid(backend, objects, training, changed(clients, 1, how=how)) as grid:
        replies = list(grid.send_and_receive(asking(grid)))
        assert [reply.metadata.src_node_id for reply in replies] == [1, 2, 3]
        assert [reply.has_error() for reply in replies] == [False, True, False]
        assert replies[1].error.code == code
        assert replies[1].error.reason.startswith("client site-1: ")
        assert re.search(reason, replies[1].error.reason)
        arrays, metrics = strategy.FedAvg().aggregate_train(1, replies)
    np.testing.assert_allclose(tensors(arrays)["w"], mean_of_steps([data[0], data[2]], np.zeros(4))[0], rtol=1e-13)
    assert metrics.keys() == {"loss"}


def test_settings_become_parameters_that_were_named_for_them(backend, objects):
    """FedProx pulls what its clients train to where they began, if the stage is told; else that is an error."""
    clients, data = parties(objects)
    with FlowerGrid(backend, objects, Training("least-squares"), clients) as grid, pytest.raises(InputError, match="proximal-mu"):
        strategy.FedProx(proximal_mu=0.5).start(grid, record({"w": np.zeros(4)}), num_rounds=1)
    with FlowerGrid(backend, objects, Training("least-squares", settings={"proximal-mu": "pull"}), clients) as grid:
        result = strategy.FedProx(proximal_mu=0.5).start(grid, record({"w": np.zeros(4)}), num_rounds=1)
    ends = []
    for x, y in data:
        w = np.zeros(4)
        for _ in range(3):
            w = w - 0.3 * (x.T @ (x @ w - y) / len(y) + 0.5 * w)
        ends.append(w)
    wanted = np.average(ends, axis=0, weights=[len(y) for _, y in data])
    np.testing.assert_allclose(tensors(result.arrays)["w"], wanted, rtol=1e-13)


def test_a_setting_may_go_into_a_group(backend, objects):
    training = Training("least-squares", settings={"rate": "group.rate", "steps": "steps"})
    client = Client("one", parameters={"group": {"kept": 1}, "steps": 3})
    content = RecordDict({"config": ConfigRecord({"rate": 0.5, "steps": 7, "server-round": 2})})
    assert training.parameters(content, client) == {"group": {"kept": 1, "rate": 0.5}, "steps": 7}
    assert client.parameters == {"group": {"kept": 1}, "steps": 3}
    with pytest.raises(InputError, match="got bytes"):
        training.parameters(RecordDict({"config": ConfigRecord({"rate": b"0.5"})}), client)


def test_differential_privacy_of_flower_clips_what_clients_did(backend, objects):
    """The server's wrapper: without noise to speak of, the mean of changes that are no longer than the limit."""
    clients, data = parties(objects)
    private = strategy.DifferentialPrivacyServerSideFixedClipping(
        strategy.FedAvg(fraction_evaluate=0.0), noise_multiplier=1e-12, clipping_norm=0.05, num_sampled_clients=3
    )
    with FlowerGrid(backend, objects, Training("least-squares"), clients) as grid:
        result = private.start(grid, record({"w": np.zeros(4)}), num_rounds=1)
    changes = [mean_of_steps([each], np.zeros(4))[0] for each in data]
    clipped = [change * min(1.0, 0.05 / np.linalg.norm(change)) for change in changes]
    wanted = np.average(clipped, axis=0, weights=[len(y) for _, y in data])
    np.testing.assert_allclose(tensors(result.arrays)["w"], wanted, atol=1e-11)


def test_what_takes_too_long_is_stopped(backend, objects):
    clients, _ = parties(objects)
    with FlowerGrid(backend, objects, Training("least-squares"), changed(clients, 0, steps=10**12)) as grid:
        replies = list(grid.send_and_receive(asking(grid), timeout=2.0))
        assert 1 not in [reply.metadata.src_node_id for reply in replies]
        assert list(backend.events()) == [], "nothing runs on"
    with FlowerGrid(backend, objects, Training("least-squares"), changed(clients, 0, steps=10**12)) as grid:
        grid.push_messages(asking(grid))
    assert list(backend.events()) == [], "nor when the grid is left"


def test_messages_may_be_pushed_and_pulled_by_themselves(backend, objects):
    clients, _ = parties(objects)
    with FlowerGrid(backend, objects, Training("least-squares"), clients) as grid:
        names = list(grid.push_messages(asking(grid)))
        assert len(set(names)) == 3
        replies = []
        while len(replies) < 3:
            replies += grid.pull_messages(names)
        assert {reply.metadata.reply_to_message_id for reply in replies} == set(names)
        assert list(grid.pull_messages(names)) == []


def test_a_model_is_stored_once_however_many_messages_carry_it(backend, objects, monkeypatch):
    clients, _ = parties(objects)
    stored = []
    monkeypatch.setattr(objects, "put", lambda output: stored.append(output) or ObjectStore.put(objects, output))
    with FlowerGrid(backend, objects, Training("least-squares"), clients) as grid:
        strategy.FedAvg().start(grid, record({"w": np.zeros(4)}), num_rounds=2)
    assert len(stored) == 3  # the start, and the model after each round, which is evaluated and trained on


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Training("least-circles"), "least-squares"),
        (lambda: Training("least-squares", stages={"train": "fitt"}), "expected a stage of least-squares"),
        (lambda: FlowerGrid(None, None, Training("least-squares"), []), "at least one client"),
        (lambda: FlowerGrid(None, None, Training("least-squares"), [Client("a"), Client("a")]), "each of its own name"),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_made(make, match):
    with pytest.raises(InputError, match=match):
        make()


def test_messages_that_no_stage_answers_are_refused(backend, objects):
    clients, _ = parties(objects)
    with FlowerGrid(backend, objects, Training("least-squares"), clients) as grid:
        for content, kind, match in (
            (RecordDict({"arrays": record({"w": np.zeros(4)})}), "query", "of type train, evaluate"),
            (RecordDict({"a": record({"w": np.zeros(4)}), "b": record({"w": np.zeros(4)})}), "train", "one set of tensors"),
        ):
            with pytest.raises(InputError, match=match):
                grid.push_messages([Message(content, 1, kind)])


def test_flower_is_told_who_it_is_and_tells_nobody(backend, objects):
    clients, _ = parties(objects)
    with FlowerGrid(backend, objects, Training("least-squares"), clients) as grid:
        assert Message(RecordDict(), 1, "train").metadata.run_id == grid.run.run_id
    with pytest.raises(RuntimeError, match="not set"):
        Message(RecordDict(), 1, "train")
    assert telemetry.FLWR_TELEMETRY_ENABLED == "0"


def test_any_message_comes_back_from_an_output():
    content = RecordDict(
        {
            "tensors": ArrayRecord({"b/w": Array(np.arange(6.0).reshape(2, 3)), "a": Array(np.array(1.5, np.float32))}),
            "settings": ConfigRecord(
                {"key": b"\x00\xff", "keys": [b"a", b""], "text": "ü", "n": 3, "f": 0.1, "on": True, "no": []}
            ),
            "metrics": MetricRecord({"loss": 0.25, "counts": [1, 2]}),
        }
    )
    again = unpack(decode(encode(pack(content))))
    assert list(again) == list(content)
    assert again["settings"] == content["settings"]
    assert again["metrics"] == content["metrics"]
    assert list(again["tensors"]) == ["b/w", "a"]
    assert all(again["tensors"][name].data == array.data for name, array in content["tensors"].items())


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


def test_flowers_masks_come_from_32_bits():
    """What docs/flower.md says of them: seeds of 256 bits give one mask if their words are equal by exclusive or."""
    seed = np.random.default_rng(1).bytes(32)
    other = seed[4:] + seed[:4]
    assert seed != other
    one, same = (pseudo_rand_gen(each, 2**32, [(50,)])[0] for each in (seed, other))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, pseudo_rand_gen(seed[::-1], 2**32, [(50,)])[0])


def asked_by_hand(backend, objects, session, stage, **configs):
    """How a node answers one message of Flower's protocol that whoever collects has made up."""
    content = RecordDict({"secaggplus_configs": ConfigRecord({"stage": stage, **configs})})
    work = {"method": "least-squares", "stage": "fit", "version": "1", "parameters": {}, "system": {}, "seed": 0}
    task = Task(
        method="secure-aggregation", stage="flower", version="1", system={},
        parameters={"session": session, "client": 1, "names": ["w"], "work": work},
        inputs={"message": objects.put(pack(content)).digest},
    )  # fmt: skip
    backend.submit(uuid.uuid4().hex, task, task.inputs)
    return list(backend.events())[-1]


SETUP = {"sample_num": 3, "clipping_range": 8.0, "target_range": 2**22, "mod_range": 2**32, "max_weight": 1000.0}


@pytest.mark.parametrize(
    ("stage", "configs", "reason"),
    [
        ("setup", SETUP | {"share_num": 4, "threshold": 2}, "expected more than half of 4 shares; got 2"),
        ("unmask", {"active_nids": [1, 2, 3], "dead_nids": [3]}, r"got \[3\] as both"),
        ("unmask", {"active_nids": [1, 2], "dead_nids": [3]}, "Abort secure aggregation"),
    ],
)
def test_nodes_refuse_what_would_unmask_one_of_them(stage, configs, reason, backend, objects):
    event = asked_by_hand(backend, objects, uuid.uuid4().hex, stage, **configs)
    assert event.kind == "failed"
    assert re.search(reason, event.reason)


def test_a_node_repeats_its_answer_to_the_same_message(backend, objects):
    session = uuid.uuid4().hex
    asked = SETUP | {"share_num": 3, "threshold": 2}
    first, again = (asked_by_hand(backend, objects, session, "setup", **asked) for _ in range(2))
    assert first.kind == "finished"
    assert first.result == again.result


@pytest.mark.parametrize(("limit", "heaviest"), [(1e-3, 1000.0), (8.0, 10.0)], ids=["values", "weights"])
def test_nothing_is_cut_off_in_silence(limit, heaviest, backend, objects):
    clients, _ = parties(objects)
    workflow = SecAggPlusWorkflow(num_shares=3, reconstruction_threshold=2, clipping_range=limit, max_weight=heaviest)
    secure = SecAggPlusTraining(Training("least-squares"), ["w"])
    with FlowerGrid(backend, objects, secure, clients) as grid, pytest.raises(TaskError, match="gave no sum"):
        secagg_plus(grid, workflow, LegacyFedAvg(fraction_evaluate=0.0), {"w": np.zeros(4)}, rounds=1)


def computed(backend, plan):
    """The result digests of tasks in order, by the tasks' own digests."""
    results = {}
    for task in plan:
        backend.submit(uuid.uuid4().hex, task, {name: results[digest] for name, digest in task.inputs.items()})
        (event,) = (event for event in backend.events() if event.kind in ("finished", "failed", "lost"))
        assert event.kind == "finished", event.reason
        results[task.digest] = event.result
    return results


@pytest.mark.parametrize("rule", ["weighted-mean", "fedprox", "median"])
def test_federated_learning_is_the_same_by_flowers_strategies_and_by_our_rules(rule, backend, objects):
    """A potential of a liquid from three institutions: their `fit` tasks under Flower, against the method's own rounds."""
    states = [{"name": name, "temperature": t, "density": 0.7} for name, t in (("bonn", 1.0), ("graz", 1.3), ("oslo", 2.0))]
    liquid = FederatedLiquid(
        institutions=states, atoms=108, configurations=4, spacing=0.02, equilibration=0.2, model={"name": "radial-basis"}
    )
    method = FederatedLearning(rule={"name": rule}, rounds=3, local_steps=2, learning_rate=0.5)
    plan, _ = method.plan(liquid, 3, 0)
    results = computed(backend, plan)
    fits = [task for task in plan if task.stage == "fit" and task.parameters["round"] == 1]
    clients = [
        Client(
            task.parameters["party"]["name"],
            {name: results[digest] for name, digest in task.inputs.items() if name != "model"},
            task.parameters | {"training": task.parameters["training"] | {"pull": 0.0}},
        )
        for task in fits
    ]
    training = Training(
        "federated-learning",
        stages={"train": "fit"},
        settings={"server-round": "round", "proximal-mu": "training.pull"},
        system=fits[0].system,
        seed=3,
    )
    begin = objects.get(results[next(task.digest for task in plan if task.stage == "start")])
    end = objects.get(results[plan[-2].digest])  # the last round's `aggregate`; after it comes `evaluate`
    flower = {
        "weighted-mean": strategy.FedAvg,
        "fedprox": lambda **options: strategy.FedProx(proximal_mu=method.rule.pull, **options),
        "median": strategy.FedMedian,
    }[rule]
    model = {name: values for name, values in begin.arrays.items() if name.startswith("tensor.")}
    with FlowerGrid(backend, objects, training, clients) as grid:
        found = tensors(flower(fraction_evaluate=0.0).start(grid, record(model), num_rounds=3).arrays)
    assert found.keys() == model.keys()
    for name, values in found.items():
        assert np.linalg.norm(values - model[name]) > 1e-3, "something has been learned"
        np.testing.assert_allclose(values, end.arrays[name], rtol=1e-12, atol=1e-14)


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


def test_a_cluster_trains_and_aggregates_too(objects, tmp_path):
    clients, data = parties(objects)
    with LocalCluster(tmp_path, nodes=2) as machines, Cluster(machines.address, objects.root, machines.security, 2) as backend:
        names = [node.name for node in backend.nodes()]
        clients = [replace(client, node=names[at % 2]) for at, client in enumerate(clients)]
        for answering in (Training("least-squares"), SecureTraining(Training("least-squares"), threshold=2)):
            with FlowerGrid(backend, objects, answering, clients) as grid:
                result = strategy.FedAvg().start(grid, record({"w": np.zeros(4)}), num_rounds=1)
            np.testing.assert_allclose(tensors(result.arrays)["w"], mean_of_steps(data, np.zeros(4))[0], rtol=1e-13, atol=1e-11)
