"""The edge: what nodes send is checked by name, shape, type and finiteness, and errors say who and what."""

import subprocess
import sys

import numpy as np
import pytest

from manybody.core.errors import InputError
from manybody.federate.tensors import Contribution, Round, named


def send(node, **tensors):
    return Contribution.of(node, tensors)


def test_a_round_is_in_the_order_of_names():
    round_ = Round.of([send("c", w=np.ones(2)), send("a", w=np.zeros(2)), send("b", w=np.ones(2))])
    assert round_.nodes == ("a", "b", "c")
    np.testing.assert_array_equal(round_.stacked("w"), [[0, 0], [1, 1], [1, 1]])


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, "node b: expected at least one tensor"),
        ({"w": np.array([1.0, np.nan, np.inf])}, "node b, tensor w: expected finite numbers; got 2 of 3"),
        ({"w": np.arange(3)}, "node b, tensor w: expected one of float16, float32, float64; got int64"),
        ({"w": np.ones(3, complex)}, "got complex128"),
        ({"w": np.array(["1"])}, "node b, tensor w"),
        ({"w": np.array([None])}, "got object"),
    ],
)
def test_what_is_no_tensor_is_refused_by_name(tensors, said):
    with pytest.raises(InputError) as refusal:
        Contribution.of("b", tensors)
    assert said in str(refusal.value)


def test_every_difference_is_named_at_once():
    good = send("a", w=np.ones((2, 3)), b=np.ones(3))
    bad = send("b", w=np.ones((3, 2)), c=np.ones(3))
    with pytest.raises(InputError) as refusal:
        Round.of([good, bad])
    text = str(refusal.value)
    assert "node b, tensor b: expected a float64[3]; got nothing" in text
    assert "node b, tensor c: expected no such tensor" in text
    assert "node b, tensor w: expected float64[2, 3]; got float64[3, 2]" in text


def test_precision_is_part_of_the_shape():
    with pytest.raises(InputError, match=r"expected float64\[1\]; got float32\[1\]"):
        Round.of([send("a", w=np.ones(1)), send("b", w=np.ones(1, np.float32))])


def test_the_global_parameters_decide_who_is_wrong():
    template = named({"w": np.zeros(2)})
    round_ = Round.sift([send("a", w=np.ones(3)), send("b", w=np.ones(2))], template)
    assert round_.nodes == ("b",)
    assert set(round_.refused) == {"a"}


def test_without_a_template_most_nodes_decide():
    odd = send("a", w=np.ones(3))
    round_ = Round.sift([odd, send("b", w=np.ones(2)), send("c", w=np.ones(2))])
    assert round_.nodes == ("b", "c")
    assert "expected float64[2]; got float64[3]" in str(round_.refused["a"][0])


def test_nan_made_after_the_edge_is_still_found():
    raw = Contribution("a", {"w": np.array([np.nan])})
    with pytest.raises(InputError, match="node a, tensor w: expected finite numbers"):
        Round.of([raw, send("b", w=np.ones(1))])


def test_no_contribution_and_two_of_one_node():
    with pytest.raises(InputError, match="at least one contribution"):
        Round.of([])
    with pytest.raises(InputError, match="node a: expected one contribution a round"):
        Round.of([send("a", w=np.ones(1)), send("a", w=np.ones(1))])


def test_tensors_cannot_be_changed_behind_a_round():
    array = np.ones(3)
    contribution = send("a", w=array)
    with pytest.raises(ValueError, match="read-only"):
        contribution.tensors["w"][0] = 2.0
    with pytest.raises(TypeError):
        contribution.tensors["v"] = array


def test_torch_tensors_come_through_numpy():
    torch = pytest.importorskip("torch")
    weight = torch.ones(2, 2, dtype=torch.float32, requires_grad=True)
    half = torch.ones(2, dtype=torch.bfloat16)
    tensors = send("a", w=weight, h=half).tensors
    assert tensors["w"].dtype == np.float32
    assert tensors["h"].dtype == np.float32


def test_federation_starts_without_torch():
    """Every module of the package, in a fresh interpreter: none brings torch, dp-accounting, zfp or Flower in."""
    script = """
import importlib, pkgutil, sys
import manybody.federate
for module in pkgutil.iter_modules(manybody.federate.__path__):
    if module.name != "flower":  # which is the bridge to Flower, and of no use without it
        importlib.import_module(f"manybody.federate.{module.name}")
heavy = {"torch", "dp_accounting", "zfpy", "flwr"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
