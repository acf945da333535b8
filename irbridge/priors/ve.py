"""Variance-exploding diffusion."""

import torch
from typing_extensions import override

from irbridge.gaussian.marginal import Marginal, broadcast, marginal
from irbridge.priors.base import Prior


class VE(Prior):
    """Variance-exploding diffusion: z = x0 + tau eps, tau the std of the noise.

    Args:
        sigma_min: the lowest tau.
        sigma_max: the highest one.
        sigma_data: the std of images, for a network that is EDM's F (Karras et al. 2022, Table 1)
            as diffusers' EDM schedulers drive it; None: a plain network that takes (z, tau).
        prediction_type: "epsilon" or "v_prediction".
    """

    def __init__(
        self,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        sigma_data: float | None = 0.5,
        prediction_type: str = "epsilon",
    ):
        super().__init__(prediction_type)
        self.lowest, self.highest, self.sigma_data = sigma_min, sigma_max, sigma_data

    @override
    def marginal(self, tau) -> Marginal:
        return marginal(1.0, 0.0, tau)

    @override
    def _timestep(self, level):
        return level

    @override
    def network_input(self, z, tau):
        if self.sigma_data is None:
            return z, tau
        return (
            z * broadcast((tau.double().cpu() ** 2 + self.sigma_data**2).rsqrt(), z),
            0.25 * tau.log(),
        )

    @override
    def clean(self, z, output, tau):
        if self.sigma_data is None:
            return super().clean(z, output, tau)
        variance = torch.as_tensor(tau, dtype=torch.float64) ** 2
        total = variance + self.sigma_data**2
        out = (
            variance.sqrt()
            * self.sigma_data
            / total.sqrt()
            * (-1 if self.prediction_type == "v_prediction" else 1)
        )
        return broadcast(self.sigma_data**2 / total, z) * z + broadcast(out, z) * output
