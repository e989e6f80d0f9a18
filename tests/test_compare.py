"""Comparisons in turn, with peers that need no other library, and the chains of networks."""

from itertools import pairwise

import numpy as np
import pytest

from fastconv.bench.chains import CHAINS, Chain
from fastconv.bench.compare import best_in_turn, compare, ours
from fastconv.bench.layers import Segment
from fastconv.bench.peers import Peer
from fastconv.problem import Problem

TWO_SEGMENTS = [
    ["conv2d,n1c3i12f8k3p1,bias,relu", "conv2d,n1c8i12f8k3s2p1g8,bias,relu+conv2d,n1c8i6f4k1,bias"],
    ["conv2d,n1c5i7f6k1"],
]


def small_chain():
    return Chain("small", tuple(tuple(map(Problem.parse, texts)) for texts in TWO_SEGMENTS))


def copycat(segments, threads):
    """fastconv itself, under another name."""
    return ours(segments)


def wrong(segments, threads):
    call = ours(segments)
    return lambda: [result + 1 for result in call()]


def no(problem):
    return "does not feel like it"


def yes(problem):
    return None


def test_compare():
    problem = Problem.parse("conv2d,n1c4i9f6k3,bias,relu")
    peers = [Peer("copycat", (), yes, copycat), Peer("lazy", (), no, wrong), Peer("absent", ("no_such_library",), yes, wrong)]
    compared = compare(problem, seconds=0.01, threads=1, peers=peers, peak=100.0)
    assert compared.name == str(problem)
    assert (compared.threads, compared.peak) == (1, 100.0)
    assert compared.seconds > 0
    assert list(compared.peers) == ["copycat"]
    assert compared.refused == {"lazy": "does not feel like it", "absent": "pip install no_such_library"}
    assert compared.ratio == compared.peers["copycat"] / compared.seconds


def test_compare_without_any_peer():
    compared = compare(Problem.parse("conv2d,n1c4i9f6k3,residual"), seconds=0.01, peers=[], peak=100.0)
    assert np.isnan(compared.ratio)


def test_a_wrong_result_is_not_timed():
    with pytest.raises(ArithmeticError, match="liar: differs from fastconv by 1"):
        compare(Problem.parse("conv2d,n1c4i9f6k3"), seconds=0.01, peers=[Peer("liar", (), yes, wrong)], peak=100.0)


def test_turns_are_taken():
    said = []
    best_in_turn({"a": lambda: said.append("a"), "b": lambda: said.append("b")}, seconds=0.01)
    changes = [name for i, name in enumerate(said) if i == 0 or said[i - 1] != name]
    assert changes == ["a", "b"] * 5


# Chains of networks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layers", "mega", "parameters"),
    [
        ("resnet18", 20, 3628, 11.17),  # without the classifier: 1.81 billion multiply-adds, as torchvision counts them
        ("mobilenet_v1", 14, 1136, 3.2),  # 568 million in the paper, 4.2 million parameters with the classifier's 1.0
        ("mobilenet_v2", 35, 599, 2.2),  # 300 million, 3.4 million with the classifier's 1.3
    ],
)
def test_chains_are_the_networks_of_the_papers(name, layers, mega, parameters):
    chain = CHAINS[name]
    assert len(chain.problems) == layers
    assert chain.operations / 1e6 == pytest.approx(mega, rel=0.01)
    assert sum(p.parameters for p in chain.problems) / 1e6 == pytest.approx(parameters, rel=0.03)
    for problems in chain.segments:
        for before, after in pairwise(problems):
            assert before.out_shape == after.x_shape


def test_a_chain_s_numbers_are_all_different():
    weights = [c.weight.ravel()[:4].tolist() for part in small_chain().filled() for c in part.convolutions]
    assert len({tuple(w) for w in weights}) == len(weights)


def test_a_chain_hands_its_results_on():
    first, second = small_chain().filled()
    results = ours([first, second])()
    alone = ours([Segment(first.x, first.layers[:1])])()[0]
    after = ours([Segment(alone, first.layers[1:])])()[0]
    np.testing.assert_array_equal(results[0], after)
    assert results[1].shape == (1, 6, 7, 7)


def test_a_chain_is_compared_like_a_layer():
    compared = compare(small_chain(), seconds=0.01, peers=[Peer("copycat", (), yes, copycat)], peak=100.0)
    assert (compared.name, list(compared.peers)) == ("small", ["copycat"])
    assert compared.gflops > 0
