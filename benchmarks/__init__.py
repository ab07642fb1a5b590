"""Benchmarks: ours and a peer in one interleaved run. ``python -m benchmarks --list`` says which there are."""
