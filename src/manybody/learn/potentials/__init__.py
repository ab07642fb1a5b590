"""Pair potentials learned from energies and forces of configurations."""
