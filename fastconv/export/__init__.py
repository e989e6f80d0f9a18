"""The kernels from C, C++, Rust: a shared library, a header and a pkg-config file, without Python or Numba behind them.

`objects` gives the machine code of a kernel as an object file; `kernels` says which of them a library holds, and tells C of them;
`build` compiles all of it, for this processor or another, and links it. In c/ is what is C: the header, what is legal, the plan,
the packing of weights, and layers.
"""

from fastconv.export.build import CPUS, export
from fastconv.export.kernels import EXPORTED

__all__ = ["CPUS", "EXPORTED", "export"]
