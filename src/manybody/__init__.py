"""Manybody: many machines, one physics. A physics question in, a certified answer out."""

__version__ = "0.1.0"
