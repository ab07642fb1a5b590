"""Random keys: every random number derives from a study's seed and a task's identity.

A key is 128 bits; deriving from it is a hash, so the order in which tasks or nodes ask does not matter.
The stream itself is numpy's Philox, a counter-based generator (Salmon et al., SC11, 2011).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Key:
    """A 128-bit random key."""

    value: int

    @classmethod
    def from_seed(cls, seed: int, *labels: str | int) -> Key:
        """The key of a seed and any number of labels (a task's digest, a purpose)."""
        return cls(0).derive("seed", seed, *labels)

    def derive(self, *labels: str | int) -> Key:
        """An independent key for a purpose, such as ``key.derive("velocities")``."""
        text = "\x1f".join(f"{type(label).__name__}:{label}" for label in (f"{self.value:032x}", *labels))
        return Key(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little"))

    def generator(self) -> np.random.Generator:
        """A fresh numpy generator at the start of this key's stream."""
        return np.random.Generator(np.random.Philox(key=self.value))
