"""FedAdagrad: the server as Adagrad."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from manybody.federate.adaptive import AdaptiveServer
from manybody.federate.tensors import Tensor


class FedAdagrad(AdaptiveServer):
    """Steps that shrink where the pseudo-gradient has been large; for sparse updates.  v' = v + Delta^2."""

    summary: ClassVar[str] = "server Adagrad on the weighted mean's change"

    name: Literal["fedadagrad"] = "fedadagrad"
    learning_rate: float = Field(0.1, gt=0, description="server learning rate, eta")
    beta: float = Field(0.0, ge=0, lt=1, description="decay of the first moment")

    def second_moment(self, v: Tensor, delta: Tensor) -> Tensor:
        """The sum of Delta^2."""
        total: Tensor = v + delta**2
        return total
