"""Engines: what advances or evaluates a system, one folder a domain of physics."""
