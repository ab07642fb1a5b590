"""The federation keeps the contract of backends, with a gateway and two nodes as processes of their own."""

from manybody.testing.backend import BackendContract
from manybody.testing.federation import OwnTown


class TestFederation(BackendContract):
    start = OwnTown
