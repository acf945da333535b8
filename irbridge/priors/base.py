"""What every generative prior is: a process without a degraded end, and its network's timesteps.

``tau`` is the prior's own time: the (fractional) training timestep of a VP model, the noise level
of a VE/EDM model, the un-shifted time in [0, 1] of a rectified flow. Only :meth:`Prior.timestep`
clamps levels to a prior's range.
"""

import numpy as np
import torch
from torch import Tensor

from irbridge.errors import UserError
from irbridge.gaussian.marginal import Marginal, broadcast


class Prior:
    """A noise schedule: ``marginal(tau)``, and its inverse ``timestep(level)``.

    Args:
        prediction_type: what the network predicts, in diffusers' words.

    Attributes:
        lowest: the timestep of the least noise.
        highest: the timestep of the most noise.
    """

    lowest: float
    highest: float

    def __init__(self, prediction_type: str):
        if prediction_type not in ("epsilon", "v_prediction", "sample", "flow_prediction"):
            raise UserError(
                f"The scheduler's prediction_type={prediction_type!r} is not supported; use"
                " epsilon, v_prediction, sample or flow_prediction."
            )
        self.prediction_type = prediction_type

    def marginal(self, tau) -> Marginal:
        """The law of z_tau, float64, shaped as tau."""
        raise NotImplementedError

    def _timestep(self, level: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def timestep(self, level) -> Tensor:
        """The timestep at which noise / clean equals a level (equal SNR).

        Args:
            level: numbers of any shape; infinite where nothing clean is left.

        Returns:
            tau, float64, clamped to [lowest, highest].
        """
        tau = self._timestep(np.asarray(level, dtype=np.float64))
        return torch.as_tensor(np.clip(tau, self.lowest, self.highest))

    def critical(self, m: Marginal) -> Tensor:
        """The critical timestep of a bridge state: equal SNR (IRBridge, Sec. 3.2)."""
        return self.timestep(m.level)

    def network_input(self, z: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """(input, timestep) of the network for the state z (B, ...) at tau (B,)."""
        return z, tau

    def clean(self, z: Tensor, output: Tensor, tau: Tensor) -> Tensor:
        """The network's output as an estimate of x0; z and output (B, ...), tau () or (B,)."""
        alpha, _, sigma = (broadcast(field, z) for field in self.marginal(tau))
        if self.prediction_type == "epsilon":
            return (z - sigma * output) / alpha
        if self.prediction_type == "v_prediction":
            return alpha * z - sigma * output
        if self.prediction_type == "flow_prediction":
            return (z - sigma * output) / (alpha + sigma)
        return output
