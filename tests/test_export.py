"""The C library: right in every kind, without Python, on another processor, from many threads; and its example."""

import ctypes
import fcntl
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cases
import numpy as np
import pytest
from exported import CProblem, as_c, written

import fastconv
from fastconv import __main__ as command
from fastconv.cpu import machine, tiles
from fastconv.export import CPUS, EXPORTED, export, kernels

HERE = Path(__file__).parent
EXAMPLE = HERE.parent / "docs" / "examples" / "c"
pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
HIGHEST = 1  # FASTCONV_HIGHEST
LARGER = [  # of more bands, chunks and strips than the cases have
    "conv2d,n2c70i40x61f37k3p1g1,bias,relu",
    "conv2d,n1c36i33x50f66k5x3s2p2x1g2,pixelbias,residual,hardswish",
    "conv2d,n1c40i60x41f70k1,bias,residual,relu6,channels_last",
    "conv2d,n2c37i70x51f37k3s2p1g37,bias,relu",
    "conv2d,n2c37i31x51f37k3p1g37,pixelbias,channels_last",
    "conv2d,n2c37i31x51f37k3p2d2g37,channels_last,float64",
    "conv2d,n1c5i33x9f10k4s3p1g5,bias",
    "conv2d,n1c21i40x41f21k3s2p1g21,bias,relu+conv2d,n1c21i20x21f35k1,pixelbias,residual,clip:-3.0:5.0",
    "conv2d,n1c21i40x41f21k3p1g21,relu,channels_last+conv2d,n1c21i40x41f35k1,bias,channels_last",
    "transposed2d,n2c34i20x21f35k4s2p1,bias,relu",
    "transposed2d,n1c34i20x21f36k3s3x2p1d1x2g2o2x1,residual,channels_last",
    "conv1d,n1c17i4000f33k9s2p4,bias",
    "transposed3d,n1c9i6x7x20f10k3s2p1o1,bias,float64",
]
WINOGRAD = [
    "conv2d,n1c65i42x45f95k3s2p1,bias,relu",
    "conv2d,n1c3i99x90f9k7s2p3,bias,hardswish",
    "conv2d,n1c18i40x41f34k3p1g2,bias",
    "transposed2d,n1c33i14x15f40k4s2p1,bias,relu",
    "transposed2d,n1c18i21x22f33k3p1,bias",
    "conv2d,n2c20i18x21f36k3p1,bias,relu",
    "conv2d,n1c33i29x30f66k3p0:2x1:3,pixelbias,residual,hardswish,channels_last",
    "conv2d,n1c40i28x31f70k3p2d2g2,bias,float64",
    "conv3d,n1c33i5x14x15f49k3p1d1x2x3,relu",
    "conv3d,n2c33i6x13x12f66k2x3x3s2x1x1p1,channels_last,bias",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A library of every kind with few tiles, those that other tests compile too."""
    shared = tmp_path_factory.getbasetemp()
    out = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "library"
    with open(out.with_suffix(".lock"), "w") as lock:  # of many workers the first one builds it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            with pytest.MonkeyPatch.context() as few:
                few.setattr(tiles, "WINDOWS", ((3, 3),))
                few.setattr(kernels, "SCHEMES", {name: kernels.SCHEMES[name] for name in ("4x4", "4x4_stride_2", "transposed_4x4")})
                few.setattr(kernels, "COLUMNS", {name: kernels.COLUMNS[name] for name in ("columns_4_3", "columns_7_4")})
                export(out, report=lambda text: None)
    return out


@pytest.fixture(scope="module")
def library(folder):
    return loaded(folder)


def loaded(folder):
    """The library in this process."""
    pointer, number, found = ctypes.c_void_p, ctypes.c_int, ctypes.CDLL(folder / "lib" / "libfastconv.so")
    found.fastconv_message.restype, found.fastconv_workspace.restype = ctypes.c_char_p, ctypes.c_size_t
    for name, count in (
        ("workspace", 1), ("free", 1), ("create", 4), ("create_separable", 7), ("run", 5),
        ("create_input_gradient", 3), ("create_weight_gradient", 2), ("bias_gradient", 3),
    ):  # fmt: skip
        getattr(found, f"fastconv_{name}").argtypes = [pointer] * count
    for name in ("run_part", "run_weight_gradient"):
        getattr(found, f"fastconv_{name}").argtypes = [pointer, number, number, pointer, pointer, pointer, pointer]
    return found


def run(*words, **more):
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, **more)


def checked(folder, lines, where, **more):
    """Have a C program compute problems, each whole and in parts, between pages that no one may touch."""
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{folder}/include"]
    linked = [f"-L{folder}/lib", "-lfastconv", f"-Wl,-rpath,{folder}/lib", "-lm"]
    built = run("gcc", *flags, HERE / "export" / "check.c", *linked, "-o", where / "check")
    assert not built.returncode, built.stderr
    with open(where / "problems", "wb") as file:
        written(file, lines, np.random.default_rng(3), **more)
    done = run(where / "check", where / "problems")
    named = [f"{lines[int(number)]}: {what}" for number, what in re.findall(r"problem (\d+): (.*)", done.stdout)]
    assert not named and f"{len(lines)} problems, 0 wrong" in done.stdout and not done.returncode, named or done


@pytest.mark.parametrize("parts", [1, 4])
def test_every_kind(folder, tmp_path, parts):
    checked(folder, cases.CASES + LARGER + WINOGRAD, tmp_path, parts=parts, precision=HIGHEST)


@pytest.mark.parametrize("parts", [1, 4])
def test_winograd(folder, library, tmp_path, parts):
    checked(folder, WINOGRAD, tmp_path, parts=parts, error=1e-5)
    for line in WINOGRAD:  # another kernel than the exact one, which wants more room
        problem = cases.parse(line)
        given = cases.arrays(problem, np.random.default_rng(0))
        layers = [create(library, as_c(problem, precision=p), given["weight"], given.get("bias"))[1] for p in (0, HIGHEST)]
        assert len({library.fastconv_workspace(layer) for layer in layers}) == 2, line
        for layer in layers:
            library.fastconv_free(layer)


def test_directly(folder, tmp_path):
    checked(folder, cases.CASES, tmp_path, direct=1)


ALLOWED = {"aligned_alloc", "calloc", "malloc", "free", "memcpy", "memmove", "memset", *"exp erf tanh fmin pow sqrt".split()}


def test_the_library_stands_alone(folder):
    path = folder / "lib" / "libfastconv.so"
    symbols = [line.split() for line in run("nm", "-D", path).stdout.splitlines()]
    needed = {words[-1].split("@")[0] for words in symbols if words[-2] == "U"}
    assert needed <= ALLOWED
    given = {words[-1] for words in symbols if words[-2] == "T"}
    header = (folder / "include" / "fastconv.h").read_text()
    assert given == set(re.findall(r"FASTCONV_API [^;]*?(fastconv_\w+)\(", header))
    libraries = {line.split()[0].split("/")[-1].split(".")[0].split("-")[0] for line in run("ldd", path).stdout.splitlines()}
    assert libraries <= {"linux", "libm", "libc", "ld"}


def test_header_is_for_cpp_too(folder):
    for compiler, language, standard in (("gcc", "c", "c99"), ("g++", "c++", "c++11")):
        if shutil.which(compiler):
            strict = ["-fsyntax-only", f"-std={standard}", "-Wall", "-Wextra", "-pedantic", "-Werror"]
            done = run(compiler, *strict, "-x", language, folder / "include" / "fastconv.h")
            assert not done.returncode, done.stderr


# Gradients, and images that are not contiguous ----------------------------------------------------------------------------

GRADIENTS = [  # direct and tiled, each kind, both formats, cropped and padded, of more blocks and bands than one
    "conv2d,n2c37i40x31f37k3p1", "conv2d,n2c18i13x31f36k3x5s2x1p1:0x2g2,channels_last", "conv2d,n2c70i12x14f37k1",
    "conv2d,n2c37i30x21f37k3p1g37", "conv2d,n1c37i30x21f37k3s2p1g37,channels_last", "conv2d,n1c9i30x21f18k3p1g9",
    "conv1d,n2c5i400f7k9s2p4,float64", "conv3d,n1c3i6x7x9f5k3x2x3p1", "conv2d,n0c3i8x8f4k3p1",
    "transposed2d,n2c34i12x13f35k4s2p1", "transposed2d,n1c6i9x8f9k3p1g3,channels_last", "transposed2d,n1c6i9x8f9k3s3x2o1x0,float64",
]  # fmt: skip


@pytest.mark.parametrize("direct", [0, 1])
def test_gradients(library, direct):
    """Those of image, weight and bias, whole and in parts: Python's bits, Winograd's too, or exact ones."""
    for line in GRADIENTS:
        problem, rng = replace(cases.parse(line), precision="highest" if direct else "high"), np.random.default_rng(1)
        given, grad = cases.arrays(problem, rng), rng.integers(-4, 5, problem.out_shape).astype(problem.dtype)
        x, weight = np.ascontiguousarray(given["x"]), np.ascontiguousarray(given["weight"])
        wants = (
            fastconv.grad.input_gradient(problem, weight, grad),
            fastconv.grad.weight_gradient(replace(problem, precision="highest"), x, grad),  # C has no Winograd's form of it
            fastconv.grad.bias_gradient(problem.dimensions, grad, problem.data_format),
        )  # fmt: skip
        of_x, of_weight, of_bias = (np.full_like(want, np.nan) for want in wants)
        told = as_c(problem, direct=direct, parts=2)
        layer = ctypes.c_void_p(1)
        assert library.fastconv_create_input_gradient(at(told), at(weight), ctypes.byref(layer)) == 0, line
        assert library.fastconv_run(layer, at(grad), None, at(of_x), None) == 0
        library.fastconv_free(layer)
        assert library.fastconv_create_weight_gradient(at(told), ctypes.byref(layer)) == 0, line
        for part in (1, 0):
            assert library.fastconv_run_weight_gradient(layer, part, 2, at(x), at(grad), at(of_weight), None) == 0
        library.fastconv_free(layer)
        assert library.fastconv_bias_gradient(at(told), at(grad), at(of_bias)) == 0
        for got, want, what in zip((of_x, of_weight, of_bias), wants, ("x", "weight", "bias"), strict=True):
            assert np.array_equal(got, want), (line, what)


def test_gradients_refuse(library):
    weight, out = np.ones((6, 4, 3, 3), "float32"), np.ones((6, 8, 9), "float32")
    layer = ctypes.c_void_p(1)
    reflected = changed(padding_mode=1, before=(1, 1))
    error = library.fastconv_create_input_gradient(at(reflected), at(weight), ctypes.byref(layer))
    assert message(library, error).startswith("padding_mode: ") and layer.value is None
    assert library.fastconv_create_weight_gradient(at(reflected), ctypes.byref(layer)) == error
    strided = changed(x_image=3)
    error = library.fastconv_create_weight_gradient(at(strided), ctypes.byref(layer))
    assert message(library, error).startswith("x_image, x_channel, x_steps: ") and layer.value is None
    assert library.fastconv_create_weight_gradient(at(PLAIN), ctypes.byref(layer)) == 0
    error = library.fastconv_run(layer, at(out), None, at(out), None)  # the layer of another function
    assert message(library, error).startswith("problem, weight, ")
    library.fastconv_free(layer)


VIEWS = {
    "every other column": lambda x: x[..., ::2], "backwards": lambda x: x[..., ::-1], "rows": lambda x: x[..., ::2, :],
    "turned": lambda x: x.swapaxes(-1, -2), "of the other format": lambda x: np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1),
}  # fmt: skip


@pytest.mark.parametrize("line", [
    "conv2d,n2c5i20x21f9k3p1,bias", "conv2d,n2c17i20x21f33k3s2p1", "conv2d,n2c9i20x21f16k1", "conv2d,n2c9i20x21f9k3p1g9",
    "conv2d,n2c9i20x21f9k3p1g9,channels_last", "conv2d,n2c5i20x21f9k3p2,reflect", "transposed2d,n2c9i20x21f9k3s2",
])  # fmt: skip
def test_images_that_are_not_contiguous(library, line):
    for view in VIEWS.values():
        first = view(np.random.default_rng(0).integers(-4, 5, (2, cases.parse(line).channels, 41, 43)).astype("float32"))
        last = ",channels_last" in line
        x = np.moveaxis(first, 1, -1) if last else first
        space = x.shape[1:-1] if last else x.shape[2:]
        problem = replace(cases.parse(line), space=space)
        given = cases.arrays(problem, np.random.default_rng(0)) | {"x": x}
        image, *steps = (step // x.itemsize for step in x.strides)
        channel = steps.pop(-1 if last else 0)
        for direct in (0, 1):
            lies = {"x_image": image, "x_channel": channel, "x_steps": (ctypes.c_int64 * 3)(*steps)}
            told = as_c(problem, direct=direct, precision=HIGHEST, **lies)
            error, layer = create(library, told, np.ascontiguousarray(given["weight"]), given.get("bias"))
            assert error == 0, message(library, error)
            out = np.full(problem.out_shape, np.nan, "float32")
            assert library.fastconv_run(layer, at(x), None, at(out), None) == 0
            library.fastconv_free(layer)
            cases.same_bits(out, cases.call(fastconv.reference, problem, given))


# Errors ---------------------------------------------------------------------------------------------------------------

PLAIN = as_c(cases.parse("conv2d,n1c4i8x9f6k3p1,bias"))
LARGEST = 2**62
BAD = [
    ("dtype", {"dtype": 2}), ("operation", {"operation": -1}), ("dimensions", {"dimensions": 0}), ("dimensions", {"dimensions": 4}),
    ("channels_last", {"channels_last": 2}), ("batch", {"batch": -1}), ("channels", {"channels": 0}), ("filters", {"filters": -6}),
    ("groups", {"groups": 3}), ("groups", {"groups": -1}), ("space", {"space": (8, 0)}), ("kernel", {"kernel": (0, 3)}),
    ("stride", {"stride": (-1, 1)}), ("dilation", {"dilation": (1, -2)}), ("before, after", {"before": (-1, 0)}),
    ("before, after", {"after": (0, -1)}), ("before, after", {"kernel": (11, 3)}), ("output_padding", {"output_padding": (1, 0)}),
    ("output_padding", {"operation": 1, "output_padding": (0, 1)}), ("before, after", {"operation": 1, "before": (9, 9)}),
    ("bias", {"bias": 3}), ("activation", {"activation": 10}), ("activation", {"activation": 3, "low": 2.0, "high": 1.0}),
    ("activation", {"activation": 4, "low": float("nan")}), ("direct", {"direct": 2}),
    ("padding_mode", {"padding_mode": 5}), ("padding_mode", {"padding_mode": 1, "before": (8, 0)}),
    ("padding_mode", {"padding_mode": 3, "after": (0, 10)}), ("padding_mode", {"padding_mode": 1, "operation": 1}),
    ("precision", {"precision": 2}), ("parts", {"parts": -1}),
    ("space", {"space": (LARGEST, LARGEST)}), ("stride", {"stride": (LARGEST, 1)}), ("dilation", {"dilation": (1, LARGEST)}),
    ("space", {"batch": LARGEST}), ("space", {"before": (LARGEST, LARGEST), "after": (LARGEST, LARGEST)}),
    ("space", {"filters": LARGEST}), ("space", {"operation": 1, "space": (LARGEST, 3)}),
]  # fmt: skip


def changed(problem=PLAIN, **changes):
    problem = CProblem.from_buffer_copy(problem)
    for name, value in changes.items():
        if isinstance(value, tuple):
            getattr(problem, name)[: len(value)] = value
        else:
            setattr(problem, name, value)
    return problem


def at(thing):
    """Where an array, or a problem, lies: it must have a name of its own, to last as long."""
    return None if thing is None else thing.ctypes.data if isinstance(thing, np.ndarray) else ctypes.addressof(thing)


def create(library, problem, weight, bias=None):
    """(error, the layer), where there was another before."""
    layer = ctypes.c_void_p(1)
    return library.fastconv_create(at(problem), at(weight), at(bias), ctypes.byref(layer)), layer


def message(library, error):
    return library.fastconv_message(error).decode()


@pytest.mark.parametrize(("name", "changes"), BAD)
def test_what_is_wrong_is_named(library, name, changes):
    problem, weight, space = changed(**changes), np.zeros(1), (ctypes.c_int64 * 3)(7, 7, 7)
    error, layer = create(library, problem, weight, weight)  # which is never read
    assert message(library, error).startswith(f"{name}: ")
    assert layer.value is None
    assert library.fastconv_out_space(ctypes.byref(problem), space) == error and list(space) == [7, 7, 7]


def test_messages(library):
    messages = [message(library, error) for error in range(-1, 40)]
    known = [text for text in messages if text != "no error of fastconv's"]
    assert len({*known}) == len(known) == 30 and messages[1] == "all is well"


def test_null(library):
    problem, weight, x = changed(), np.ones((6, 4, 3, 3), "float32"), np.ones((4, 8, 9), "float32")
    error, layer = create(library, problem, weight, weight)
    assert error == 0
    null = create(library, problem, weight)[0]
    assert message(library, null).startswith("problem, weight, bias, layer, x, out: ")
    assert create(library, None, weight, weight)[0] == create(library, problem, None, weight)[0] == null
    assert library.fastconv_create(at(problem), at(weight), at(weight), None) == null
    for layer_x_out in ((None, x, x), (layer, None, x), (layer, x, None)):
        assert library.fastconv_run(layer_x_out[0], at(layer_x_out[1]), None, at(layer_x_out[2]), None) == null
    assert library.fastconv_workspace(None) == 0
    library.fastconv_free(layer)
    library.fastconv_free(None)


def test_out_is_untouched_by_a_part_that_is_none(library):
    weight, x, out = np.ones((6, 4, 3, 3), "float32"), np.ones((4, 8, 9), "float32"), np.full((6, 8, 9), 5.0, "float32")
    _, layer = create(library, changed(), weight, weight)
    for part, parts in ((-1, 2), (2, 2), (0, 0)):
        error = library.fastconv_run_part(layer, part, parts, at(x), None, at(out), None)
        assert message(library, error).startswith("part: ")
    assert (out == 5).all()
    library.fastconv_free(layer)


@pytest.mark.parametrize(
    "changes", [{"channels": 4}, {"kernel": (3, 3)}, {"kernel": (3, 3), "before": (1, 1), "after": (1, 1)}, {"dtype": 1},
                {"space": (9, 16)}, {"batch": 2}, {"stride": (2, 1)}, {"channels_last": 1}],
)  # fmt: skip
def test_separable_parts_must_fit(library, changes):
    first, second = map(as_c, cases.parts(cases.parse("conv2d,n1c3i9x17f3k3p1g3+conv2d,n1c3i9x17f8k1")))
    second, weight, layer = changed(second, **changes), np.zeros(100, "float32"), ctypes.c_void_p(1)
    given = at(first), at(second), at(weight), None, at(weight), None, ctypes.byref(layer)
    assert message(library, library.fastconv_create_separable(*given)).startswith("pointwise: ")
    assert layer.value is None


def test_one_pixel_hides_no_padding(library):
    first, second = map(as_c, cases.parts(cases.parse("conv2d,n1c3i3x3f3k3g3+conv2d,n1c3i1x1f8k1")))
    second, weight, layer = changed(second, before=(1, 0), stride=(2, 1)), np.zeros(100, "float32"), ctypes.c_void_p(1)
    given = at(first), at(second), at(weight), None, at(weight), None, ctypes.byref(layer)
    assert message(library, library.fastconv_create_separable(*given)).startswith("pointwise: ")


# Threads --------------------------------------------------------------------------------------------------------------


def test_one_layer_in_many_threads(library):
    problem = cases.parse("conv2d,n2c9i30x31f20k3p1,bias,relu")
    given = cases.arrays(problem, np.random.default_rng(0))
    _, layer = create(library, as_c(problem, parts=2, precision=HIGHEST), given["weight"], given["bias"])
    want, together = cases.call(cases.fastconv.reference, problem, given), np.full(problem.out_shape, np.nan, "float32")

    def whole(_):
        out = np.full(problem.out_shape, np.nan, "float32")
        assert library.fastconv_run(layer, at(given["x"]), None, at(out), None) == 0  # ctypes lets go of the GIL
        return out

    with ThreadPoolExecutor(4) as pool:
        for out in pool.map(whole, range(40)):
            cases.same_bits(out, want)
        list(pool.map(lambda part: library.fastconv_run_part(layer, part, 2, at(given["x"]), None, at(together), None), (0, 1)))
    cases.same_bits(together, want)
    library.fastconv_free(layer)


# The command ----------------------------------------------------------------------------------------------------------

FOR_ANOTHER = """
import sys
from fastconv.cpu import tiles
from fastconv.export import kernels
tiles.FILTERS_IN_LANES, tiles.PIXELS_IN_LANES = {32: {1: (2,)}, 16: {1: (2,)}}, {32: ((8, 1),), 16: ((8, 1),)}
from fastconv.export import export
if __name__ == "__main__":
    export(sys.argv[1], ["pointwise"], "x86-64-v3")
"""


@pytest.mark.skipif(machine.target_vector()[0] < 32, reason="needs a processor of x86-64-v3")
def test_for_another_processor(tmp_path):
    (tmp_path / "script.py").write_text(FOR_ANOTHER)
    environment = os.environ | {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": CPUS["x86-64-v3"]}
    done = run(sys.executable, tmp_path / "script.py", tmp_path / "library", env=environment)
    assert not done.returncode and "kernels for x86-64-v3" in done.stdout, done.stderr
    checked(tmp_path / "library", [line for line in cases.POINTWISE if "s2" not in line], tmp_path)
    code = run("objdump", "-d", tmp_path / "library" / "lib" / "libfastconv.so").stdout
    assert "%ymm" in code and "%zmm" not in code
    library = loaded(tmp_path / "library")  # where other kinds are missing
    assert "exported without its kind" in message(library, create(library, changed(), np.zeros(1), np.zeros(1))[0])


def test_without_a_linker(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CC", "no-such-compiler")
    assert command.main(["export", "--out", str(tmp_path / "library")]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert "no C compiler" in printed.err and "no-such-compiler" in printed.err
    assert not (tmp_path / "library").exists()


def test_choices():
    assert command.EXPORTED == EXPORTED and command.CPUS == tuple(CPUS)
    with pytest.raises(ValueError, match="cpu: got 'i486', expected one of native, x86-64-v3, x86-64-v4"):
        export("nowhere", cpu="i486")
    with pytest.raises(ValueError, match="kinds: got 'winograd', expected some of standard, pointwise"):
        export("nowhere", kinds=["standard", "winograd"], cpu="x86-64-v3")


@pytest.mark.skipif(shutil.which("make") is None or shutil.which("pkg-config") is None, reason="needs make and pkg-config")
def test_example(folder, tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "c")
    built = run("make", f"FASTCONV={folder}", cwd=tmp_path / "c")
    assert not built.returncode and "warning" not in built.stderr, built.stderr
    done = run(tmp_path / "c" / "edges")
    picture, last = done.stdout.splitlines()[:-1], done.stdout.splitlines()[-1]
    assert not done.returncode and re.fullmatch(r"3x3, 64 channels, 56x56: [1-9]\d* GFLOP/s on one thread", last)
    assert len(picture) == 32 and 100 < sum(line.count("#") for line in picture) < 250
