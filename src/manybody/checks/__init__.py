"""Checks: one kind of claim tested, one file each."""
