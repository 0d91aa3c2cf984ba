"""Kernel templates for the CPU: Numba source for the computations that need more than a loop nest over scalars."""
