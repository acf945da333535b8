"""Rectified flows."""

import numpy as np
import torch
from typing_extensions import override

from irbridge.gaussian.marginal import Marginal, marginal
from irbridge.priors.base import Prior


class Flow(Prior):
    """Rectified flow: z = (1 - s) x0 + s n with s = shift u / (1 + (shift - 1) u), u = tau.

    tau is in [0, 1]. Networks that predict eps or v say nothing of x0's scale where no signal is
    left, so that s then ends before 1.

    Args:
        shift: how much of the time is spent at high noise.
        steps: the network is called with ``steps`` s.
        prediction_type: the velocity n - x0 by default (SD3, FLUX; diffusers' convention).
    """

    def __init__(
        self, shift: float = 1.0, steps: int = 1000, prediction_type: str = "flow_prediction"
    ):
        super().__init__(prediction_type)
        self.shift, self.steps, self.lowest, self.highest = shift, steps, 0.0, 1.0
        if prediction_type != "flow_prediction":
            self.highest = 1 - 1 / steps

    @override
    def marginal(self, tau) -> Marginal:
        u = torch.as_tensor(tau, dtype=torch.float64)
        s = self.shift * u / (1 + (self.shift - 1) * u)
        return marginal(1 - s, 0.0, s)

    @override
    def _timestep(self, level):
        s = np.where(np.isinf(level), 1.0, level / (1 + np.where(np.isinf(level), 0.0, level)))
        return s / (self.shift - (self.shift - 1) * s)

    @override
    def network_input(self, z, tau):
        return z, self.steps * self.marginal(tau.cpu()).noise
