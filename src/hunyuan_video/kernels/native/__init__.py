"""Attention in C++ for CPUs, one path for each kind of instruction; compiled where it runs, at the first use."""
