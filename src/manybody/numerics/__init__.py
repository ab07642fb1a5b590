"""Numerical building blocks that know no physics domain: pair kernels, neighbours, integrators, statistics."""
