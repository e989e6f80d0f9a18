"""A convolutional autoencoder, trained with the package's own convolutions and gradients.

It learns to press pictures through a narrow code and to restore them, without labels. The encoder's stages are convolutions
of stride 2, each of which halves the picture; the decoder's are transposed convolutions of stride 2, each of which doubles
it again; between the stages of either stand rectifiers, and the code and the restored picture are sums as they are.

All that a network needs is here to be read: layers that know their gradients, a pass forward that keeps what the pass
backward asks for, and Adam. A layer's gradients are `fastconv.grad`'s; nothing differentiates automatically.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, overload

import numpy as np

from fastconv import cuda, functional, grad
from fastconv.cpu import training
from fastconv.problem import dtype_of, whole

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

__all__ = ["ConvAutoencoder", "EpochLoss", "LearningCurve"]

FILE_FORMAT = "fastconv.ConvAutoencoder"
FILE_VERSION = 1
EPOCHS = 10


# What training tells --------------------------------------------------------------------------------------------------


class EpochLoss(NamedTuple):
    """Mean squared errors of one epoch; `validation` is None where there were no validation pictures."""

    train: float
    validation: float | None


@dataclass(frozen=True)
class LearningCurve(Sequence[EpochLoss]):
    """The losses of a training, epoch by epoch.

    A sequence: ``len(curve)`` epochs, ``curve[i]`` is epoch i's ``EpochLoss(train, validation)``, a slice is a curve again,
    and a loop runs over the epochs. The columns are attributes.

    Attributes
    ----------
    train : list of float
        Mean squared error of an epoch's training pictures, each taken just before the step that learnt from it.
    validation : list of float
        Mean squared error of the validation pictures at the end of an epoch; empty where there were none.

    Examples
    --------
    >>> curve = LearningCurve(train=[0.5, 0.25, 0.2], validation=[0.4, 0.3, 0.35])
    >>> curve.best, curve[curve.best]
    (1, EpochLoss(train=0.25, validation=0.3))
    >>> [train for train, validation in curve]
    [0.5, 0.25, 0.2]
    """

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)

    @property
    def best(self) -> int:
        """The epoch of the smallest validation loss, or training loss where there was no validation, counted from 0."""
        if not self.train:
            raise ValueError("best: the curve has no epochs")
        losses = self.validation or self.train
        return min(range(len(losses)), key=lambda epoch: (math.isnan(losses[epoch]), losses[epoch]))

    def __len__(self) -> int:
        return len(self.train)

    @overload
    def __getitem__(self, index: int) -> EpochLoss: ...

    @overload
    def __getitem__(self, index: slice) -> LearningCurve: ...

    def __getitem__(self, index: int | slice) -> EpochLoss | LearningCurve:
        if isinstance(index, slice):
            return LearningCurve(self.train[index], self.validation[index])
        return EpochLoss(self.train[index], self.validation[index] if self.validation else None)


# Layers that know their gradients -------------------------------------------------------------------------------------


class _Layer:
    """A convolution, its weights, and whether a rectifier follows."""

    def __init__(self, name: str, weight_shape: Shape, filters: int, *, biased: bool = True, rectified: bool = False) -> None:
        self.name = name
        self.weight: Array = np.zeros(weight_shape, np.float32)
        self.bias: Array | None = np.zeros(filters, np.float32) if biased else None
        self.activation = "relu" if rectified else None

    @property
    def arrays(self) -> dict[str, Array]:
        """The arrays that training changes, in place, by their names."""
        return {
            f"{self.name}.{which}": array for which, array in (("weight", self.weight), ("bias", self.bias)) if array is not None
        }

    @property
    def _taps(self) -> float:
        """How many products make one number of the result."""
        return float(math.prod(self.weight.shape[1:]))

    def initialise(self, rng: np.random.Generator) -> None:
        """He's: of a variance that keeps the size of signals, of which a rectifier takes half, whatever the depth."""
        gain = 2 if self.activation else 1
        self.weight[...] = rng.standard_normal(self.weight.shape) * math.sqrt(gain / self._taps)

    def forward(self, x: Array) -> Array:
        raise NotImplementedError

    def backward(self, x: Array, y: Array, grad_y: Array, *, first: bool) -> tuple[Array | None, list[Array]]:
        """The gradients of x (None for the first layer, where nobody asks) and of the parameters, in their order.

        What was in `grad_y` is lost.
        """
        if self.activation:
            training.rectified_gradient(grad_y.reshape(-1), y.reshape(-1))
        grads = [self._grad_weight(x, grad_y)]
        if self.bias is not None:
            grads.append(grad.conv2d_bias(grad_y))
        return None if first else self._grad_input(x, grad_y), grads

    def _grad_input(self, x: Array, grad_y: Array) -> Array:
        raise NotImplementedError

    def _grad_weight(self, x: Array, grad_y: Array) -> Array:
        raise NotImplementedError


class _Convolution(_Layer):
    """Halves the picture and mixes its channels."""

    stride = 2
    groups = 1

    @property
    def padding(self) -> int:
        # With k taps of stride 2 this much on both sides halves an even size exactly, whether k is odd or even.
        return (self.weight.shape[3] - 1) // 2

    def forward(self, x: Array) -> Array:
        return functional.conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding, activation=self.activation)

    def _grad_input(self, x: Array, grad_y: Array) -> Array:
        return grad.conv2d_input(x.shape, self.weight, grad_y, stride=self.stride, padding=self.padding, groups=self.groups)

    def _grad_weight(self, x: Array, grad_y: Array) -> Array:
        return grad.conv2d_weight(x, self.weight.shape, grad_y, stride=self.stride, padding=self.padding, groups=self.groups)


class _Depthwise(_Convolution):
    """Halves the picture, every channel for itself."""

    def __init__(self, name: str, channels: int, multiplier: int, kernel_size: int) -> None:
        filters = channels * multiplier
        super().__init__(name, (filters, 1, kernel_size, kernel_size), filters, biased=False)  # the pointwise part has one
        self.groups = channels

    def forward(self, x: Array) -> Array:
        return functional.depthwise_conv2d(
            x, self.weight, self.bias, stride=self.stride, padding=self.padding, activation=self.activation
        )


class _Pointwise(_Convolution):
    """Mixes the channels, every pixel for itself."""

    stride = 1

    def forward(self, x: Array) -> Array:
        return functional.pointwise_conv2d(x, self.weight, self.bias, activation=self.activation)


class _Transposed(_Layer):
    """Doubles the picture."""

    @property
    def _taps(self) -> float:
        channels, _, height, width = self.weight.shape
        return channels * height * width / 4  # a window of every second pixel covers a pixel a quarter as often

    @property
    def _geometry(self) -> dict[str, Any]:
        size = self.weight.shape[3]
        return {"stride": 2, "padding": (size - 1) // 2, "output_padding": size % 2}  # doubles every size exactly

    def forward(self, x: Array) -> Array:
        return functional.conv_transpose2d(x, self.weight, self.bias, activation=self.activation, **self._geometry)

    def _grad_input(self, x: Array, grad_y: Array) -> Array:
        return grad.conv_transpose2d_input(x.shape, self.weight, grad_y, **self._geometry)

    def _grad_weight(self, x: Array, grad_y: Array) -> Array:
        return grad.conv_transpose2d_weight(x, self.weight.shape, grad_y, **self._geometry)


class _Adam:
    """Kingma and Ba's steps, which change the parameters in place."""

    DECAY: ClassVar[tuple[float, float]] = (0.9, 0.999)
    EPSILON: ClassVar[float] = 1e-8

    def __init__(self, parameters: Sequence[Array], learning_rate: float) -> None:
        self.parameters, self.learning_rate, self.steps = parameters, learning_rate, 0
        self.means = [np.zeros_like(parameter) for parameter in parameters]
        self.squares = [np.zeros_like(parameter) for parameter in parameters]

    def step(self, gradients: Sequence[Array]) -> None:
        self.steps += 1
        first, second = self.DECAY
        # Both averages began at zero; these undo what is left of that.
        rate = self.learning_rate / (1 - first**self.steps)
        whole_square = 1 / (1 - second**self.steps)
        for arrays in zip(self.parameters, gradients, self.means, self.squares, strict=True):
            flat = (array.reshape(-1) for array in arrays)
            training.adam_step(*flat, self.DECAY, rate, whole_square, self.EPSILON)


# The network ----------------------------------------------------------------------------------------------------------


class ConvAutoencoder:
    """Learns to press pictures into a small code and to restore them from it.

    Stage i of the encoder is a convolution of stride 2 with ``channels[i]`` filters, so every stage halves the picture; the
    decoder has as many transposed convolutions, with the channels in reverse. Rectifiers stand between the stages of the
    encoder and between those of the decoder; the code and the restored picture may take any value. The network learns from
    its own input: Adam lowers the mean squared error between a picture and its restoration.

    Parameters
    ----------
    in_channels : int
        Channels of the pictures.
    channels : list or tuple of int
        Channels after each stage of the encoder; the last are the code's.
    kernel_size : int
        Taps of every stage each way, odd or even, at least 2.
    separable : bool
        Make the encoder's stages of a depthwise convolution of stride 2, with as many filters a channel as it takes not to
        narrow the stage, and a pointwise one, as MobileNet's are.
    rng : None, int or numpy.random.Generator
        Where the first weights (He's) and the order of the training pictures come from: the same seed and the same pictures
        give the same bits, for any number of threads.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message names it.

    Notes
    -----
    Pictures are float32, (N, in_channels, H, W), with H and W divisible by ``2 ** len(channels)``; they need not be of the
    size that was trained on. Values around 0..1 suit the default learning rate. Many threads may encode and decode at once,
    but not while one trains. A model can be pickled, with the state of its generator; `save` writes the weights alone.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> across = np.linspace(0, 1, 8, dtype=np.float32)
    >>> ramps = np.stack([s * across[:, None] + (1 - s) * across for s in np.linspace(0, 1, 64, dtype=np.float32)])[:, None]
    >>> model = fc.ConvAutoencoder(channels=(8, 2), rng=0)
    >>> curve = model.fit(ramps, epochs=20, progress=False)
    >>> curve.train[-1] < curve.train[0] / 2
    True
    >>> model.encode(ramps).shape, model.reconstruct(ramps).shape
    ((64, 2, 2, 2), (64, 1, 8, 8))
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: Sequence[int] = (16, 8),
        kernel_size: int = 3,
        *,
        separable: bool = False,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self._given: dict[str, Any] = {
            "in_channels": in_channels, "channels": channels, "kernel_size": kernel_size, "separable": separable, "rng": rng
        }  # fmt: skip
        self._rng = _generator(rng)
        self._build(in_channels, channels, kernel_size, separable)
        for layer in self._layers:
            layer.initialise(self._rng)

    def _build(self, in_channels: Any, channels: Any, kernel_size: Any, separable: Any) -> None:
        """Check the arguments and make the layers, of zeros."""
        self.in_channels = whole("in_channels", in_channels, least=1)
        if not isinstance(channels, (list, tuple)):
            raise TypeError(f"channels: got {type(channels).__name__}, expected a list or tuple of integers, one a stage")
        if not channels:
            raise ValueError("channels: got none, expected at least one stage")
        self.channels = tuple(whole("channels", count, least=1) for count in channels)
        self.kernel_size = whole("kernel_size", kernel_size, least=1)
        if self.kernel_size == 1:
            raise ValueError("kernel_size: got 1, expected at least 2: one tap of stride 2 sees a quarter of the pixels")
        if not isinstance(separable, (bool, np.bool_)):
            raise TypeError(f"separable: got {separable!r} of type {type(separable).__name__}, expected True or False")
        self.separable = bool(separable)
        self._encoder = _encoder(self.in_channels, self.channels, self.kernel_size, self.separable)
        self._decoder = _decoder(self.in_channels, self.channels, self.kernel_size)

    def __repr__(self) -> str:
        return (
            f"ConvAutoencoder(in_channels={self.in_channels}, channels={self.channels}, kernel_size={self.kernel_size}, "
            f"separable={self.separable})"
        )

    @property
    def parameters(self) -> int:
        """How many numbers training changes."""
        return sum(array.size for array in self._arrays().values())

    @property
    def weights(self) -> dict[str, Array]:
        """Copies of all weights and biases by name, such as "encoder.0.weight", in the functions' layouts."""
        return {name: array.copy() for name, array in self._arrays().items()}

    # Use ---------------------------------------------------------------------------------------------------------------

    def encode(self, x: Array) -> Array:
        """The code of pictures.

        Parameters
        ----------
        x : ndarray, (N, in_channels, H, W)
            Pictures, float32.

        Returns
        -------
        ndarray, (N, channels[-1], H / 2 ** stages, W / 2 ** stages)
            Their code.

        Raises
        ------
        TypeError
            If x is not an ndarray.
        ValueError
            If its dtype or shape is not as described; among them sizes that cannot be halved that often.
        """
        self._check_pictures("x", x)
        return _through(self._encoder, x)

    def decode(self, z: Array) -> Array:
        """The pictures of a code.

        Parameters
        ----------
        z : ndarray, (N, channels[-1], h, w)
            A code, float32, of any size.

        Returns
        -------
        ndarray, (N, in_channels, h * 2 ** stages, w * 2 ** stages)
            Pictures.

        Raises
        ------
        TypeError
            If z is not an ndarray.
        ValueError
            If its dtype or shape is not as described.
        """
        _check("z", z, self.channels[-1])
        return _through(self._decoder, z)

    def reconstruct(self, x: Array) -> Array:
        """What is left of pictures after they went through the code: ``decode(encode(x))``.

        Parameters
        ----------
        x : ndarray, (N, in_channels, H, W)
            Pictures, float32.

        Returns
        -------
        ndarray of x's shape
            The restored pictures, not clipped to the range of x.

        Raises
        ------
        TypeError, ValueError
            As `encode`.
        """
        return self.decode(self.encode(x))

    transform = encode
    inverse_transform = decode

    # In scikit-learn's pipelines --------------------------------------------------------------------------------------

    def fit_transform(self, x: Array, y: object = None, **keywords: Any) -> Array:
        """Learn to restore pictures, and give their code: ``fit(x, **keywords)``, then ``encode(x)``.

        Parameters
        ----------
        x : ndarray, (N, in_channels, H, W)
            Pictures.
        y : object
            Ignored: there are no labels.
        **keywords
            Of `fit`.

        Returns
        -------
        ndarray, (N, channels[-1], H / 2 ** stages, W / 2 ** stages)
            The code.

        Raises
        ------
        TypeError, ValueError
            As `fit`.
        """
        self.fit(x, **keywords)
        return self.encode(x)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments that the network was made with, by name; `deep` means nothing."""
        return dict(self._given)

    def set_params(self, **arguments: Any) -> ConvAutoencoder:
        """Make the network anew, with some arguments changed: what it learnt is lost.

        Raises
        ------
        TypeError, ValueError
            As the constructor; also if there is no such argument.
        """
        unknown = sorted(set(arguments) - set(self._given))
        if unknown:
            raise ValueError(f"{unknown[0]}: no argument of ConvAutoencoder, expected one of {', '.join(self._given)}")
        if arguments:
            other = ConvAutoencoder(**(self._given | arguments))  # first: an argument may be refused
            self.__dict__.update(other.__dict__)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        """Codes can be had at any time, if only of random weights."""
        return True

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of an estimator."""
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        images = InputTags(two_d_array=False, three_d_array=False)
        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(preserves_dtype=["float32"]),
            input_tags=images,
        )

    # Training ----------------------------------------------------------------------------------------------------------

    def fit(
        self,
        x: Array,
        epochs: Any = EPOCHS,
        batch_size: int = 32,
        learning_rate: float = 3e-3,
        validation: Array | None = None,
        progress: bool | str = True,
        *,
        callback: Callable[[int, float, float | None], object] | None = None,
        patience: int | None = None,
        y: object = None,
    ) -> LearningCurve:
        """Learn to restore pictures; called again, it goes on from where it was.

        Parameters
        ----------
        x : ndarray, (N, in_channels, H, W)
            Pictures to learn from, float32 and finite; a memory map is read batch by batch.
        epochs : int
            How often to go through all of them. As the last step of a scikit-learn pipeline a network gets labels, or None,
            in this place: None, or what has a length but a string, is taken for `y`, and 10 epochs are made.
        batch_size : int
            Pictures a step; the last step of an epoch takes what is left.
        learning_rate : float
            Adam's.
        validation : ndarray, (M, in_channels, H, W), optional
            Pictures not to learn from, whose error is taken after every epoch.
        progress : bool or "always"
            Show a bar on standard error, by rich or tqdm, whichever is installed: True where that is a terminal, "always"
            also elsewhere.
        callback : callable, optional
            Called after every epoch as ``callback(epoch, train_loss, validation_loss)``, epochs counted from 0, the last None
            without `validation`. What it returns is ignored; what it raises ends the training.
        patience : int, optional
            Stop after this many epochs in a row without a new least loss - that of `validation`, or else the training loss -
            and at the end, stopped or not, go back to the weights that the best epoch ended with.
        y : object
            Ignored: there are no labels.

        Returns
        -------
        LearningCurve
            The losses of every epoch: lists ``curve.train`` and ``curve.validation``; ``curve[i]`` is a pair.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described; the message names it, and nothing was learnt.
        """
        labels = hasattr(epochs, "__len__") and not isinstance(epochs, str)  # of any library's kind
        epochs = EPOCHS if epochs is None or labels else epochs
        epochs, batch_size = whole("epochs", epochs, least=1), whole("batch_size", batch_size, least=1)
        learning_rate = _positive("learning_rate", learning_rate)
        patience = None if patience is None else whole("patience", patience, least=1)
        if callback is not None and not callable(callback):
            raise TypeError(f"callback: got {type(callback).__name__}, expected a function")
        if not isinstance(progress, (bool, np.bool_)) and not (isinstance(progress, str) and progress == "always"):
            raise ValueError(f"progress: got {progress!r}, expected True, False or 'always'")
        self._check_lesson("x", x)
        if validation is not None:
            self._check_lesson("validation", validation)

        return self._train(x, epochs, batch_size, learning_rate, validation, progress, callback, patience)

    def _train(
        self, x: Array, epochs: int, batch_size: int, learning_rate: float, validation: Array | None, progress: bool | str,
        callback: Callable[[int, float, float | None], object] | None, patience: int | None,
    ) -> LearningCurve:  # fmt: skip
        """What `fit` does once its arguments are checked."""
        arrays = list(self._arrays().values())
        adam = _Adam(arrays, learning_rate)
        curve = LearningCurve()
        best, best_arrays = math.inf, [array.copy() for array in arrays] if patience else []
        waited = 0
        with _bar(progress, epochs * math.ceil(len(x) / batch_size)) as advance:
            for epoch in range(epochs):
                curve.train.append(self._learn(x, batch_size, adam, lambda: advance(_words(curve, epochs))))
                if validation is not None:
                    curve.validation.append(self._loss(validation, batch_size))
                watched = (curve.validation or curve.train)[-1]
                waited += 1
                if patience and watched < best:
                    best, waited, best_arrays = watched, 0, [array.copy() for array in arrays]
                advance(_words(curve, epochs), 0)
                if callback is not None:
                    callback(epoch, *curve[epoch])
                if waited == patience:
                    break
        for array, kept in zip(arrays, best_arrays, strict=False):  # none are kept without patience
            array[...] = kept
        return curve

    def _step(self, x: Array, adam: _Adam) -> float:
        """Learn from one batch; the sum of squared errors before."""
        squares, gradients = self._gradients(x)
        adam.step(gradients)
        return squares

    def _learn(self, x: Array, batch_size: int, adam: _Adam, advance: Callable[[], None]) -> float:
        """One epoch; the mean squared error on the way."""
        order = self._rng.permutation(len(x))
        total = 0.0
        for start in range(0, len(x), batch_size):
            # In order of memory: which pictures make a batch matters, not their order in it.
            total += self._step(x[np.sort(order[start : start + batch_size])], adam)
            advance()
        return total / x.size

    def _gradients(self, x: Array) -> tuple[float, list[Array]]:
        """The sum of squared errors, and the gradients of their mean with respect to all parameters, in their order."""
        layers = self._layers
        signals = [x]
        for layer in layers:
            signals.append(layer.forward(signals[-1]))
        restored, wanted = signals[-1].reshape(-1), np.ascontiguousarray(x, np.float32).reshape(-1)
        above = np.empty_like(restored)
        training.error_gradient(restored, wanted, above)
        gradient: Array | None = above.reshape(x.shape)
        gradients: list[Array] = []
        for i in reversed(range(len(layers))):
            assert gradient is not None  # only the first layer's backward leaves it out
            gradient, ours = layers[i].backward(signals[i], signals[i + 1], gradient, first=i == 0)
            gradients = ours + gradients
        return training.squared_error(restored, wanted), gradients

    def _loss(self, x: Array, batch_size: int) -> float:
        """Mean squared error, without learning, in as little memory as learning takes."""
        total = 0.0
        for start in range(0, len(x), batch_size):
            batch = x[start : start + batch_size]
            restored, wanted = _through(self._layers, batch), np.ascontiguousarray(batch, np.float32)
            total += training.squared_error(restored.reshape(-1), wanted.reshape(-1))
        return total / x.size

    # Files -------------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a file in NumPy's npz format.

        Parameters
        ----------
        path : str or path
            Where to; taken as it is, no ending is added.
        """
        described = {
            "format": np.array(FILE_FORMAT),
            "version": np.array(FILE_VERSION),
            "in_channels": np.array(self.in_channels),
            "channels": np.array(self.channels),
            "kernel_size": np.array(self.kernel_size),
            "separable": np.array(self.separable),
        }
        with open(os.fspath(path), "wb") as file:
            np.savez(file, **described, **self._arrays())  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, rng: int | np.random.Generator | None = None) -> ConvAutoencoder:
        """Read a network that `save` wrote. Nothing in a file is ever run.

        Parameters
        ----------
        path : str or path
            The file.
        rng : None, int or numpy.random.Generator
            For the order of pictures in further training.

        Returns
        -------
        ConvAutoencoder
            A network that gives the same bits.

        Raises
        ------
        OSError
            If the file cannot be opened.
        ValueError
            If it is not a network that this version can read.
        """
        model = cls.__new__(cls)
        model._rng = _generator(rng)
        with open(os.fspath(path), "rb") as file:
            try:
                with np.load(file, allow_pickle=False) as stored:
                    held = {name: stored[name] for name in stored.files}
            except Exception as error:  # what a broken file makes zipfile, zlib and NumPy raise has no end
                raise ValueError(f"path: {os.fspath(path)!r} is not a saved ConvAutoencoder ({error})") from error
        if str(held.pop("format", "")) != FILE_FORMAT:
            raise ValueError(f"path: {os.fspath(path)!r} is not a saved ConvAutoencoder: it does not say {FILE_FORMAT!r}")
        version = held.pop("version", np.array(None)).tolist()
        if version != FILE_VERSION:
            raise ValueError(f"path: {os.fspath(path)!r} has version {version}, this fastconv reads version {FILE_VERSION}")
        names = ("in_channels", "channels", "kernel_size", "separable")
        try:
            described = [held.pop(name).tolist() for name in names]
            if np.size(described[1]) > len(held):
                raise ValueError(f"of {np.size(described[1]):,} stages it holds {len(held)} arrays")
            model._build(*described)
        except (KeyError, TypeError, ValueError, MemoryError) as error:
            raise ValueError(f"path: {os.fspath(path)!r} is not a whole saved ConvAutoencoder: {error}") from error
        model._given = {name: getattr(model, name) for name in names} | {"rng": rng}
        arrays = model._arrays()
        expected = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        found = {name: (array.shape, array.dtype) for name, array in held.items()}
        if found != expected:
            odd = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            raise ValueError(f"path: {os.fspath(path)!r} is not a whole saved ConvAutoencoder: {', '.join(odd)} differ")
        for name, array in arrays.items():
            array[...] = held[name]
        return model

    # Parts -------------------------------------------------------------------------------------------------------------

    @property
    def _layers(self) -> list[_Layer]:
        return self._encoder + self._decoder

    def _arrays(self) -> dict[str, Array]:
        return {name: array for layer in self._layers for name, array in layer.arrays.items()}

    def _check_pictures(self, name: str, x: Any) -> None:
        _check(name, x, self.in_channels)
        step = 2 ** len(self.channels)
        if any(size % step for size in x.shape[2:]):
            raise ValueError(
                f"{name}: got pictures of {x.shape[2]} x {x.shape[3]}, expected sizes divisible by {step}: "
                f"each of {len(self.channels)} stages halves them"
            )

    def _check_lesson(self, name: str, x: Any) -> None:
        self._check_pictures(name, x)
        if not len(x):
            raise ValueError(f"{name}: got no pictures, expected at least one")
        if not all(np.isfinite(picture).all() for picture in x):
            raise ValueError(f"{name}: got NaN or infinity, expected finite numbers to learn from")


def _encoder(in_channels: int, channels: Shape, kernel_size: int, separable: bool) -> list[_Layer]:
    layers: list[_Layer] = []
    for stage, (before, after) in enumerate(itertools.pairwise((in_channels, *channels))):
        name, rectified = f"encoder.{stage}", stage < len(channels) - 1
        if separable:
            multiplier = -(-after // before)
            layers += [
                _Depthwise(f"{name}.depthwise", before, multiplier, kernel_size),
                _Pointwise(f"{name}.pointwise", (after, before * multiplier, 1, 1), after, rectified=rectified),
            ]
        else:
            layers.append(_Convolution(name, (after, before, kernel_size, kernel_size), after, rectified=rectified))
    return layers


def _decoder(in_channels: int, channels: Shape, kernel_size: int) -> list[_Layer]:
    widths = (*channels[::-1], in_channels)
    return [
        _Transposed(f"decoder.{stage}", (before, after, kernel_size, kernel_size), after, rectified=stage < len(channels) - 1)
        for stage, (before, after) in enumerate(itertools.pairwise(widths))
    ]


def _through(layers: Sequence[_Layer], x: Array) -> Array:
    for layer in layers:
        x = layer.forward(x)
    return x


# Arguments ------------------------------------------------------------------------------------------------------------


def _check(name: str, x: Any, channels: int) -> None:
    functional.check_arrays(**{name: x})
    if cuda.is_device_array(x):
        raise TypeError(f"{name}: got a device array, expected a NumPy array: ConvAutoencoder learns and computes on the CPU")
    if x.dtype.name != "float32":
        dtype_of(name, x)  # has better advice for what is no such number at all
        raise ValueError(f"{name}: got dtype {x.dtype.name}, expected float32; convert with {name}.astype(np.float32)")
    if x.ndim != 4:
        raise ValueError(f"{name}: got {x.ndim} dimensions {x.shape}, expected 4: (N, {channels}, H, W)")
    if x.shape[1] != channels:
        raise ValueError(f"{name}: got {x.shape[1]} channels in shape {x.shape}, expected {channels}")
    if min(x.shape[2:]) < 1:
        raise ValueError(f"{name}: got shape {x.shape}, expected sizes of at least 1")


def _generator(rng: Any) -> np.random.Generator:
    if rng is None or isinstance(rng, np.random.Generator):
        return np.random.default_rng(rng)
    try:
        return np.random.default_rng(whole("rng", rng, least=0))
    except TypeError:
        raise TypeError(
            f"rng: got {rng!r} of type {type(rng).__name__}, expected None, an integer or a numpy.random.Generator"
        ) from None


def _positive(name: str, value: Any) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: got {value!r} of type {type(value).__name__}, expected a number")
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: got {value}, expected a positive number")
    return float(value)


# The bar --------------------------------------------------------------------------------------------------------------


def _words(curve: LearningCurve, epochs: int) -> str:
    done = len(curve)
    text = f"epoch {min(done + 1, epochs)} of {epochs}"
    if done:
        train, validation = curve[-1]
        text += f", loss {train:.4g}" + ("" if validation is None else f", validation {validation:.4g}")
    return text


@contextlib.contextmanager
def _bar(progress: Any, steps: int) -> Iterator[Callable[..., None]]:
    """A progress bar's ``advance(text, by=1)``, or one that does nothing."""
    if progress and (progress == "always" or (sys.stderr is not None and sys.stderr.isatty())):
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        except ImportError:
            pass
        else:
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            with Progress(*columns, console=Console(stderr=True)) as bar:
                task = bar.add_task("", total=steps)
                yield lambda text, by=1: bar.update(task, advance=by, description=text)
            return
        try:
            from tqdm import tqdm
        except ImportError:
            pass
        else:
            with tqdm(total=steps) as meter:

                def advance(text: str, by: int = 1) -> None:
                    meter.set_description(text, refresh=False)
                    meter.update(by)

                yield advance
            return
    yield lambda text, by=1: None
