"""The command line: what it accepts, prints and returns."""

import json
import re
import subprocess
import sys

import pytest

import fastconv as fc
from fastconv import bench
from fastconv.__main__ import CHAINS, KINDS, TABLES, main, parser
from fastconv.bench import LAYERS


def test_info(capsys):
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    for word in (fc.__version__, "NumPy", "Numba", "lanes", "L1d", "threads", "CUDA"):
        assert word in printed


def test_bench(capsys):
    assert main(["bench", "conv2d,n1c4i9f8k1", "--threads", "1", "--quick", "--json", "-"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["command"] == "fastconv bench conv2d,n1c4i9f8k1 --threads 1 --quick --json -"
    assert [row["layer"] for row in said["rows"]] == ["conv2d,n1c4i9x9f8k1x1"]


def test_bench_into_a_file(capsys, tmp_path):
    file = tmp_path / "results.json"
    assert main(["bench", "conv2d,n1c4i9f8k1", "--threads", "1", "--quick", "--json", str(file)]) == 0
    assert len(json.loads(file.read_text())["rows"]) == 1
    assert "pointwise" in capsys.readouterr().out


def test_bench_beside_whatever_peers_there_are(capsys):
    assert main(["bench", "conv2d,n1c4i9f8k1", "--threads", "1", "--quick", "--peers"]) == 0
    assert "ratio: the best peer's time over fastconv's" in capsys.readouterr().out


def test_bench_tune(capsys):
    assert main(["bench", "--table", "tuned", "--kind", "pointwise", "--tune", "--quick", "--threads", "1"]) == 0
    rows = capsys.readouterr().out.splitlines()[3:]
    assert [row.split()[0] for row in rows] == [name for name, p in LAYERS.items() if p.kind == "pointwise"]


def test_bench_list(capsys):
    assert main(["bench", "pw_28*", "--list"]) == 0
    assert capsys.readouterr().out.split() == ["pw_28_192_32", str(LAYERS["pw_28_192_32"])]


def test_the_choices_of_bench_are_those_that_exist():
    assert list(TABLES) == list(bench.TABLES)
    assert list(CHAINS) == list(bench.CHAINS)
    assert set(KINDS) == {problem.kind for table in bench.TABLES.values() for problem in table.values()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bench", "no_such_layer"], "no_such_layer"),
        (["bench", "conv2d,n1c4i2f8k3"], "weight"),
        (["bench", "pw_28_192_32", "--threads", "0"], "num_threads"),
        (["bench", "pw_28_192_32", "--kind", "atrous"], "atrous"),
        (["bench", "vgg19_*"], "vgg19_*"),
        (["bench", "pw_28_192_32", "--plot", "no/such/folder.png"], "no/such/folder.png"),
        (["bench", "pw_28_192_32", "--json", "no/such/folder.json"], "no/such/folder.json"),
        (["bench", "pw_28_192_32", "--json", "."], ".: is a folder, expected a file"),
        (["bench", "pw_28_192_32", "--plot", "layers.xyz"], "layers.xyz: expected the name of a picture that ends in .png"),
        (["bench", "conv2d,n0c4i8f4k3"], "a batch of 0, expected images to be timed"),
        (["bench", "conv2d,n1c4i3000000x3000000f4k3"], "Unable to allocate"),
        (["bench", "--article", "--plot", "no/such/folder.png"], "no/such/folder.png"),
        (["bench", "pw_28_192_32", "--tune", "--peers"], "peers: means nothing to --tune"),
        (["demo", "--out", "no/such/folder.png"], "no/such/folder.png"),
        (["demo", "--image", "no/such/file.jpg"], "no/such/file.jpg"),
        (["export", "--out", __file__], "test_main.py"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments, said, capsys):
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["bench", "--seconds", "-1"],
        ["bench", "--seconds", "x"],
        ["bench", "--chain", "alexnet"],
        ["bench", "--tune", "--device"],
    ],
)
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["demo", "info", "bench", "compile", "export", "cuda-report"])
def test_commands_are_listed_and_described(command, capsys):
    assert command in parser().format_help()
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert re.search(r"\.\s", capsys.readouterr().out.split("\n\n")[1])  # what it does, and what to know


def test_as_a_module():
    done = subprocess.run([sys.executable, "-m", "fastconv", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"fastconv {fc.__version__}\n"
