"""Rounds of secure aggregation over backends: parties are tasks, their secrets stay on their nodes."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from manybody.core import catalog
from manybody.core.errors import TaskError
from manybody.core.task import Output
from manybody.federate.secure_round import Party, _task, secure_mean
from manybody.federate.secure_stages import Part, announcement
from manybody.federate.secure_sum import Secrets, Terms
from manybody.federate.secure_training import Work
from manybody.network.local import Embedded
from manybody.store.home import Home
from manybody.store.objects import ObjectStore

PLUGINS = Path(__file__).parent / "plugins"
MODEL = {"w": np.zeros(4)}


@pytest.fixture(autouse=True, scope="module")
def home(tmp_path_factory):
    """A folder of this node's own, and a catalog with the tests' method, here and in workers."""
    place = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANYBODY_HOME", str(place))
        patch.syspath_prepend(PLUGINS)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(PLUGINS), os.environ.get("PYTHONPATH")])))
        catalog.entries.cache_clear()
        yield Home(place)
    catalog.entries.cache_clear()


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    return ObjectStore(tmp_path_factory.mktemp("objects"))


@pytest.fixture(scope="module")
def backend(home, objects):
    with Embedded(objects.root, 2) as backend:
        yield backend


def data(count=4, features=4):
    rng = np.random.default_rng(7)
    w = rng.normal(size=features)
    sites = []
    for number in range(count):
        x = rng.normal(size=(20 + 10 * number, features))
        sites.append((x, x @ w + 0.1 * rng.normal(size=len(x))))
    return sites


def work(**parameters):
    return Work(method="least-squares", stage="spoil", version="1", parameters={"steps": 3, "rate": 0.3} | parameters)


def parties(objects, **how):
    """Four parties; `how` says what some of them do instead of an honest answer."""
    stored = [objects.put(Output({"x": x, "y": y})).digest for x, y in data()]
    names = ("anna", "bert", "cleo", "dora")
    return [
        Party(name, work(**({"how": how[name]} if name in how else {})), {"data": digest})
        for name, digest in zip(names, stored, strict=True)
    ]


def wanted(sites):
    """The mean of what each site's three steps end with, weighted by samples."""
    ends = []
    for x, y in sites:
        w = np.zeros(4)
        for _ in range(3):
            w = w - 0.3 * x.T @ (x @ w - y) / len(y)
        ends.append(w)
    return np.average(ends, axis=0, weights=[len(y) for _, y in sites])


def assert_mean(found, sites):
    assert found.weight == sum(len(y) for _, y in sites)
    assert found.error == len(sites) * 2.0**-33 / found.weight
    np.testing.assert_allclose(found.tensors["w"], wanted(sites), rtol=1e-14, atol=found.error)


def test_the_mean_of_all_parties(backend, objects):
    found = secure_mean(backend, objects, parties(objects), MODEL, threshold=3)
    assert found.parties == ("anna", "bert", "cleo", "dora")
    assert not found.lost
    assert_mean(found, data())


@pytest.mark.parametrize("how", ["fail", "die", "nan", "shape", "name", "samples"])
def test_a_party_without_an_answer_is_left_out_and_said_to_be(how, backend, objects):
    """It has shared its secrets by then, so its masks are in the others' vectors and are taken off."""
    found = secure_mean(backend, objects, parties(objects, bert=how), MODEL, threshold=3)
    assert found.parties == ("anna", "cleo", "dora")
    assert found.lost.keys() == {"bert"}
    assert found.lost["bert"].startswith("mask: ")
    assert_mean(found, [site for number, site in enumerate(data()) if number != 1])


def test_a_stage_that_is_masked_answers_nobody_in_the_open(backend, objects):
    private = [replace(party, work=party.work.model_copy(update={"stage": "private"})) for party in parties(objects)]
    assert_mean(secure_mean(backend, objects, private, MODEL, threshold=3), data())
    given = {"model": objects.put(Output(MODEL)).digest, **private[0].inputs}
    backend.submit("in-the-open", private[0].work.task(given), given)
    event = list(backend.events())[-1]
    assert event.kind == "failed"
    assert "expected a stage of" in event.reason


def test_too_few_parties_give_no_sum(backend, objects):
    with pytest.raises(TaskError, match=r"expected 3 parties to stay; after `mask` 2 do.*anna.*diverged"):
        secure_mean(backend, objects, parties(objects, anna="fail", dora="nan"), MODEL, threshold=3)


def test_nothing_but_noise_leaves_a_node(backend, objects, home):
    """What is stored of a round, but for the model and the data: keys, packets, shares, and vectors far from what they hide."""
    before = set(objects.root.rglob("*.safetensors"))
    found = secure_mean(backend, objects, parties(objects), MODEL, threshold=3)
    after = [objects.get(path.parent.name + path.stem) for path in set(objects.root.rglob("*.safetensors")) - before]
    names = {name for output in after for name in output.arrays}
    assert {name.partition("/")[0] for name in names} <= {"packets", "masks", "commitment", "packet", "share", "masked"}
    assert all(not output.document for output in after), "no losses, no counts"
    vectors = [output.arrays["masked"] for output in after if "masked" in output.arrays]
    assert len(vectors) == 4
    assert len({int(value) >> 56 for vector in vectors for value in vector}) > 10, "the top bytes of small numbers are 0 or 255"
    assert found.tensors["w"].shape == (4,)
    kept = [file for folder in (home.path / "secrets").iterdir() for file in folder.iterdir()]
    assert kept
    assert all(file.stat().st_mode & 0o077 == 0 for file in kept), "for the node's user only"
    assert all(folder.stat().st_mode & 0o077 == 0 for folder in (home.path / "secrets").iterdir())


# --- a collector that asks for too much ------------------------------------------------------------------------


TERMS = ("anna", "bert", "cleo")


class Asked:
    """One party's stages, asked by hand."""

    def __init__(self, backend, objects, session):
        self.backend, self.objects = backend, objects
        self.terms = Terms(session=session * 32, parties=TERMS, threshold=2)
        self.others = {name: Secrets.drawn() for name in TERMS[1:]}
        self.count = 0

    def ask(self, stage, inputs=None, **parameters):
        self.count += 1
        part = Part(**{"terms": self.terms, "party": "anna", **parameters})
        given = {name: self.objects.put(Output(arrays)).digest for name, arrays in (inputs or {}).items()}
        task = _task(stage, part, given)
        self.backend.submit(f"{self.terms.session}-{self.count}", task, task.inputs)
        return list(self.backend.events())[-1]

    def known(self, announcement_of_anna):
        mine = self.objects.get(announcement_of_anna.result).arrays
        return mine | announcement({name: own.announced(self.terms, name) for name, own in self.others.items()})


def test_a_lost_attempt_may_be_repeated_and_gets_the_same_answer(backend, objects):
    asked = Asked(backend, objects, "a")
    first = asked.ask("announce")
    assert first.kind == "finished"
    assert asked.ask("announce").result == first.result
    known = asked.known(first)
    assert asked.ask("share", {"announced": known}).result == asked.ask("share", {"announced": known}).result


def test_another_request_at_the_same_point_is_refused(backend, objects):
    """Two different answers of one party would be compared."""
    asked = Asked(backend, objects, "b")
    known = asked.known(asked.ask("announce"))
    assert asked.ask("share", {"announced": known}).kind == "finished"
    fewer = {name: array for name, array in known.items() if "cleo" not in name}
    again = asked.ask("share", {"announced": fewer})
    assert again.kind == "failed"
    assert "it has done `share`" in again.reason


@pytest.mark.parametrize("stage", ["share", "mask", "reveal"])
def test_a_stage_out_of_turn_is_refused(stage, backend, objects):
    asked = Asked(backend, objects, "cdef"[["share", "mask", "reveal"].index(stage)])
    told = asked.ask(stage, {"announced": {}, "packets": {}, "model": MODEL}, arrived=("anna", "bert"), work=work())
    assert told.kind == "failed"
    assert "it has done `nothing`" in told.reason


def test_other_terms_are_refused_within_a_session(backend, objects):
    asked = Asked(backend, objects, "f")
    known = asked.known(asked.ask("announce"))
    asked.terms = asked.terms.model_copy(update={"threshold": 3})
    told = asked.ask("share", {"announced": known})
    assert told.kind == "failed"
    assert "on the same terms" in told.reason
