"""The kernels in other people's compiled code, inside their `@numba.njit` functions. For C see fastconv/export."""
