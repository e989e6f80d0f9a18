"""A convolutional autoencoder: an encoder that compresses, a decoder that restores, trained without labels.

    code = encoder(x)           strided convolutions, each halving the picture, relu between them
    restored = decoder(code)    transposed convolutions, each doubling it, relu between them
    loss = mean((restored - x) ** 2)

Everything is computed by the package's own layers and their gradients; Adam (Kingma and Ba, 2014) takes the steps. The same
seed gives the same bits, whatever the number of threads.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fastconv import functional, grad
from fastconv.problem import whole

Array = np.ndarray[Any, Any]
FORMAT = "fastconv autoencoder 1"  # of the files of `save`
FIRST_DECAY, SECOND_DECAY, SMALL = 0.9, 0.999, 1e-8  # Adam's, as its authors propose


class LearningCurve(NamedTuple):
    """Mean squared errors, one an epoch; `validation` is empty where there was none."""

    training: list[float]
    validation: list[float]


class ConvAutoencoder:
    """Compress pictures to codes of half the size a stage, and restore them.

    Parameters
    ----------
    in_channels : int
        Channels of the pictures.
    channels : tuple of int
        Channels after each stage of the encoder; the code has the last of them.
    kernel_size : int
        Odd, of every layer.
    separable : bool
        Encode with depthwise separable layers.
    rng : None, int or numpy.random.Generator
        Where the first weights and the order of the pictures come from.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message names it.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> model = fc.ConvAutoencoder(rng=0)
    >>> curve = model.fit(np.ones((8, 1, 8, 8), np.float32), epochs=2, progress=False)
    >>> curve.training[1] < curve.training[0], model.encode(np.ones((1, 1, 8, 8), np.float32)).shape
    (True, (1, 8, 2, 2))
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: tuple[int, ...] = (16, 8),
        kernel_size: int = 3,
        *,
        separable: bool = False,
        rng: Any = None,
    ) -> None:
        self.in_channels = whole("in_channels", in_channels, 1)
        if not isinstance(channels, (tuple, list)):
            raise TypeError(f"channels: got {channels!r}, expected a tuple of integers")
        self.channels = tuple(whole("channels", c, 1) for c in channels)
        if not self.channels:
            raise ValueError("channels: got none, expected at least one stage")
        self.kernel_size = whole("kernel_size", kernel_size, 1)
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: got {kernel_size}, expected an odd number")
        if not isinstance(separable, bool):
            raise TypeError(f"separable: got {separable!r}, expected a bool")
        self.separable = separable
        self._rng = np.random.default_rng(rng)
        self.weights = dict(self._first_weights())

    def _first_weights(self) -> Iterator[tuple[str, Array]]:
        """He's: normal numbers of variance 2 / inputs of a sum."""
        widths, k = (self.in_channels, *self.channels), self.kernel_size

        def normal(shape: tuple[int, ...], inputs: float) -> Array:
            return (self._rng.standard_normal(shape) * np.sqrt(2 / inputs)).astype(np.float32)

        for stage, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
            if self.separable:
                yield f"depthwise {stage}", normal((before, 1, k, k), k * k)
                yield f"encoder {stage}", normal((after, before, 1, 1), before)
            else:
                yield f"encoder {stage}", normal((after, before, k, k), before * k * k)
            yield f"encoder bias {stage}", np.zeros(after, np.float32)
        for stage, (before, after) in enumerate(zip(widths[::-1], widths[-2::-1], strict=False)):
            yield f"decoder {stage}", normal((before, after, k, k), before * k * k / 4)  # a stride of 2 spreads a sum over 4 pixels
            yield f"decoder bias {stage}", np.zeros(after, np.float32)

    # Forward and backward --------------------------------------------------------------------------------------------

    @property
    def _stages(self) -> range:
        return range(len(self.channels))

    def _encoded(self, x: Array, seen: list[Array]) -> Array:
        """The code; the input of every layer is added to `seen`."""
        w, pad = self.weights, self.kernel_size // 2
        for stage in self._stages:
            bias, activation = w[f"encoder bias {stage}"], "relu" if stage < self._stages[-1] else None
            seen.append(x)
            if self.separable:
                x = functional.depthwise_conv2d(x, w[f"depthwise {stage}"], stride=2, padding=pad)
                seen.append(x)
                x = functional.pointwise_conv2d(x, w[f"encoder {stage}"], bias, activation=activation)
            else:
                x = functional.conv2d(x, w[f"encoder {stage}"], bias, stride=2, padding=pad, activation=activation)
        return x

    def _decoded(self, z: Array, seen: list[Array]) -> Array:
        w = self.weights
        for stage in self._stages:
            seen.append(z)
            z = functional.conv_transpose2d(
                z, w[f"decoder {stage}"], w[f"decoder bias {stage}"], **self._doubling,
                activation="relu" if stage < self._stages[-1] else None,
            )  # fmt: skip
        return z

    @property
    def _doubling(self) -> dict[str, int]:
        # (size - 1) * 2 - 2 * (k // 2) + k - 1 + 1 + 1 = 2 * size for every odd kernel; a kernel of 1 included.
        return {"stride": 2, "padding": self.kernel_size // 2, "output_padding": 1}

    def _loss_and_gradients(self, x: Array) -> tuple[float, dict[str, Array]]:
        """The mean squared error of a batch, and its gradient with respect to every weight."""
        seen: list[Array] = []
        restored = self._decoded(self._encoded(x, seen), seen)
        error = restored - x
        loss = float(np.mean(np.square(error, dtype=np.float64)))
        above, w, gradients = error * np.float32(2 / error.size), self.weights, {}
        for stage in reversed(self._stages):
            z, weight = seen.pop(), w[f"decoder {stage}"]
            gradients[f"decoder {stage}"] = grad.conv_transpose2d_weight(z, weight.shape, above, **self._doubling)
            gradients[f"decoder bias {stage}"] = grad.conv_transpose2d_bias(above)
            above = grad.conv_transpose2d_input(z.shape, weight, above, **self._doubling)
            if stage > 0:  # z is the relu of the stage before; the code has none
                above = above * (z > 0)
        for stage in reversed(self._stages):
            weight, pad = w[f"encoder {stage}"], self.kernel_size // 2
            steps = {"stride": 1, "padding": 0} if self.separable else {"stride": 2, "padding": pad}
            x = seen.pop()
            gradients[f"encoder {stage}"] = grad.conv2d_weight(x, weight.shape, above, **steps)
            gradients[f"encoder bias {stage}"] = grad.conv2d_bias(above)
            if self.separable or stage > 0:
                above = grad.conv2d_input(x.shape, weight, above, **steps)
            if self.separable:
                x, weight = seen.pop(), w[f"depthwise {stage}"]
                options = {"stride": 2, "padding": pad, "groups": weight.shape[0]}
                gradients[f"depthwise {stage}"] = grad.conv2d_weight(x, weight.shape, above, **options)
                if stage > 0:
                    above = grad.conv2d_input(x.shape, weight, above, **options)
            if stage > 0:
                above = above * (x > 0)
        return loss, gradients

    # The public calls ------------------------------------------------------------------------------------------------

    def encode(self, x: Array) -> Array:
        """The codes (N, channels[-1], H / 2**stages, W / 2**stages) of pictures (N, C, H, W)."""
        self._check("x", x)
        return self._encoded(x, [])

    def decode(self, z: Array) -> Array:
        """The pictures of codes."""
        functional.check_arrays(z=z)
        if z.dtype != np.float32 or z.ndim != 4 or z.shape[1] != self.channels[-1]:
            raise ValueError(f"z: got {z.dtype} {z.shape}, expected float32 (N, {self.channels[-1]}, H, W)")
        return self._decoded(z, [])

    def reconstruct(self, x: Array) -> Array:
        """The pictures, compressed and restored."""
        return self.decode(self.encode(x))

    transform = encode
    inverse_transform = decode

    def fit(
        self,
        x: Array,
        epochs: int = 10,
        batch_size: int = 32,
        learning_rate: float = 3e-3,
        validation: Array | None = None,
        progress: bool = True,
        *,
        callback: Callable[[int, float, float | None], Any] | None = None,
        patience: int | None = None,
    ) -> LearningCurve:
        """Train on pictures, against themselves.

        Parameters
        ----------
        x : ndarray, (N, C, H, W), float32
            Pictures whose sizes can be halved once a stage.
        epochs, batch_size : int
            How often every picture is seen; pictures a step.
        learning_rate : float
            Adam's.
        validation : ndarray, optional
            Pictures whose error is measured after every epoch.
        progress : bool
            Show a bar on a terminal (needs rich).
        callback : callable, optional
            Called after every epoch with its number, the training error and the validation error (or None).
        patience : int, optional
            Stop after so many epochs without a better error, and go back to the best weights.

        Returns
        -------
        LearningCurve
            The errors, one an epoch.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described; the message names it.
        """
        self._check("x", x)
        if len(x) == 0:
            raise ValueError("x: got no pictures, expected at least one")
        if validation is not None:
            self._check("validation", validation)
        epochs, batch_size = whole("epochs", epochs, 0), whole("batch_size", batch_size, 1)
        if isinstance(learning_rate, bool) or not isinstance(learning_rate, (int, float)):
            raise TypeError(f"learning_rate: got {learning_rate!r}, expected a number")
        if not 0 < learning_rate < np.inf:
            raise ValueError(f"learning_rate: got {learning_rate}, expected a positive number")
        if patience is not None:
            patience = whole("patience", patience, 1)
        curve, steps, best, waited = LearningCurve([], []), 0, np.inf, 0
        kept = dict(self.weights)
        moments = {name: (np.zeros_like(w), np.zeros_like(w)) for name, w in self.weights.items()}
        with _progress(progress, epochs) as advance:
            for epoch in range(epochs):
                total, order = 0.0, self._rng.permutation(len(x))
                for first in range(0, len(x), batch_size):
                    batch = np.ascontiguousarray(x[order[first : first + batch_size]])
                    loss, gradients = self._loss_and_gradients(batch)
                    steps, total = steps + 1, total + loss * len(batch)
                    self._step(gradients, moments, learning_rate, steps)
                curve.training.append(total / len(x))
                held_out = None
                if validation is not None:
                    held_out = float(np.mean(np.square(self.reconstruct(validation) - validation, dtype=np.float64)))
                    curve.validation.append(held_out)
                if callback is not None:
                    callback(epoch, curve.training[-1], held_out)
                advance(curve.training[-1])
                error = curve.training[-1] if held_out is None else held_out
                if error < best:
                    best, waited, kept = error, 0, dict(self.weights)
                else:
                    waited += 1
                if patience is not None and waited >= patience:
                    self.weights = kept
                    break
        return curve

    def _step(self, gradients: dict[str, Array], moments: dict[str, tuple[Array, Array]], rate: float, steps: int) -> None:
        """One step of Adam; the weights are new arrays, so that older ones can be kept."""
        scale = np.float32(rate * np.sqrt(1 - SECOND_DECAY**steps) / (1 - FIRST_DECAY**steps))
        for name, gradient in gradients.items():
            first, second = moments[name]
            first += np.float32(1 - FIRST_DECAY) * (gradient - first)
            second += np.float32(1 - SECOND_DECAY) * (gradient * gradient - second)
            self.weights[name] = self.weights[name] - scale * first / (np.sqrt(second) + np.float32(SMALL))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file, in NumPy's npz format without pickles."""
        sizes = np.array([self.in_channels, self.kernel_size, int(self.separable), *self.channels], np.int64)
        with open(path, "wb") as file:
            np.savez(file, format=np.array(FORMAT), sizes=sizes, **self.weights)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ConvAutoencoder:
        """Read a model that `save` wrote.

        Raises
        ------
        ValueError
            If the file is not one.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                held = {name: file[name] for name in file.files}
            if str(held.pop("format")) != FORMAT:
                raise ValueError("another format")
            in_channels, kernel_size, separable, *channels = map(int, held.pop("sizes"))
            model = cls(in_channels, tuple(channels), kernel_size, separable=bool(separable))
            if {n: (w.shape, w.dtype) for n, w in held.items()} != {n: (w.shape, w.dtype) for n, w in model.weights.items()}:
                raise ValueError("other weights")
        except FileNotFoundError:
            raise
        except Exception as error:  # whatever a foreign file makes of it
            raise ValueError(f"path: {os.fspath(path)!r} is not a model of {FORMAT!r} ({error})") from None
        model.weights = held
        return model

    def _check(self, name: str, x: Array) -> None:
        functional.check_arrays(**{name: x})
        if x.dtype != np.float32 or x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"{name}: got {x.dtype} {x.shape}, expected float32 (N, {self.in_channels}, H, W)")
        fraction = 2 ** len(self.channels)
        if any(size < 1 or size % fraction for size in x.shape[2:]):
            raise ValueError(f"{name}: got pictures of {x.shape[2:]}, expected sizes that can be halved {len(self.channels)} times")


@contextlib.contextmanager
def _progress(wanted: bool, epochs: int) -> Iterator[Callable[[float], None]]:
    """What to call after an epoch: a bar where there is a terminal and rich to draw it."""
    if wanted and sys.stderr.isatty():
        with contextlib.suppress(ImportError):
            from rich.console import Console
            from rich.progress import Progress

            with Progress(console=Console(stderr=True)) as bar:
                task = bar.add_task("training", total=epochs)
                yield lambda loss: bar.update(task, advance=1, description=f"error {loss:.5f}")
            return
    yield lambda loss: None
