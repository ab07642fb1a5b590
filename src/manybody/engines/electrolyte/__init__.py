"""Ions driven by an electric field: Brownian motion of clouds of charge, and its linear theory."""
