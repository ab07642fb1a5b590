"""Vicsek's flocks: self-propelled particles that align with their neighbours."""
