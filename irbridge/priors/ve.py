"""Ve."""

import torch

from irbridge.gaussian.marginal import Marginal, broadcast, marginal
from irbridge.priors.base import Prior


class VE(Prior):
    """Variance-exploding diffusion: z = x0 + tau eps, tau the noise std, with EDM's
    preconditioning. ``sigma_data=None`` is a plain VE network that takes (z, tau). Otherwise the
    network is EDM's F (Karras et al. 2022, Table 1) as diffusers' EDM schedulers drive it.
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

    def marginal(self, tau) -> Marginal:
        return marginal(1.0, 0.0, tau)

    def _timestep(self, level):
        return level

    def network_input(self, z, tau):
        if self.sigma_data is None:
            return z, tau
        return (
            z * broadcast((tau.double().cpu() ** 2 + self.sigma_data**2).rsqrt(), z),
            0.25 * tau.log(),
        )

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
