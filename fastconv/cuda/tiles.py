"""How large the tiles of the tiled kernels are: one record, whose numbers become constants of a kernel's machine code."""

from __future__ import annotations

from dataclasses import dataclass

MICRO, SUMS = 8, 64  # a thread keeps the sums of so many filters by as many pixels: 16 loads for 64 multiply-adds


@dataclass(frozen=True)
class Tile:
    """A block's tile of an implicit matrix product: filters x pixels, `terms` at a time; at most `registers` a thread."""

    filters: int
    pixels: int
    terms: int
    registers: int | None = None

    @property
    def threads(self) -> int:
        """One for each micro-tile."""
        return self.filters * self.pixels // MICRO**2

    @property
    def lanes_across(self) -> int:
        """Micro-tiles of a warp along the pixels; 8 by 4 where the tile is large enough."""
        return min(8, self.pixels // MICRO)

    @property
    def lanes_down(self) -> int:
        """Micro-tiles of a warp along the filters."""
        return min(4, self.filters // MICRO)

    @property
    def warps_across(self) -> int:
        return self.pixels // MICRO // self.lanes_across

    @property
    def shared_numbers(self) -> int:
        """In shared memory: two slices of both factors."""
        return 2 * self.terms * (self.filters + self.pixels)

    @property
    def words(self) -> str:
        return f"{self.filters} filters by {self.pixels} pixels, {self.terms} terms at a time, of {self.threads} threads"

    def __str__(self) -> str:
        return f"{self.filters}x{self.pixels}x{self.terms}"


@dataclass(frozen=True)
class Patch:
    """A block's part of one plane of a depthwise result: `across` columns by `down` times `rows` rows, a thread a column of `rows`.

    `taps` and `stride` are those of the windows, height first.
    """

    taps: tuple[int, int]
    stride: tuple[int, int]
    across: int
    down: int
    rows: int
    registers: int | None = None

    @property
    def threads(self) -> int:
        return self.across * self.down

    @property
    def window_rows(self) -> int:
        """Rows of the halo that a thread's column of outputs sees."""
        return (self.rows - 1) * self.stride[0] + self.taps[0]

    @property
    def halo(self) -> tuple[int, int]:
        """Height and width of what the patch sees."""
        return (
            (self.down * self.rows - 1) * self.stride[0] + self.taps[0],
            (self.across - 1) * self.stride[1] + self.taps[1],
        )

    @property
    def shared_numbers(self) -> int:
        return self.halo[0] * self.halo[1]

    @property
    def words(self) -> str:
        return f"{self.down * self.rows} rows by {self.across} columns of a plane, of {self.threads} threads"

    def __str__(self) -> str:
        kernel, step = "x".join(map(str, self.taps)), self.stride[0]
        return f"{self.down * self.rows}x{self.across} of {kernel}" + (f" stride {step}" if step > 1 else "")


@dataclass(frozen=True)
class Slab:
    """A block of direct_separable: `filters` by `pixels` outputs, a thread each, `channels` of the depthwise result at a time."""

    filters: int
    pixels: int
    channels: int

    @property
    def threads(self) -> int:
        return self.filters * self.pixels

    @property
    def shared_numbers(self) -> int:
        return self.channels * self.pixels

    @property
    def words(self) -> str:
        return f"{self.filters} filters by {self.pixels} pixels, {self.channels} channels at a time, of {self.threads} threads"

    def __str__(self) -> str:
        return f"{self.filters}x{self.pixels}x{self.channels}"
