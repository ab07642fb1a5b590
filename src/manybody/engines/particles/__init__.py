"""Particles that interact in pairs: molecular dynamics of liquids."""
