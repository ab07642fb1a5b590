"""Policies of trust on a simulated network: how many false results pass, and at what cost."""
