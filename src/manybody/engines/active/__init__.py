"""Brownian and active Brownian particles in a plane."""
