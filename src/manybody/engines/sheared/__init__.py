"""Mixtures of Lennard-Jones particles, at rest and under homogeneous shear."""
