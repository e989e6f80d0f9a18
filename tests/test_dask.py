"""dask arrays: the functions' own results whatever the chunks, and their errors, at once."""

import subprocess
import sys

import numpy as np
import pytest
from cases import same_bits

import fastconv as fc

da = pytest.importorskip("dask.array")
import dask

import fastconv.dask as lazy

RNG = np.random.default_rng(6)


def whole(*shape):
    return RNG.integers(-4, 5, shape).astype(np.float32)


def chunks_of(size):
    """Some way to cut a size, with parts of nothing among them."""
    parts = []
    while sum(parts) < size:
        parts.append(min(int(RNG.integers(0, 6)), size - sum(parts)))
    return tuple(parts)


def same(name, x, *arguments, chunks=None, residual=False, **keywords):
    want = getattr(fc, name)(x, *arguments, **keywords)
    more = {}
    if residual:
        more = {"residual": whole(*want.shape)}
        want = getattr(fc, name)(x, *arguments, **keywords, **more)
        more = {"residual": da.from_array(more["residual"], chunks=3)}
    chunks = chunks or tuple(map(chunks_of, x.shape))
    result = getattr(lazy, name)(da.from_array(x, chunks=chunks), *arguments, **keywords, **more)
    assert result.shape == want.shape and result.dtype == want.dtype
    with dask.config.set(scheduler="synchronous"):
        same_bits(result.compute(), want)


@pytest.mark.parametrize("seed", range(12))
def test_any_geometry_in_any_chunks(seed):
    """Whole numbers and the direct kernels: the same bits."""
    x = whole(2, 4, *RNG.integers(6, 20, 2))
    kernel = RNG.integers(1, 5, 2)
    numbers = {
        "stride": tuple(RNG.integers(1, 4, 2).tolist()), "dilation": tuple(RNG.integers(1, 3, 2).tolist()),
        "padding": tuple(map(tuple, RNG.integers(0, 9 if seed % 2 else 3, (2, 2)).tolist())), "algorithm": "direct",
    }  # fmt: skip
    padded = [n + sum(p) for n, p in zip(x.shape[2:], numbers["padding"])]
    if any(d * (k - 1) + 1 > n for n, k, d in zip(padded, kernel, numbers["dilation"])):
        kernel[:] = 1
    same("conv2d", x, whole(6, 2, *kernel), whole(6), groups=2, **numbers)
    numbers["padding"] = tuple((min(a, k // 2), min(b, k // 2)) for (a, b), k in zip(numbers["padding"], kernel.tolist()))
    extra = tuple(max(s, d) - 1 for s, d in zip(numbers["stride"], numbers["dilation"]))
    same("conv_transpose2d", x, whole(4, 3, *kernel), whole(3), output_padding=extra, **numbers)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular", "symmetric"])
def test_padding_modes(mode):
    same("conv2d", whole(1, 3, 12, 13), whole(2, 3, 3, 5), padding=(1, (2, 1)), padding_mode=mode)


def test_the_other_functions():
    x, w = whole(2, 4, 11, 12), whole(8, 1, 3, 3)
    same("conv1d", whole(2, 4, 30), whole(3, 4, 3), padding="same")
    same("conv3d", whole(4, 6, 7, 8), whole(3, 4, 2, 2, 2), stride=2)
    same("depthwise_conv2d", x, w, whole(8, 6, 6), stride=2, padding=1)
    same("pointwise_conv2d", x, whole(5, 4), activation="relu", residual=True)
    same("atrous_conv2d", x, whole(3, 4, 3, 3), rate=3, padding=3)
    same("separable_conv2d", x, w, whole(5, 8), whole(8), whole(5), padding="same", depthwise_activation="relu", residual=True)
    same("conv_transpose1d", whole(2, 4, 9), whole(4, 3, 2), stride=4)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    same("conv2d", last, whole(3, 4, 3, 3), whole(9, 10, 3), data_format="channels_last", residual=True)
    same("conv2d", whole(0, 4, 110, 120), whole(3, 4, 3, 3), chunks=(1, 4, 5, 5))


def test_errors_come_at_once():
    x, w = da.ones((1, 3, 8, 8), chunks=4, dtype=np.float32), whole(2, 3, 3, 3)
    with pytest.raises(TypeError, match=r"^x: got ndarray, expected a dask array$"):
        lazy.conv2d(whole(1, 3, 8, 8), w)
    with pytest.raises(TypeError, match=r"^out: "):
        lazy.conv2d(x, w, out=whole(1, 2, 6, 6))
    with pytest.raises(ValueError, match=r"^stride: got 0, expected at least 1$"):
        lazy.conv2d(x, w, stride=0)
    with pytest.raises(ValueError, match=r"^residual: got shape"):
        lazy.conv2d(x, w, residual=x)
    with pytest.raises(ValueError, match=r"^x: got chunks of unknown sizes"):
        lazy.conv2d(x[x[:, 0, 0, 0] > 0], w)


def test_the_schedulers():
    x, w = whole(2, 3, 40, 40), whole(4, 3, 3, 3)
    result = lazy.conv2d(da.from_array(x, chunks=(1, 3, 16, 16)), w, padding=1)
    for scheduler in ("threads", "synchronous"):
        same_bits(result.compute(scheduler=scheduler), fc.conv2d(x, w, padding=1))


def test_the_distributed_scheduler():
    program = """
import numpy as np, dask.array as da, fastconv as fc, fastconv.dask as lazy
from distributed import Client
if __name__ == "__main__":
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-4, 5, shape).astype(np.float32) for shape in ((2, 3, 40, 40), (4, 3, 3, 3)))
    with Client(n_workers=2, threads_per_worker=2, dashboard_address=None):
        y = lazy.conv2d(da.from_array(x, chunks=(1, 3, 16, 16)), w, padding=1).compute()
    assert np.array_equal(y, fc.conv2d(x, w, padding=1))
"""
    pytest.importorskip("distributed")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


def test_without_dask():
    program = "import sys; sys.modules['dask'] = None\ntry: import fastconv.dask\nexcept ImportError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("fastconv.dask needs dask: python -m pip install")
