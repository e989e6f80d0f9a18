"""The kernels in other people's compiled code: inside their `@numba.njit` functions (njit.py), and from C (clib.py)."""
