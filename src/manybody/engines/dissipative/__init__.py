"""Dissipative particles: fluids, mixtures and polymers of soft particles that keep their momentum."""
