"""FedAdam: the server as Adam."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from manybody.federate.adaptive import AdaptiveServer
from manybody.federate.tensors import Tensor


class FedAdam(AdaptiveServer):
    """Steps of about the same size in every coordinate, whatever its scale.  v' = b2 v + (1 - b2) Delta^2."""

    summary: ClassVar[str] = "server Adam on the weighted mean's change"

    name: Literal["fedadam"] = "fedadam"
    beta2: float = Field(0.99, ge=0, lt=1, description="decay of the second moment")

    def second_moment(self, v: Tensor, delta: Tensor) -> Tensor:
        """A running mean of Delta^2."""
        return self.beta2 * v + (1 - self.beta2) * delta**2
