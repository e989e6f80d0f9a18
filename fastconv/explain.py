"""The plan's choice in words: which kernel runs a problem and why, why the others do not, and what limits it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv import cuda, functional
from fastconv.cpu import launch, threads
from fastconv.cpu.table import IMPLEMENTATIONS
from fastconv.plan import AnyProblem, Division, Implementation, choose, refusals, simplified
from fastconv.problem import Problem, SeparableProblem

BALANCE = 6  # operations a byte: 100 to 250 GFLOP/s a core, beside 20 to 40 GB/s


def _size(tile: Any) -> str:
    return f"{tile.rows} rows of {tile.vectors} vectors of {tile.lanes} {tile.dtype}"


@dataclass(frozen=True)
class Explanation:
    """What would run. Prints as a few lines; the numbers are attributes.

    Attributes
    ----------
    problem : Problem or SeparableProblem
        What is computed.
    kernel : str
        The kernel that computes it.
    refused : tuple of (name, reason)
        The kernels that do not.
    operations, bytes, workspace : int
        Multiplications and additions; least memory traffic; bytes of scratch at the present number of threads.
    limit : {"multiply-adds", "memory"}
        What binds a kernel that does everything else right.
    """

    problem: AnyProblem
    implementation: Implementation
    division: Division
    refused: tuple[tuple[str, str], ...]

    @property
    def kernel(self) -> str:
        return self.implementation.name

    @property
    def operations(self) -> int:
        return self.problem.operations

    @property
    def bytes(self) -> int:
        return self.problem.bytes

    @property
    def intensity(self) -> float:
        """Operations a byte of memory traffic."""
        return self.operations / self.bytes

    @property
    def limit(self) -> str:
        """By the intensity: a core does about `BALANCE` operations in the time in which it moves a byte from beyond its L2."""
        return "multiply-adds" if self.intensity > BALANCE else "memory"

    @property
    def workspace(self) -> int:
        return threads.seats() * self.division.scratch * np.dtype(self.problem.dtype).itemsize

    def __str__(self) -> str:
        division, images = self.division, self.division.fields.get("images", 1)
        lines = [
            f"problem     {self.problem}",
            f"result      {self.problem.out_shape} from {self.problem.x_shape}, {self.problem.dtype}",
            f"kernel      {self.kernel}: of those that can, the one of the fewest cycles expected",
            f"vectorised  along the {self.implementation.vectorised}",
            *([f"tile        {_size(division.tile)}"] if division.tile is not None else []),
            f"work        {division.items} items: {division.bands} bands of {division.band}, {division.chunks} chunks of filters, "
            f"{f'up to {images} images each, ' if images > 1 else ''}for {threads.get_num_threads()} threads",
            f"operations  {self.operations:,}",
            f"bytes       {self.bytes:,} at least, {self.intensity:.1f} operations a byte",
            f"limit       {self.limit}",
            f"workspace   {self.workspace:,} bytes",
        ]
        if isinstance(self.problem, SeparableProblem):
            lines.append(f"saved       {self.problem.saved_bytes:,} bytes of traffic: the depthwise result stays in the scratch")
        kin = {i.name for i in IMPLEMENTATIONS if simplified(self.problem).kind in i.kinds}
        lines += [f"not         {name}: {reason}" for name, reason in self.refused if name in kin]
        lines.append(f"not         {sum(name not in kin for name, _ in self.refused)} kernels for other kinds of layers")
        return "\n".join(lines)

    __repr__ = __str__


@dataclass(frozen=True)
class DeviceExplanation(Explanation):
    """What would run on a CUDA device. Costs are estimates by the compiler's machine code, not measurements.

    Attributes
    ----------
    capability, multiprocessors : int
        Of the device: 80 is compute capability 8.0.
    splits : int
        Among how many blocks the sum of one output, or one weight's gradient, is split.
    shared_bytes : int
        Shared memory of a block.
    balance : float
        Operations a byte above which multiply-adds are the limit.
    """

    capability: int
    multiprocessors: int
    splits: int
    shared_bytes: int
    balance: float

    @property
    def limit(self) -> str:
        """By the intensity."""
        return "multiply-adds" if self.intensity > self.balance else "memory"

    @property
    def workspace(self) -> int:
        return self.division.scratch * np.dtype(self.problem.dtype).itemsize

    def __str__(self) -> str:
        tile, major, minor = self.division.tile, *divmod(self.capability, 10)
        shared = f"{self.shared_bytes:,} bytes of shared memory" if self.shared_bytes else "no shared memory"
        split = f", each sum split among {self.splits} of them" if self.splits > 1 else ""
        lines = [
            f"problem     {self.problem}",
            f"result      {self.problem.out_shape} from {self.problem.x_shape}, {self.problem.dtype}",
            f"kernel      {self.kernel}: of those that do not refuse, the one of the fewest cycles",
            f"device      compute capability {major}.{minor}, {self.multiprocessors} multiprocessors",
            f"tile        {tile.words if tile is not None else 'a thread an output'}, {shared} a block",
            f"work        {self.division.items:,} blocks{split}",
            f"operations  {self.operations:,}",
            f"bytes       {self.bytes:,} at least, {self.intensity:.1f} operations a byte",
            f"limit       {self.limit}: the balance is {self.balance:.1f} operations a byte",
            f"workspace   {self.workspace:,} bytes",
        ]
        if isinstance(self.problem, SeparableProblem):
            lines.append(f"saved       {self.problem.saved_bytes:,} bytes of traffic: the depthwise result stays in shared memory")
        lines += [f"not         {name}: {reason}" for name, reason in self.refused]
        return "\n".join(lines)

    __repr__ = __str__


def _on_device(problem: AnyProblem, image: Any) -> DeviceExplanation:
    here, implementations, balance = cuda.kernels().offers(image)
    chosen = choose(problem, implementations, here.multiprocessors)
    fields = chosen.division.fields
    return DeviceExplanation(
        problem,
        chosen.implementation,
        chosen.division,
        tuple(refusals(problem, implementations, unit="cycles")),
        capability=here.capability,
        multiprocessors=here.multiprocessors,
        splits=fields.get("splits", 1),
        shared_bytes=fields.get("shared", 0) * np.dtype(problem.dtype).itemsize,
        balance=balance,
    )


def _of_no_gaps(problem: AnyProblem) -> str:
    """What lies side by side in an image that was made for the problem: see launch.neighbours."""
    first = problem.depthwise if isinstance(problem, SeparableProblem) else problem
    return "channels" if first.data_format == "channels_last" and first.channels > 1 else "columns"


def explain(what: str | Problem | SeparableProblem | Callable[..., Any], *arguments: Any, **keywords: Any) -> Explanation:
    """Say which kernel would run and why, without running it.

    Parameters
    ----------
    what : callable, Problem or str
        A function of fastconv (or of `fastconv.grad`), followed by its arguments; or a problem, or the text form of one, on the
        CPU, of an image without gaps. If the arguments are device arrays, it is the kernel of their device.
    *arguments, **keywords
        Of the function.

    Returns
    -------
    Explanation
        An object that prints well.

    Raises
    ------
    TypeError, ValueError
        As the function would, or if the text describes no problem.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> image, weight = np.ones((64, 56, 56), np.float32), np.ones((64, 64, 3, 3), np.float32)
    >>> fc.explain(fc.conv2d, image, weight, padding=1).implementation.algorithm
    'winograd'
    >>> fc.explain("conv2d,n1c128i28x28f128k3p1g128").kernel
    'tiled_depthwise'
    """
    fresh, neighbours = False, ""
    if callable(what):
        answer = functional.ask(what, *arguments, **keywords)
        if cuda.is_device_array(answer.image):
            return _on_device(answer.problem, answer.image)
        problem, fresh, neighbours = answer.problem, answer.fresh, launch.neighbours(answer.image, answer.problem)
    elif arguments or keywords:
        raise TypeError(f"what: got {type(what).__name__} and arguments, expected a function of fastconv before them")
    elif isinstance(what, (str, Problem, SeparableProblem)):
        problem = Problem.parse(str(what))  # a record that was made by hand is checked as its text is
    else:
        raise TypeError(f"what: got {type(what).__name__}, expected a function of fastconv, a Problem or its text")
    neighbours = neighbours or _of_no_gaps(problem)
    count = threads.get_num_threads()
    _, implementation, division, _ = choose(problem, IMPLEMENTATIONS, count, neighbours, fresh)
    reasons = refusals(problem, IMPLEMENTATIONS, neighbours, fresh, threads=count)
    return Explanation(problem, implementation, division, tuple(reasons))
