"""Attention, norms and rotations in C++ for CPUs; compiled where they run, at their first use."""
