"""Variance-preserving diffusion."""

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from irbridge.errors import UserError
from irbridge.gaussian.marginal import Marginal, marginal
from irbridge.priors.base import Prior


def vp_alphas_cumprod(config: dict) -> np.ndarray:
    """alpha-bar of a diffusers scheduler config, (num_train_timesteps,), products in float64."""
    n, schedule = config.get("num_train_timesteps", 1000), config.get("beta_schedule", "linear")
    first, last = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
    if config.get("trained_betas") is not None:
        betas = np.asarray(config["trained_betas"], dtype=np.float64)
    elif schedule == "linear":
        betas = np.linspace(first, last, n)
    elif schedule == "scaled_linear":
        betas = np.linspace(first**0.5, last**0.5, n) ** 2
    elif schedule == "squaredcos_cap_v2":
        abar = np.cos((np.arange(n + 1) / n + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - abar[1:] / abar[:-1], 0.999)
    elif schedule == "sigmoid":
        betas = first + (last - first) / (1 + np.exp(-np.linspace(-6, 6, n)))
    else:
        raise UserError(
            f"The scheduler's beta_schedule={schedule!r} is not supported; use linear,"
            " scaled_linear, squaredcos_cap_v2, sigmoid or trained_betas."
        )
    abar = np.cumprod(1 - betas)
    if config.get("rescale_betas_zero_snr"):
        root = np.sqrt(abar)
        abar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return abar


class VP(Prior):
    """Variance-preserving diffusion (DDPM).

    Between whole timesteps the log of noise / clean is interpolated linearly. A zero terminal SNR
    (last entry 0) ends the usable range one step before it: there eps and v say nothing of x0's
    scale.

    Args:
        alphas_cumprod: the table alpha-bar, (T,), by timestep.
        prediction_type: what the network predicts, in diffusers' words.
    """

    def __init__(self, alphas_cumprod, prediction_type: str = "epsilon"):
        super().__init__(prediction_type)
        abar = np.asarray(alphas_cumprod, dtype=np.float64)
        abar = abar[abar > 0]
        self.log_level = 0.5 * (np.log1p(-abar) - np.log(abar))
        self.lowest, self.highest = 0.0, len(abar) - 1.0

    @override
    def marginal(self, tau) -> Marginal:
        at = torch.as_tensor(
            np.interp(np.asarray(tau, np.float64), np.arange(len(self.log_level)), self.log_level)
        )
        return marginal(torch.sigmoid(-2 * at).sqrt(), 0.0, torch.sigmoid(2 * at).sqrt())

    @override
    def _timestep(self, level):
        with np.errstate(divide="ignore"):
            return np.interp(np.log(level), self.log_level, np.arange(len(self.log_level)))

    def critical_index(self, m: Marginal) -> Tensor:
        """The smallest whole timestep whose level is at least that of a law; int64."""
        with np.errstate(divide="ignore"):
            index = np.searchsorted(self.log_level, np.log(m.level.numpy()))
        return torch.as_tensor(np.clip(index, int(self.lowest), int(self.highest)))


# Classes whose config may leave the betas at their defaults.
DEFAULT_BETAS = (
    "DDPMScheduler",
    "DDIMScheduler",
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
)
