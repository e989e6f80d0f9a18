"""The functions themselves, called at once by many Python threads, by joblib's workers, and by processes forked and spawned."""

import multiprocessing
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import fastconv as fc


def whole(*shape):
    return np.random.default_rng(0).integers(-4, 5, shape).astype(np.float32)


X, W = whole(1, 16, 64, 64), whole(16, 16, 3, 3)  # 18 million operations: worth sharing, and worth waking


def digest(number):
    """One number that depends on every bit of a result; all shapes give another."""
    image = np.ascontiguousarray(X[:, :, number % 4 :])
    return hash(fc.conv2d(image, W, padding=1, activation="relu").tobytes())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    fc.set_threading(sys.argv[1])
    with fc.num_threads(1):
        want = [digest(number) for number in range(4)]
    layer = fc.Conv2d(W, padding=1, activation="relu")
    assert hash(layer(X).tobytes()) == want[0]

    def often(number):
        return all(digest(number + k) == want[(number + k) % 4] for k in range(10)) and hash(layer(X).tobytes()) == want[0]

    with ThreadPoolExecutor(32) as callers:
        assert all(callers.map(often, range(64)))
    try:
        from joblib import Parallel, delayed
    except ImportError:
        pass
    else:
        assert all(Parallel(n_jobs=4, backend="threading")(delayed(often)(number) for number in range(8)))
    for way in ("fork", "spawn"):
        context = multiprocessing.get_context(way)
        # Hashes of bytes differ between processes that do not share a seed: the environment gives them one.
        with context.Pool(2) as pool:
            assert pool.map(digest, range(4)) == want, way
