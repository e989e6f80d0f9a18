"""The autoencoder learns what it claims to, gives the same bits again, and refuses what it cannot do."""

import collections
import itertools
import pickle
import sys
import types

import numpy as np
import pytest

import fastconv as fc
from fastconv.autoencoder import EpochLoss, LearningCurve

f4 = np.float32


def pictures(count=40, channels=1, height=8, width=8, seed=1):
    """Smooth random pictures: the sum of a few waves."""
    rng = np.random.default_rng(seed)
    rows, columns = np.arange(height)[:, None] / height, np.arange(width) / width
    a, b, phase = rng.random((3, count, channels, 1, 1))
    return (0.5 + 0.5 * np.sin(6 * (a * rows + b * columns + phase))).astype(f4)


def same_bits(first, second):
    assert first.keys() == second.keys()
    return all(first[name].tobytes() == second[name].tobytes() for name in first)


@pytest.fixture(scope="module")
def digits():
    datasets = pytest.importorskip("sklearn.datasets")
    images = np.pad(datasets.load_digits().images / 16, ((0, 0), (4, 4), (4, 4)))
    return images.astype(f4)[:, None]


def error_of_mean(seen, unseen):
    return float(np.mean((seen.mean(axis=0) - unseen) ** 2))


# Learning ------------------------------------------------------------------------------------------------------------


def test_digits_with_defaults(digits):
    seen, unseen = digits[:1500], digits[1500:]
    model = fc.ConvAutoencoder(rng=0)
    curve = model.fit(seen, epochs=5, validation=unseen)
    assert len(curve) == len(curve.train) == len(curve.validation) == 5
    assert curve.train == sorted(curve.train, reverse=True)
    error = float(np.mean((model.reconstruct(unseen) - unseen) ** 2))
    assert error == pytest.approx(curve.validation[-1], rel=1e-5)
    assert error < error_of_mean(seen, unseen) / 2


def test_digits_separable(digits):
    seen, unseen = digits[:1000], digits[1500:]
    model = fc.ConvAutoencoder(separable=True, rng=0)
    curve = model.fit(seen, epochs=4, validation=unseen)
    assert model.encode(unseen).shape == (len(unseen), 8, 4, 4)
    assert curve.validation[-1] < 0.8 * error_of_mean(seen, unseen)


def test_photograph():
    data = pytest.importorskip("skimage.data")
    photo = data.camera().astype(f4) / 255
    patches = photo.reshape(32, 16, 32, 16).swapaxes(1, 2).reshape(-1, 1, 16, 16)
    order = np.random.default_rng(0).permutation(len(patches))
    seen, unseen = patches[order[:768]], patches[order[768:]]
    model = fc.ConvAutoencoder(rng=0)
    model.fit(seen, epochs=4, progress=False)
    error = float(np.mean((model.reconstruct(unseen) - unseen) ** 2))
    assert error < error_of_mean(seen, unseen) / 4


def test_fit_goes_on():
    x = pictures()
    model = fc.ConvAutoencoder(channels=(4, 2), rng=0)
    first, second = model.fit(x, epochs=8), model.fit(x, epochs=8)
    assert second.train[-1] < second.train[0] < first.train[0]


# Gradients -----------------------------------------------------------------------------------------------------------


def reference_restored(x, weights, stages, kernel_size, separable):
    """The whole network once more, by the reference, in float64."""
    pad, extra = (kernel_size - 1) // 2, kernel_size % 2
    w, reference = {name: array.astype(np.float64) for name, array in weights.items()}, fc.reference
    for i in range(stages):
        activation = "relu" if i < stages - 1 else None
        if separable:
            x = reference.depthwise_conv2d(x, w[f"encoder.{i}.depthwise.weight"], stride=2, padding=pad)
            name = f"encoder.{i}.pointwise"
            x = reference.pointwise_conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], activation=activation)
        else:
            name = f"encoder.{i}"
            x = reference.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride=2, padding=pad, activation=activation)
    for i in range(stages):
        activation = "relu" if i < stages - 1 else None
        weight, bias = w[f"decoder.{i}.weight"], w[f"decoder.{i}.bias"]
        x = reference.conv_transpose2d(
            x, weight, bias, stride=2, padding=pad, output_padding=extra, activation=activation
        )  # fmt: skip
    return x


@pytest.mark.parametrize(("kernel_size", "separable"), [(3, False), (4, False), (3, True)])
def test_gradients_by_differences(kernel_size, separable):
    x = pictures(2, channels=2, height=8, width=4)
    model = fc.ConvAutoencoder(2, (3, 2), kernel_size, separable=separable, rng=3)
    rng = np.random.default_rng(4)
    for name, array in model._arrays().items():
        if name.endswith("bias"):
            array[...] = rng.uniform(-0.1, 0.1, array.shape)
    weights, wide = model.weights, x.astype(np.float64)

    def restored(changed):
        return reference_restored(wide, changed, 2, kernel_size, separable)

    np.testing.assert_allclose(model.reconstruct(x), restored(weights), rtol=1e-4, atol=1e-5)
    squares, gradients = model._gradients(x)
    assert squares == pytest.approx(float(np.sum((restored(weights) - wide) ** 2)), rel=1e-4)
    assert len(gradients) == len(weights)
    for (name, array), gradient in zip(weights.items(), gradients, strict=True):
        assert gradient.shape == array.shape and gradient.dtype == f4, name
        near = 1e-5 * float(np.abs(gradient).max())
        assert near > 0, name
        for index in itertools.islice(np.ndindex(array.shape), 0, None, max(array.size // 24, 1)):
            losses = []
            for step in (1e-6, -1e-6):
                changed = array.astype(np.float64)
                changed[index] += step
                losses.append(np.mean((restored({**weights, name: changed}) - wide) ** 2))
            difference = (losses[0] - losses[1]) / 2e-6
            assert gradient[index] == pytest.approx(difference, rel=1e-3, abs=near), (name, index)


# The same bits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separable", [False, True])
def test_same_seed_same_bits(separable):
    x, validation = pictures(45), pictures(7, seed=2)
    results = []
    for rng, threads in ((7, 1), (7, fc.get_num_threads()), (np.random.default_rng(7), 1), (8, 1)):
        with fc.num_threads(threads):
            model = fc.ConvAutoencoder(channels=(5, 3), separable=separable, rng=rng)
            curve = model.fit(x, epochs=2, batch_size=16, validation=validation)
        results.append((model.weights, curve))
    for weights, curve in results[1:3]:
        assert same_bits(weights, results[0][0])
        assert curve == results[0][1]
    assert not same_bits(results[3][0], results[0][0])


def test_any_view_gives_the_same_bits():
    x = pictures(20)
    views = [x, np.asfortranarray(x), x[:, :, ::-1].copy()[:, :, ::-1], x.astype(x.dtype.newbyteorder())]
    models = [fc.ConvAutoencoder(channels=(4, 2), rng=0) for _ in views]
    curves = [model.fit(view, epochs=1, validation=view) for model, view in zip(models, views, strict=True)]
    for model, curve in zip(models, curves, strict=True):
        assert curve == curves[0]
        assert same_bits(model.weights, models[0].weights)


def test_input_is_left_alone():
    x = pictures(20)
    before = x.copy()
    x.flags.writeable = False
    fc.ConvAutoencoder(rng=0).fit(x, epochs=1)
    assert np.array_equal(x, before)


# What training tells -------------------------------------------------------------------------------------------------


def test_callback_and_curve():
    x, told = pictures(), []
    model = fc.ConvAutoencoder(channels=(4, 2), rng=0)
    curve = model.fit(x, epochs=3, callback=lambda *arguments: told.append(arguments))
    assert told == [(epoch, loss, None) for epoch, loss in enumerate(curve.train)]
    told.clear()
    curve = model.fit(x, epochs=2, validation=x[:8], callback=lambda *arguments: told.append(arguments))
    assert told == [(epoch, *losses) for epoch, losses in enumerate(curve)]

    def stop(epoch, train_loss, validation_loss):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(x, callback=stop)


def test_curve_is_a_sequence():
    curve = LearningCurve([3.0, 2.0, 1.0], [3.0, float("nan"), 4.0])
    assert next(iter(curve)) == curve[0] == EpochLoss(3.0, 3.0)
    assert curve[-1].validation == 4.0
    assert curve[1:].train == [2.0, 1.0] and curve[:1] == LearningCurve([3.0], [3.0])
    assert curve.best == 0 and LearningCurve(curve.train).best == 2
    assert LearningCurve([1.0])[0].validation is None
    with pytest.raises(IndexError):
        curve[3]
    with pytest.raises(ValueError, match="best"):
        _ = LearningCurve().best


def test_patience_stops_and_goes_back():
    x, other = pictures(), pictures(8, seed=5)
    model, kept = fc.ConvAutoencoder(channels=(4, 2), rng=0), []

    def keep(epoch, train_loss, validation_loss):
        kept.append(model.weights)
        # After the third epoch the network is spoilt: its error grows from there on, and is to be forgotten.
        if epoch >= 2:
            model._arrays()["decoder.1.bias"][...] += 10

    curve = model.fit(x, epochs=50, validation=other, callback=keep, patience=2, learning_rate=1e-3)
    assert curve.best == 2 and len(curve) == 5
    assert same_bits(model.weights, kept[2])


def test_patience_keeps_the_best_to_the_end():
    x = pictures()
    model, kept = fc.ConvAutoencoder(channels=(4, 2), rng=0), []
    curve = model.fit(x, epochs=12, learning_rate=0.1, patience=12, callback=lambda *_: kept.append(model.weights))
    assert len(curve) == 12
    assert same_bits(model.weights, kept[curve.best])


def test_bar(capfd, monkeypatch):
    x = pictures(8)
    model = fc.ConvAutoencoder(channels=(4, 2), rng=0)
    model.fit(x, epochs=1)
    model.fit(x, epochs=1, progress=False)
    assert capfd.readouterr() == ("", "")
    pytest.importorskip("rich")
    model.fit(x, epochs=2, validation=x, progress="always")
    out, err = capfd.readouterr()
    assert out == "" and "epoch 2 of 2" in err

    shown = []

    class Meter:
        def __init__(self, total):
            self.total, self.count = total, 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            shown.append(f"{self.count} of {self.total}")

        def update(self, by):
            self.count += by

        def set_description(self, text, refresh):
            shown.append(text)

    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setitem(sys.modules, "tqdm", types.SimpleNamespace(tqdm=Meter))
    model.fit(x, epochs=2, batch_size=3, progress="always")
    assert shown[0] == "epoch 1 of 2" and shown[-1] == "6 of 6" and "epoch 2 of 2, loss" in shown[-2]
    monkeypatch.setitem(sys.modules, "tqdm", None)
    model.fit(x, epochs=1, progress="always")
    assert capfd.readouterr() == ("", "")


# Shapes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel_size", [2, 3, 4, 5])
@pytest.mark.parametrize("separable", [False, True])
def test_shapes(kernel_size, separable):
    model = fc.ConvAutoencoder(3, (5, 4, 2), kernel_size, separable=separable, rng=0)
    for shape in ((2, 3, 8, 8), (1, 3, 16, 40), (0, 3, 8, 8)):
        x = np.ones(shape, f4)
        code = model.encode(x)
        assert code.shape == (shape[0], 2, shape[2] // 8, shape[3] // 8) and code.dtype == f4
        assert model.reconstruct(x).shape == shape
        assert np.array_equal(model.inverse_transform(model.transform(x)), model.decode(code))
    assert model.parameters == sum(array.size for array in model.weights.values())
    assert str(kernel_size) in repr(model)


# Files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separable", [False, True])
def test_file_round_trip(tmp_path, separable):
    x = pictures(6, channels=2)
    model = fc.ConvAutoencoder(2, (4, 3), 4, separable=separable, rng=0)
    model.fit(x, epochs=1)
    path = tmp_path / "no ending"
    model.save(path)
    again = fc.ConvAutoencoder.load(str(path), rng=5)
    assert repr(again) == repr(model)
    assert same_bits(again.weights, model.weights)
    assert again.reconstruct(x).tobytes() == model.reconstruct(x).tobytes()
    third = fc.ConvAutoencoder.load(path, rng=5)
    assert again.fit(x, epochs=2) == third.fit(x, epochs=2)
    pickled = pickle.loads(pickle.dumps(model))
    assert same_bits(pickled.weights, model.weights)
    assert pickled.fit(x, epochs=2) == model.fit(x, epochs=2)


def stored(**changes):
    """What a network of one stage stores, with changes; None leaves an entry out."""
    weights = fc.ConvAutoencoder(channels=(2,), rng=0).weights
    entries = {
        "format": np.array("fastconv.ConvAutoencoder"), "version": np.array(1), "in_channels": np.array(1),
        "channels": np.array([2]), "kernel_size": np.array(3), "separable": np.array(False), **weights, **changes,
    }  # fmt: skip
    return {name: array for name, array in entries.items() if array is not None}


def test_file_by_hand_is_read(tmp_path):
    np.savez(tmp_path / "file.npz", **stored())
    assert fc.ConvAutoencoder.load(tmp_path / "file.npz").channels == (2,)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": None},
        {"format": np.array("something else")},
        {"version": np.array(2)},
        {"version": None},
        {"channels": np.array([3])},
        {"channels": np.array([2.0])},
        {"channels": np.array([2**40, 2**40])},
        {"channels": np.ones(10**6, int)},
        {"channels": None},
        {"in_channels": np.array("many")},
        {"separable": np.array(1)},
        {"encoder.0.weight": None},
        {"encoder.0.weight": np.zeros((2, 1, 3, 3))},
        {"encoder.0.weight": np.array([{}], dtype=object)},
        {"encoder.9.weight": np.zeros(3, f4)},
    ],
    ids=str,
)
def test_foreign_archive_is_refused(tmp_path, changes):
    np.savez(tmp_path / "file.npz", **stored(**changes))
    with pytest.raises(ValueError, match="path: "):
        fc.ConvAutoencoder.load(tmp_path / "file.npz")


def test_foreign_file_is_refused(tmp_path):
    whole = tmp_path / "whole"
    fc.ConvAutoencoder(rng=0).save(whole)
    content = whole.read_bytes()
    path = tmp_path / "file"
    for foreign in (b"", b"hello", content[:700], content[200:], pickle.dumps([1]), content[:100] + b"?" * 60 + content[160:]):
        path.write_bytes(foreign)
        with pytest.raises(ValueError, match="path: "):
            fc.ConvAutoencoder.load(path)
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match="path: "):
        fc.ConvAutoencoder.load(path)
    with pytest.raises(FileNotFoundError):
        fc.ConvAutoencoder.load(tmp_path / "nowhere")
    with pytest.raises(TypeError):
        fc.ConvAutoencoder.load(0)


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (ValueError, "in_channels: got 0", {"in_channels": 0}),
        (TypeError, "in_channels: got True", {"in_channels": True}),
        (TypeError, "channels: got int", {"channels": 8}),
        (ValueError, "channels: got none", {"channels": ()}),
        (ValueError, "channels: got 0", {"channels": (4, 0)}),
        (TypeError, "channels: got 2.0", {"channels": (2.0,)}),
        (ValueError, "kernel_size: got 1", {"kernel_size": 1}),
        (ValueError, "kernel_size: got -3", {"kernel_size": -3}),
        (TypeError, "kernel_size: got", {"kernel_size": (3, 3)}),
        (TypeError, "separable: got 'yes'", {"separable": "yes"}),
        (TypeError, "rng: got 'seed'", {"rng": "seed"}),
        (ValueError, "rng: got -1", {"rng": -1}),
    ],
)
def test_constructor_refuses(error, words, arguments):
    with pytest.raises(error, match=words):
        fc.ConvAutoencoder(**arguments)


def zeros(*shape, dtype=f4):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize("method", ["encode", "reconstruct", "transform", "fit"])
@pytest.mark.parametrize(
    ("error", "words", "x"),
    [
        (TypeError, "x: got list", [[0.0]]),
        (TypeError, "x: got MaskedArray", np.ma.array(zeros(1, 1, 8, 8))),
        (ValueError, "x: got dtype float64, expected float32", zeros(1, 1, 8, 8, dtype=float)),
        (ValueError, "x: got dtype uint8", zeros(1, 1, 8, 8, dtype=np.uint8)),
        (ValueError, "x: got dtype complex64", zeros(1, 1, 8, 8, dtype=np.complex64)),
        (ValueError, "x: got 3 dimensions", zeros(1, 8, 8)),
        (ValueError, "x: got 3 channels", zeros(1, 3, 8, 8)),
        (ValueError, "x: got pictures of 8 x 6, expected sizes divisible by 4", zeros(1, 1, 8, 6)),
        (ValueError, "x: got pictures of 2 x 8", zeros(1, 1, 2, 8)),
        (ValueError, r"x: got shape \(1, 1, 0, 8\)", zeros(1, 1, 0, 8)),
    ],
)
def test_pictures_refused(method, error, words, x):
    with pytest.raises(error, match=words):
        getattr(fc.ConvAutoencoder(rng=0), method)(x)


def test_code_refused():
    with pytest.raises(ValueError, match="z: got 1 channels"):
        fc.ConvAutoencoder(rng=0).decode(zeros(1, 1, 4, 4))
    with pytest.raises(TypeError, match="z: got NoneType"):
        fc.ConvAutoencoder(rng=0).decode(None)


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (ValueError, "x: got no pictures", {"x": zeros(0, 1, 8, 8)}),
        (ValueError, "x: got NaN or infinity", {"x": np.full((1, 1, 8, 8), np.nan, f4)}),
        (ValueError, "validation: got no pictures", {"validation": zeros(0, 1, 8, 8)}),
        (ValueError, "validation: got pictures of 9 x 8", {"validation": zeros(1, 1, 9, 8)}),
        (ValueError, "epochs: got 0", {"epochs": 0}),
        (TypeError, "epochs: got 1.0", {"epochs": 1.0}),
        (ValueError, "batch_size: got 0", {"batch_size": 0}),
        (ValueError, "learning_rate: got 0", {"learning_rate": 0}),
        (ValueError, "learning_rate: got nan", {"learning_rate": float("nan")}),
        (TypeError, "learning_rate: got True", {"learning_rate": True}),
        (TypeError, "learning_rate: got '1'", {"learning_rate": "1"}),
        (ValueError, "progress: got 'often'", {"progress": "often"}),
        (TypeError, "callback: got int", {"callback": 3}),
        (ValueError, "patience: got 0", {"patience": 0}),
    ],
)
def test_fit_refuses(error, words, arguments):
    model = fc.ConvAutoencoder(rng=0)
    before = model.weights
    with pytest.raises(error, match=words):
        model.fit(**{"x": zeros(1, 1, 8, 8), **arguments})
    assert same_bits(model.weights, before)


# In scikit-learn's pipelines ---------------------------------------------------------------------------------------------


def test_pipeline_with_labels(digits):
    """A step in the middle: its codes are what a classifier learns from, and the labels do not disturb it."""
    pipeline, bayes = pytest.importorskip("sklearn.pipeline"), pytest.importorskip("sklearn.naive_bayes")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x, labels = digits[:300], np.arange(300) % 3
    flat = preprocessing.FunctionTransformer(lambda codes: codes.reshape(len(codes), -1))
    steps = [("code", fc.ConvAutoencoder(rng=0)), ("flat", flat), ("classes", bayes.GaussianNB())]
    whole = pipeline.Pipeline(steps).fit(x, labels, code__epochs=1, code__progress=False)
    alone = fc.ConvAutoencoder(rng=0)
    alone.fit(x, epochs=1, progress=False)
    np.testing.assert_array_equal(whole["code"].transform(x), alone.encode(x))
    assert whole.predict(x[:4]).shape == (4,)


@pytest.mark.parametrize("y", [None, np.zeros(8), collections.UserList(range(8))])
def test_pipeline_that_ends_with_it(y):
    pipeline = pytest.importorskip("sklearn.pipeline")
    x = np.random.default_rng(0).random((8, 1, 8, 8), np.float32)
    whole = pipeline.make_pipeline(fc.ConvAutoencoder(channels=(4,), rng=0)).fit(x, y)
    alone = fc.ConvAutoencoder(channels=(4,), rng=0)
    assert len(alone.fit(x, y=y, progress=False)) == 10
    code = whole.transform(x)
    np.testing.assert_array_equal(code, alone.transform(x))
    np.testing.assert_array_equal(whole.inverse_transform(code), alone.decode(code))
    again = fc.ConvAutoencoder(channels=(4,), rng=0)
    np.testing.assert_array_equal(again.fit_transform(x, y, epochs=10, progress=False), code)


def test_parameters_and_clones(tmp_path):
    base = pytest.importorskip("sklearn.base")
    model = fc.ConvAutoencoder(3, [4, 2], separable=True, rng=7)
    assert model.get_params() == {"in_channels": 3, "channels": [4, 2], "kernel_size": 3, "separable": True, "rng": 7}
    copy = base.clone(model)
    for name, array in model.weights.items():
        np.testing.assert_array_equal(copy.weights[name], array)
    assert copy.set_params(channels=(5,), in_channels=1) is copy
    assert copy.get_params()["channels"] == copy.channels == (5,) and "encoder.0.depthwise.weight" in copy.weights
    with pytest.raises(ValueError, match="depth: no argument"):
        copy.set_params(depth=3)
    with pytest.raises(TypeError, match="channels"):
        copy.set_params(channels=3)
    assert copy.channels == (5,)
    model.save(tmp_path / "model.npz")
    assert base.clone(fc.ConvAutoencoder.load(tmp_path / "model.npz", rng=1)).channels == (4, 2)
