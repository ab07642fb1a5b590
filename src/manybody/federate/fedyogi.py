"""FedYogi: the server as Yogi."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.federate.adaptive import AdaptiveServer
from manybody.federate.tensors import Tensor


class FedYogi(AdaptiveServer):
    """As Adam, but the second moment changes by no more than (1 - b2) Delta^2 a round: it forgets slowly.

    v' = v - (1 - b2) Delta^2 sign(v - Delta^2).  Zaheer et al., NeurIPS 2018.
    """

    summary: ClassVar[str] = "server Yogi on the weighted mean's change"

    name: Literal["fedyogi"] = "fedyogi"
    beta2: float = Field(0.99, ge=0, lt=1, description="decay of the second moment")

    def second_moment(self, v: Tensor, delta: Tensor) -> Tensor:
        """A step towards Delta^2, as long as a share of it."""
        moved: Tensor = v - (1 - self.beta2) * delta**2 * np.sign(v - delta**2)
        return moved
