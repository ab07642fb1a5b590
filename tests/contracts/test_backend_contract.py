"""Every backend keeps the contract of backends."""

from manybody.network.local import Embedded
from manybody.testing.backend import BackendContract


class TestEmbedded(BackendContract):
    start = Embedded
