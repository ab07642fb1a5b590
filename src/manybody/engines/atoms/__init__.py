"""Atoms driven by any energy model: crystals and structures from files, their statics and their dynamics."""
