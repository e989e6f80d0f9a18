"""The file of `fastconv bench --json`: the names that its module documents, no others, and what they mean."""

import io
import json
import re

import pytest

import fastconv as fc
from fastconv.bench import Console, Peer, bench, find, results
from fastconv.bench.chains import Chain
from fastconv.bench.compare import compare, ours
from fastconv.cpu.machine import lanes

COPYCAT = Peer("copycat", (), lambda problem: None, lambda segments, threads: ours(segments))
ABSENT = Peer("absent", ("no_such_library",), lambda problem: None, lambda segments, threads: ours(segments))
PICKY = Peer("picky", (), lambda problem: "wants float64" if problem.dtype == "float32" else None, COPYCAT.build)

TEXTS = ["conv2d,n1c4i9f8k1,bias", "conv2d,n1c4i9f4k3g4,float64"]


def names_documented(indent):
    """Those that stand at the beginning of a line of the format's description, so far to the right."""
    lines = re.findall(rf"^ {{{indent}}}(\w+(?:, \w+)*)  ", results.__doc__, re.MULTILINE)
    return {name for line in lines for name in line.split(", ")}


def written(tmp_path, **options):
    file = tmp_path / "results.json"
    bench(TEXTS, threads=1, quick=True, json=str(file), console=Console(io.StringIO()), **options)
    return json.loads(file.read_text())


def test_what_is_written_is_what_is_documented(tmp_path):
    said = written(tmp_path, peers=[COPYCAT, PICKY, ABSENT], command="fastconv bench so and so")
    assert set(said) == names_documented(4)
    assert all(set(row) == names_documented(8) for row in said["rows"])
    assert all(name in results.__doc__ for name in said["machine"])
    assert (said["format"], said["threads"], said["command"]) == (1, 1, "fastconv bench so and so")
    assert said["missing"] == {"absent": "pip install no_such_library"}


def test_what_the_names_mean(tmp_path):
    said = written(tmp_path, peers=[COPYCAT, PICKY])
    machine = said["machine"]
    assert machine["vector_bits"] == 32 * lanes()
    assert set(machine["peak_gflops"]) == {"float32", "float64"}
    assert min(machine["copy_gbytes_per_second"], *machine["peak_gflops"].values()) > 0
    assert said["versions"]["fastconv"] == fc.__version__
    for row, text in zip(said["rows"], TEXTS):
        name, problem = find(text)
        assert (row["layer"], row["problem"], row["kind"], row["dtype"]) == (name, str(problem), problem.kind, problem.dtype)
        assert (row["operations"], row["bytes"]) == (problem.operations, problem.bytes)
        assert row["kernel"] == fc.explain(str(problem)).kernel
        assert row["gflops"] == pytest.approx(problem.operations / row["seconds"] / 1e9)
        assert row["share_of_peak"] == pytest.approx(row["gflops"] / machine["peak_gflops"][problem.dtype])
        assert row["best_peer_over_fastconv"] == min(p["seconds"] for p in row["peers"].values()) / row["seconds"]
    first, second = said["rows"]
    assert (set(first["peers"]), first["refused"]) == ({"copycat"}, {"picky": "wants float64"})
    assert (set(second["peers"]), second["refused"]) == ({"copycat", "picky"}, {})


def test_without_peers_there_are_none(tmp_path):
    said = written(tmp_path)
    assert all(set(row) == names_documented(8) - {"peers", "refused", "best_peer_over_fastconv"} for row in said["rows"])


def test_a_chain_has_no_single_kernel():
    chain = Chain("small", (tuple(find(text)[1] for text in ("conv2d,n1c4i9f8k1,bias", "conv2d,n1c8i9f8k1,bias")),))
    row = results.row(compare(chain, 0.01, peers=[], peak=100.0))
    assert (row["layer"], row["kind"], row["kernel"], row["best_peer_over_fastconv"]) == ("small", "chain", None, None)
