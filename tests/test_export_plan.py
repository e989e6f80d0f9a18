"""The plan in C is the one in Python: of each problem the same kernel and tile, and the job word for word; no kernel runs."""

import ctypes
import shutil
import subprocess

import cases
import numpy as np
import pytest
from exported import as_c
from test_export import WINOGRAD

from conftest import EVERY
from fastconv import grad
from fastconv.cpu import job, launch, phases, signals, tiles, winograd, winograd_gradients
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.export import EXPORTED, kernels
from fastconv.export.build import SOURCES
from fastconv.plan import choose

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
# Of volumes C counts the taps outside the image too, and it knows no weights as heavy as a map of biases.
LAYERS = [line for line in WINOGRAD if "conv3d" not in line and "pixelbias" not in line] + [
    "conv2d,n1c3i224f64k7s2p3", "conv2d,n1c64i56f64k3p1,bias,relu", "conv2d,n1c128i56f128k3s2p1", "conv2d,n1c64i56f96k5p2",
    "transposed2d,n1c64i28f32k3s2p1o1", "conv2d,n1c64i28f64k3p1g8", "conv2d,n1c3i512f32k3p1", "conv2d,n2c512i7f512k3p1,bias",
    "conv2d,n1c36i33x50f66k5x3s2p2x1g2,bias", "conv2d,n1c40i60x41f30k1,channels_last", "conv2d,n1c64i56f128k1,bias",
    "conv2d,n2c37i70x51f37k3s2p1g37", "conv2d,n2c37i31x51f37k3p2d2g37,channels_last,float64",
    "conv2d,n1c37i60x41f74k4s3p1g37,channels_last", "conv1d,n1c160i4000f160k31p15g160,channels_last",
    "conv2d,n1c37i33x50f37k5x4s4g37", "conv1d,n1c160i400f160k4g160", "conv2d,n1c5i33x9f10k4s3p1g5",
    "conv2d,n2c37i9x7f74k3p1g37,bias", "conv2d,n1c37i40x7f37k5s2p2g37",
    "transposed2d,n2c34i20x21f35k4s2p1", "transposed2d,n1c34i20x21f36k3s3x2p1d1x2g2o2x1,channels_last",
    "conv1d,n1c17i4000f33k9s2p4", "conv2d,n1c80i14f480k1", "conv2d,n1c24i56f144k1,bias", "conv2d,n1c96i17f160k3s2p1",
    "conv2d,n1c3i100f32k7s2p3,bias,relu,channels_last", "conv2d,n1c240i28f60k1g3,bias,relu,channels_last",
]  # fmt: skip
WEIGHTS = [  # of one part, and not of half the lanes: C has neither
    "conv2d,n8c512i7f512k3p1", "conv2d,n2c37i30x21f37k3p1g37", "conv2d,n1c37i30x21f37k3s2p1g37,channels_last",
    "conv1d,n2c5i400f7k9s2p4,float64", "transposed2d,n1c6i9x8f9k3s3x2o1x0,float64",
]  # fmt: skip
# Forms that C does not have: where they are faster it computes by the next best.
ABSENT = {
    *(name for name, scheme in winograd.SCHEMES.items() if scheme.down != scheme.across),
    "winograd_groups", "winograd_groups_last", *phases.SCHEMES, *signals.SCHEMES, "tiled_transposed_blocks",
    "tiled_transposed_blocks_pixels", "tiled_weight_gradient_pixels", "strassen_pointwise", "strassen_separable",
    "strassen_pointwise_turned", "strassen_separable_turned", "tiled_separable_turned", "tiled_separable_pixels_turned",
    "strassen_patches", "strassen_transposed", "strassen_transposed_turned", "tiled_transposed_woven", "tiled_depthwise_volume",
    "tiled_standard_whole", "tiled_transposed_single", "tiled_weight_gradient_whole", *winograd_gradients.SCHEMES,
    "winograd_depthwise", "tiled_depthwise_across",
}  # fmt: skip
IN_C = tuple(i for i in IMPLEMENTATIONS if i.name not in ABSENT and not i.name.endswith("_fresh"))
# Addresses, and what a call sets.
LEFT_OUT = {
    "x", "weight", "bias", "residual", "grad", "out", "scratch", "scratch_size", "table", "unit", "has_residual", "outer_weight",
    "inner_bias", *(name for name in job.FIELDS if name.endswith("_code")),
}  # fmt: skip
STEPS = {"x_steps": "space", "grad_steps": "out_space"}  # along an axis of one number any will do


PROBE = """
#include "layer.h"
const int64_t *job_of(const fastconv_layer *layer) { return layer->job; }
const int64_t *table_of(const fastconv_layer *layer) { return layer->table; }
int64_t items_of(const fastconv_layer *layer) { return layer->items; }
static const struct { const char *name; const void *code; } held[] = {%s, {0, 0}};
static const char *name_of(intptr_t code)
{
    int k = 0;
    while (held[k].name && (intptr_t)held[k].code != code) k++;
    return held[k].name ? held[k].name : "";
}
const char *kernel_of(const fastconv_layer *layer) { return name_of((intptr_t)layer->code); }
const char *products_of(const fastconv_layer *layer) { return name_of(layer->job[JOB_MULTIPLY_CODE]); }
"""


@pytest.fixture(autouse=True)
def images_one_by_one(monkeypatch):
    """As C computes them, where Python may pass several past Winograd's weights together, or walk down two at once."""
    monkeypatch.setattr("fastconv.cpu.plans.winograd.at_once", lambda *problem_and_sizes: 1)
    monkeypatch.setattr("fastconv.cpu.plans.depthwise.images_together", lambda problem: 1)


@pytest.fixture(scope="module")
def planner(tmp_path_factory):
    """The C files, with a function that does nothing for every kernel of a whole library."""
    folder = tmp_path_factory.mktemp("planner")
    with pytest.MonkeyPatch.context() as every:
        for name, table in EVERY.items():
            every.setattr(tiles, name, table)
        held = kernels.kernels(EXPORTED)
        (folder / "kernels.h").write_text(kernels.header(held, kernels.caches_of("native")))
    (folder / "stubs.c").write_text("\n".join(f"void {kernel.symbol}(void) {{}}" for kernel in held))
    (folder / "probe.c").write_text(PROBE % ", ".join(f'{{"{kernel.symbol}", (const void *){kernel.symbol}}}' for kernel in held))
    sources = [*SOURCES.glob("*.c"), folder / "stubs.c", folder / "probe.c"]
    flags = ["-std=c11", "-O1", "-fPIC", "-shared", f"-I{folder}", f"-I{SOURCES}"]
    command = map(str, ["gcc", *flags, *sources, "-lm", "-o", folder / "plan.so"])
    done = subprocess.run(list(command), capture_output=True, text=True)
    assert not done.returncode, done.stderr
    found = ctypes.CDLL(folder / "plan.so")
    found.job_of.restype = found.table_of.restype = ctypes.POINTER(ctypes.c_int64)
    found.items_of.restype, found.kernel_of.restype, found.products_of.restype = ctypes.c_int64, ctypes.c_char_p, ctypes.c_char_p
    return found


def told(words, problem):
    """The fields of a job that a plan sets."""
    fields = {}
    for name, (count, _) in job.FIELDS.items():
        if name in LEFT_OUT:
            continue
        fields[name] = [int(word) for word in words[job.PLACES[name] : job.PLACES[name] + count]]
        if name in STEPS:
            sizes = [1, 1, *getattr(problem, STEPS[name])][-3:]
            fields[name] = [step for step, size in zip(fields[name], sizes, strict=True) if size > 1]
    return fields


def agree(planner, layer, bound, problem, choice):
    """Whether a layer in C is what Python has planned."""
    implementation, tile = choice.implementation, choice.division.tile
    code, products = planner.kernel_of(layer).decode(), planner.products_of(layer).decode()
    assert code.startswith(f"{implementation.kernel.__name__}_{problem.dtype}"), code
    if tile is not None:
        sizes = f"{tile.rows}x{tile.vectors}"
        assert sizes in (products or code).split("_")[-1], (code, products, sizes)
    ours, theirs = told(planner.job_of(layer)[: job.WORDS], problem), told(bound.ready.words, problem)
    if problem.kind == "weights":  # which nothing finishes
        for name in ("least", "most"):
            del ours[name], theirs[name]
    assert ours == theirs
    assert planner.items_of(layer) == bound.ready.items
    table = bound._table.tolist()
    assert not table or not any(table) or planner.table_of(layer)[: len(table)] == table
    planner.fastconv_free(layer)


def at(thing):
    return ctypes.c_void_p(thing.ctypes.data) if isinstance(thing, np.ndarray) else ctypes.byref(thing)


@pytest.fixture
def no_kernels(monkeypatch):
    """Plans have no need of machine code."""
    monkeypatch.setattr(launch, "address", lambda *kernel_and_types: 0)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("line", LAYERS)
def test_layers(planner, every_tile, no_kernels, line, threads):
    problem, layer = cases.parse(line), ctypes.c_void_p()
    weight, bias = np.ones(problem.weight_shape, problem.dtype), np.ones(problem.out_shape[1:], problem.dtype)
    assert planner.fastconv_create(at(as_c(problem, parts=threads)), at(weight), at(bias), at(layer)) == 0
    x = np.ones(problem.x_shape, problem.dtype)
    choice = choose(problem, IN_C, threads, launch.neighbours(x, problem))
    agree(planner, layer, launch.Bound(choice, x, False), choice.problem, choice)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("line", WEIGHTS)
def test_gradients_of_weights(planner, every_tile, no_kernels, line, threads):
    problem, layer = cases.parse(line), ctypes.c_void_p()
    assert planner.fastconv_create_weight_gradient(at(as_c(problem, parts=threads)), at(layer)) == 0
    x, above = np.ones(problem.x_shape, problem.dtype), np.ones(problem.out_shape, problem.dtype)
    task, *pair = grad._weight_task(problem, x, above)
    choice = choose(task, IN_C, threads, launch.neighbours(pair[0], task))
    agree(planner, layer, launch.BoundWeightGradient(choice, *pair), choice.problem, choice)
