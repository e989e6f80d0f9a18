"""Kernels and threads for the CPU."""
