"""Molecules: water boxes and molecules with a force field from a file."""
