"""Six kinds of layers on a photograph: what they draw, what they cost, and how near the plain NumPy result they come.

The six are those of the article that the package follows: standard, pointwise, depthwise, depthwise separable and atrous
convolution, and an autoencoder. `python -m fastconv demo` prints a table, writes one figure, and measures the article's claim: what
depthwise separable blocks save of a standard layer's operations, and how much of that becomes speed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import fastconv as fc
from fastconv.bench.article import Claim, article
from fastconv.bench.layers import AnyProblem, layer
from fastconv.bench.report import Console, time_text
from fastconv.bench.results import check_picture
from fastconv.bench.timing import best_time

Array = np.ndarray[Any, Any]

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue (ITU-R BT.601)
FILTERS_3 = {
    "vertical edges": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "horizontal edges": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
    "outlines": [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]],
    "sharpen": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
    "blur": [[1 / 9] * 3] * 3,
}
PATCH = 32  # the autoencoder's pictures
MOST_EPOCHS = 100  # a fast machine learns no more in the rest of its time


@dataclass
class Row:
    """One line of the table; `error` is the largest difference from the reference."""

    system: str
    name: str
    x_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    parameters: int
    operations: int
    seconds: float
    error: float

    def cells(self) -> list[str]:
        """As text."""
        return [
            self.system,
            self.name,
            "x".join(map(str, self.x_shape)),
            "x".join(map(str, self.out_shape)),
            f"{self.parameters:,}",
            f"{self.operations / 1e6:,.2f}",
            time_text(self.seconds),
            f"{self.operations / self.seconds / 1e9:.1f}",
            f"{self.error:.1e}",
        ]


COLUMNS = ("system", "layer", "input", "output", "parameters", "MFLOP", "time", "GFLOP/s", "largest difference")


@dataclass
class System:
    """What one kind of layer did: rows for the table, notes below it, panels (title, picture or bars) for the figure."""

    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    panels: list[tuple[str, Any]] = field(default_factory=list)


class Runner:
    """Runs functions of fastconv beside their references and keeps what the table needs."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds  # of timing, a layer

    def __call__(self, system: System, name: str, function: str, x: Array, *arrays: Array | None, **keywords: Any) -> Array:
        """The result of `fc.<function>(x, *arrays, **keywords)`, after adding its row to the system."""
        result = getattr(fc, function)(x, *arrays, **keywords)
        expected = getattr(fc.reference, function)(x, *arrays, **keywords)
        problem: AnyProblem = fc.explain(getattr(fc, function), x, *arrays, **keywords).problem
        made = layer(problem, *arrays)
        out = np.empty_like(result)
        seconds = best_time(lambda: made(x, out), self.seconds)
        error = float(np.abs(result - expected).max())
        system.rows.append(Row(system.title, name, x.shape, result.shape, problem.parameters, problem.operations, seconds, error))
        return result


# The pictures and the filters ----------------------------------------------------------------------------------------


def photograph(path: str | Path | None = None, size: int = 512) -> Array:
    """The largest square in the middle of a picture, as float32 (size, size, 3) from 0 to 1."""
    from skimage import data

    if path is None:
        picture = data.astronaut()  # lies in scikit-image's wheel
    else:
        from PIL import Image

        with Image.open(path) as opened:
            picture = np.asarray(opened.convert("RGB"))
    height, width, _ = picture.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resized(picture[top : top + side, left : left + side].astype(np.float32) / 255, size)


def resized(picture: Array, size: int) -> Array:
    """A square picture in another size."""
    from skimage.transform import resize

    small = resize(picture, (size, size), anti_aliasing=True, mode="reflect")
    return np.ascontiguousarray(small, np.float32)


def channels_first(picture: Array) -> Array:
    """(H, W, C) as (C, H, W), contiguous."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1))


def of_luminance(filters: Any) -> Array:
    """Filters (OC, KH, KW) of a grey picture as filters (OC, 3, KH, KW) of a coloured one."""
    spatial = np.asarray(filters, np.float32)
    return spatial[:, None] * LUMINANCE[:, None, None]


def gabor_bank(count: int, size: int = 5) -> Array:
    """Filters (count, size, size) that find waves of several directions, lengths and phases, each of norm 1."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    envelope = np.exp(-(x**2 + y**2) / (2 * (size / 3) ** 2))
    bank = []
    for i in range(count):
        angle, wave, phase = np.pi * (i % 8) / 8, 3.0 + i // 16, np.pi / 2 * (i // 8 % 2)
        bank.append(envelope * np.cos(2 * np.pi / wave * (x * np.cos(angle) + y * np.sin(angle)) + phase))
    made = np.stack(bank)
    return (made / np.sqrt((made**2).sum(axis=(1, 2), keepdims=True))).astype(np.float32)


def gaussian(size: int, sigma: Any) -> Array:
    """Smoothing filters of sum 1, one for each sigma."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    bell = np.exp(-(x**2 + y**2) / (2 * np.asarray(sigma, float)[..., None, None] ** 2))
    return (bell / bell.sum(axis=(-2, -1), keepdims=True)).astype(np.float32)


# The six systems -----------------------------------------------------------------------------------------------------


def standard(photo: Array, run: Runner) -> System:
    """relu(sum_c conv(I_c, W_c) + B): 3x3 and 5x5 filters, and a bias for every pixel of the result."""
    system = System("standard")
    x = resized(photo, 128)
    middle = gaussian(5, 1.0)
    spike = np.zeros((5, 5), np.float32)
    spike[2, 2] = 1
    filters_5 = {
        "soft focus": middle,
        "strong outlines": 6 * (gaussian(5, 0.7) - gaussian(5, 1.6)),
        "unsharp mask": spike + 1.5 * (spike - middle),
    }
    for size, filters in ((3, FILTERS_3), (5, filters_5)):
        out = 128 - size + 1
        y, x_axis = np.linspace(-1, 1, out)[:, None], np.linspace(-1, 1, out)
        vignette = (-0.3 * (x_axis**2 + y**2)).astype(np.float32)  # the bias map: darker towards the corners
        bias = np.repeat(vignette[:, :, None], len(filters), axis=2)
        weight = of_luminance(np.stack([np.asarray(f, np.float32) for f in filters.values()]))
        name = f"conv2d {size}x{size}, {len(filters)} filters, bias map"
        result = run(system, name, "conv2d", x, weight, bias, activation="relu", data_format="channels_last")
        if size == 3:
            system.panels += [("photo, 128 x 128 x 3", x), (f"bias map, {out} x {out}", vignette)]
        shown = list(filters) if size == 5 else ["vertical edges", "outlines", "sharpen"]
        system.panels += [(f"{size}x{size}: {f}", result[:, :, list(filters).index(f)]) for f in shown]
    return system


def pointwise(photo: Array, run: Runner) -> System:
    """A (28, 28, 192) input and 32 filters of 1x1: the principal components of what a filter bank sees."""
    system = System("pointwise")
    small = resized(photo, 28)
    bank = np.tile(gabor_bank(64), (3, 1, 1))[:, None]  # the same 64 for each colour
    seen = fc.depthwise_conv2d(small, bank, padding="same", padding_mode="symmetric", data_format="channels_last")
    columns = seen.reshape(-1, 192).astype(np.float64)
    variances, axes = np.linalg.eigh(np.cov(columns.T))
    weight = np.ascontiguousarray(axes[:, ::-1][:, :32].T, np.float32)
    result = run(system, "pointwise_conv2d 192 to 32", "pointwise_conv2d", seen, weight, data_format="channels_last")
    kept = variances[::-1][:32].sum() / variances.sum()
    system.notes.append(f"pointwise: 32 mixtures of 192 channels keep {kept:.1%} of their variance")
    system.panels = [("photo, 28 x 28 x 3", small)]
    system.panels += [(f"channel {i + 1} of 192", seen[:, :, i]) for i in (0, 70, 140)]
    system.panels += [(f"mixture {i + 1} of 32", result[:, :, i]) for i in (0, 1, 2, 3)]
    return system


def depthwise(photo: Array, run: Runner) -> System:
    """Every channel has its own filter, and none mixes."""
    system = System("depthwise")
    x = channels_first(resized(photo, 128))
    names = ("vertical edges", "sharpen", "horizontal edges")
    weight = np.array([FILTERS_3[name] for name in names], np.float32)[:, None]
    result = run(system, "depthwise_conv2d 3x3", "depthwise_conv2d", x, weight, padding="same", activation="relu")
    system.panels = [("photo, 3 x 128 x 128", x.transpose(1, 2, 0))]
    for colour, name, before, after in zip(("red", "green", "blue"), names, x, result, strict=True):
        system.panels += [(colour, before), (f"{colour}: {name}", after)]
    system.panels.append(("together", np.clip(result.transpose(1, 2, 0), 0, 1)))
    return system


def separable(photo: Array, run: Runner) -> System:
    """A depthwise separable layer made from a standard one: near its result for a fraction of its operations."""
    system = System("separable")
    channels = filters = 64
    grey = (resized(photo, 64) @ LUMINANCE)[None]
    seen = fc.conv2d(grey, gabor_bank(channels)[:, None], padding="same", padding_mode="symmetric", activation="relu")
    rng = np.random.default_rng(0)
    mixture = rng.standard_normal((filters, channels)).astype(np.float32) / channels**0.5
    sharpness = rng.uniform(0.7, 1.4, (filters, channels))
    weight = np.ascontiguousarray(mixture[:, :, None, None] * gaussian(3, sharpness))
    # The nearest product of one spatial filter and one mixture a channel: the first singular vectors.
    left, size, right = np.linalg.svd(weight.transpose(1, 0, 2, 3).reshape(channels, filters, 9), full_matrices=False)
    spatial = np.ascontiguousarray(right[:, 0].reshape(channels, 1, 3, 3), np.float32)
    mixing = np.ascontiguousarray((left[:, :, 0] * size[:, :1]).T, np.float32)
    whole = run(system, "conv2d 3x3, 64 to 64", "conv2d", seen, weight, padding="same")
    parts = run(system, "separable_conv2d 3x3, 64 to 64", "separable_conv2d", seen, spatial, mixing, padding="same")
    one, two = system.rows
    formula = (9 + filters) / (9 * filters)
    system.notes.append(
        f"separable: {two.operations / one.operations:.4f} of the standard layer's operations, as (k^2 + OC) / (k^2 OC) = "
        f"{formula:.4f} says; {two.parameters / one.parameters:.4f} of its parameters; {two.seconds / one.seconds:.2f} of its "
        f"time; result within {np.linalg.norm(parts - whole) / np.linalg.norm(whole):.1%}"
    )
    system.panels = [("photo, grey, 64 x 64", grey[0])]
    for i in range(3):
        system.panels += [(f"standard, filter {i + 1}", whole[i]), (f"separable, filter {i + 1}", parts[i])]
    bars = {"operations": two.operations / one.operations, "parameters": two.parameters / one.parameters}
    system.panels.append(("share of the standard layer", bars | {"time": two.seconds / one.seconds}))
    return system


def atrous(photo: Array, run: Runner) -> System:
    """The same weights at rates 1, 2 and 4: a wider view at the same cost."""
    system = System("atrous")
    x = channels_first(resized(photo, 128))
    weight = of_luminance(np.concatenate([[FILTERS_3["vertical edges"]], gabor_bank(31, 3)]))
    system.panels = [("photo, 3 x 128 x 128", x.transpose(1, 2, 0))]
    views, impulses = [], []
    impulse = np.zeros((1, 11, 11), np.float32)
    impulse[0, 5, 5] = 1
    for rate in (1, 2, 4):
        result = run(
            system, f"atrous_conv2d 3x3, rate {rate}", "atrous_conv2d", x, weight,
            rate=rate, padding=rate, activation="relu", precision="highest",  # the same kernel for all rates
        )  # fmt: skip
        response = fc.atrous_conv2d(impulse, np.ones((1, 1, 3, 3), np.float32), rate=rate, padding=rate)[0]
        reached = np.flatnonzero(response.any(axis=0))
        views.append(reached[-1] - reached[0] + 1)
        system.panels.append((f"rate {rate}", result[0]))
        impulses.append((f"sees {views[-1]} x {views[-1]}", response))
    system.panels += impulses
    first = system.rows[0].seconds
    system.panels.append(
        ("time beside rate 1", {f"rate {r}": row.seconds / first for r, row in zip((1, 2, 4), system.rows, strict=True)})
    )
    system.notes.append(
        f"atrous: rates 1, 2, 4 see {', '.join(f'{v} x {v}' for v in views)} pixels with the same "
        f"{system.rows[0].parameters:,} weights, in {', '.join(time_text(row.seconds) for row in system.rows)}"
    )
    return system


def autoencoder(photo: Array, run: Runner, seconds: float) -> System:
    """Trained without labels on patches of the photograph; restores its middle, which it has never seen."""
    system = System("autoencoder")
    small = channels_first(resized(photo, 64))
    bilinear = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32)[None, None] / 16
    run(
        system, "conv_transpose2d 4x4, stride 2", "conv_transpose2d", small, np.repeat(bilinear, 3, axis=0),
        stride=2, padding=1, groups=3,
    )  # fmt: skip
    side = photo.shape[0]
    unseen = np.stack(list(_tiles(photo[side // 4 : side * 3 // 4, side // 4 : side * 3 // 4])))
    patches = _patches_outside_the_middle(photo, 1024)
    model = fc.ConvAutoencoder(in_channels=3, channels=(16, 8), rng=0)
    model.fit(patches[:32], epochs=1, progress=False)  # compiles
    begin = time.perf_counter()
    model.fit(patches, epochs=1, progress=False)
    epochs = min(max(int(seconds / (time.perf_counter() - begin)), 1), MOST_EPOCHS)
    model.fit(patches, epochs=epochs)
    trained = time.perf_counter() - begin
    restored, code = model.reconstruct(unseen), model.encode(unseen)
    system.rows.append(_row_of(model, unseen, restored, best_time(lambda: model.reconstruct(unseen), run.seconds)))
    error = float(np.mean((restored - unseen) ** 2))
    plain = float(np.mean((patches.mean(axis=0) - unseen) ** 2))
    system.notes.append(
        f"autoencoder: {1 + epochs} epochs on {len(patches):,} patches in {trained:.1f} s; of unseen patches, kept as "
        f"{code[0].size / unseen[0].size:.2f} of their numbers, the mean square error is {error:.5f}, "
        f"{error / plain:.0%} of the mean patch's"
    )
    across = side // 2 // PATCH
    before, after = _joined(unseen, across), np.clip(_joined(restored, across), 0, 1)
    system.panels = [("never seen", before), ("restored", after), ("difference", np.abs(after - before).mean(axis=2))]
    system.panels += [(f"code, channel {i + 1} of 8", _joined(code[:, i : i + 1], across)[:, :, 0]) for i in range(4)]
    system.panels.append(("mean square error", {"mean patch": plain, "restored": error}))
    return system


def _tiles(picture: Array) -> Iterator[Array]:
    """The patches of a picture, row by row, channels first."""
    for top in range(0, picture.shape[0] - PATCH + 1, PATCH):
        for left in range(0, picture.shape[1] - PATCH + 1, PATCH):
            yield channels_first(picture[top : top + PATCH, left : left + PATCH])


def _joined(patches: Array, across: int) -> Array:
    """Patches (N, C, H, W) side by side as one picture (rows, columns, C)."""
    count, channels, height, width = patches.shape
    grid = patches.reshape(count // across, across, channels, height, width)
    return grid.transpose(0, 3, 1, 4, 2).reshape(count // across * height, across * width, channels)


def _patches_outside_the_middle(photo: Array, count: int) -> Array:
    rng, side = np.random.default_rng(0), photo.shape[0]
    found: list[Any] = []
    low, high = side // 4 - PATCH, side * 3 // 4
    while len(found) < count:
        top, left = rng.integers(0, side - PATCH + 1, 2)
        if not (low < top < high and low < left < high):
            found.append(channels_first(photo[top : top + PATCH, left : left + PATCH]))
    return np.stack(found)


def _row_of(model: Any, x: Array, restored: Array, seconds: float) -> Row:
    """The table's row of a model: its layers one by one, in plain NumPy."""
    operations, result, stages, weights = 0, x, range(len(model.channels)), model.weights
    for part in ("encoder", "decoder"):
        name = "conv2d" if part == "encoder" else "conv_transpose2d"
        doubling = {} if part == "encoder" else {"output_padding": 1}
        for stage in stages:
            arrays = (result, weights[f"{part}.{stage}.weight"], weights[f"{part}.{stage}.bias"])
            activation = "relu" if stage < stages[-1] else None
            keywords = {"stride": 2, "padding": model.kernel_size // 2, "activation": activation, **doubling}
            operations += fc.explain(getattr(fc, name), *arrays, **keywords).operations
            result = getattr(fc.reference, name)(*arrays, **keywords)
    widths = ", ".join(map(str, (model.in_channels, *model.channels)))
    error = float(np.abs(restored - result).max())
    return Row("autoencoder", f"ConvAutoencoder {widths}", x.shape, restored.shape, model.parameters, operations, seconds, error)


# The whole -----------------------------------------------------------------------------------------------------------


def check_extras() -> None:
    """Say how to install what the demo needs, if something is missing."""
    try:
        import matplotlib  # noqa: F401
        import PIL  # noqa: F401
        import skimage  # noqa: F401
    except ImportError as error:
        raise ImportError(f"the demo needs {error.name}: python -m pip install 'fastconv[demo]'") from error


def demo(
    image: str | Path | None = None, out: str | Path = "demo.png", *, seconds: float = 8.0, console: Console | None = None
) -> list[System]:
    """Run the six systems on a photograph, write the table and the figure.

    Parameters
    ----------
    image : path, optional
        A picture that Pillow can read; by default one that comes with scikit-image.
    out : path
        Where the figure goes.
    seconds : float
        About how long the autoencoder is trained.
    console : Console, optional
        Where the table goes; standard output if not given.

    Returns
    -------
    list of System
        What the table and the figure show.
    """
    check_extras()
    check_picture(out)
    console = console or Console()
    photo = photograph(image)
    run = Runner(min(0.2, seconds / 20))
    systems = [make(photo, run) for make in (standard, pointwise, depthwise, separable, atrous)]
    systems.append(autoencoder(photo, run, seconds))
    console.table(
        f"Six systems, threads: {fc.get_num_threads()}; difference: from fastconv.reference",
        COLUMNS,
        [row.cells() for system in systems for row in system.rows],
    )
    console.line()
    for note in (note for system in systems for note in system.notes):
        console.line(note)
    console.line()
    claims = article(seconds=run.seconds, console=console)
    console.line()
    console.line(said(claims))
    draw(systems, out)
    console.line(f"figure: {out}")
    return systems


def said(claims: Sequence[Claim]) -> str:
    """The article's claim in one sentence, as it was measured."""
    operations, speeds, shares = ([getattr(claim, name) for claim in claims] for name in ("operations", "speed", "share"))
    saved = f"{1 - 1 / min(operations):.0%} to {1 - 1 / max(operations):.0%} of the operations"
    faster = (
        f"{min(speeds):.1f} to {max(speeds):.1f} times as fast, {min(shares):.0%} to {max(shares):.0%} of the operations' ratio"
    )
    return f"article: blocks of MobileNet save {saved} and are {faster}"


def draw(systems: list[System], out: str | Path) -> None:
    """One figure: a row for each system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    most = max(len(system.panels) for system in systems)
    figure = Figure(figsize=(2 * most, 2.45 * len(systems)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    strips: Any = figure.subfigures(len(systems), 1)
    for number, (strip, system) in enumerate(zip(list(strips), systems, strict=True), 1):  # type: ignore[arg-type]
        summary = ";  ".join(dict.fromkeys(f"{row.name}: {time_text(row.seconds)}" for row in system.rows))
        strip.suptitle(f"{number}  {system.title}", x=0.01, ha="left", fontsize=13, fontweight="bold", color="#1f3b57")
        strip.text(0.13, 0.985, summary, ha="left", va="top", fontsize=9, color="#555555")
        for axes, (title, content) in zip(strip.subplots(1, most), system.panels, strict=True):
            axes.set_title(title, fontsize=8.5, color="#333333")
            _fill(axes, content)
    figure.savefig(out, dpi=110)


def _fill(axes: Any, content: Any) -> None:
    """A picture, coloured or grey between its own 1st and 99th percentiles, or bars."""
    if isinstance(content, dict):
        bars = axes.bar(list(content), list(content.values()), color=["#9bb4cc", "#1f3b57", "#d98032"][: len(content)], width=0.6)
        axes.bar_label(bars, fmt="%.3g", fontsize=8)
        axes.margins(y=0.15)
        axes.set_yticks([])
        axes.tick_params(labelsize=7.5, length=0)
        axes.spines[["top", "left", "right"]].set_visible(False)
        return
    if content.ndim == 3:
        axes.imshow(np.clip(content, 0, 1), interpolation="nearest")
    else:
        low, high = np.percentile(content, [1, 99])
        axes.imshow(content, cmap="gray", vmin=low, vmax=high if high > low else low + 1, interpolation="nearest")
    axes.set_axis_off()
