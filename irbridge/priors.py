"""Generative priors: processes with no degraded end, and the timestep at which a network knows each
level.

``tau`` is the prior's own time: the (fractional) training timestep of a VP model, the noise level
of a VE/EDM model, the un-shifted time in [0, 1] of a rectified flow. Only :meth:`Prior.timestep`
clamps levels to a prior's range."""

import numpy as np
import torch
from torch import Tensor

from irbridge.errors import UserError
from irbridge.process import Marginal, broadcast, marginal


class Prior:
    """Base: ``marginal(tau)``, its inverse ``timestep(level)``, and what the network is fed and
    predicts."""

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
        """tau at which noise / clean equals ``level`` (equal SNR), clamped to [lowest, highest];
        float64."""
        tau = self._timestep(np.asarray(level, dtype=np.float64))
        return torch.as_tensor(np.clip(tau, self.lowest, self.highest))

    def critical(self, m: Marginal) -> Tensor:
        """The critical timestep of a bridge state: equal SNR (IRBridge, Sec. 3.2)."""
        return self.timestep(m.level)

    def network_input(self, z: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """What the network is called with for the state z (B, ...) at tau (B,): (input,
        timestep)."""
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
    """Variance-preserving diffusion (DDPM), from a table alpha-bar of shape (T,) indexed by
    timestep. Between integer timesteps the log of noise / clean is interpolated linearly. A zero
    terminal SNR (last entry 0) ends the usable range one step before it: there eps and v say
    nothing of x0's scale."""

    def __init__(self, alphas_cumprod, prediction_type: str = "epsilon"):
        super().__init__(prediction_type)
        abar = np.asarray(alphas_cumprod, dtype=np.float64)
        abar = abar[abar > 0]
        self.log_level = 0.5 * (np.log1p(-abar) - np.log(abar))
        self.lowest, self.highest = 0.0, len(abar) - 1.0

    def marginal(self, tau) -> Marginal:
        at = torch.as_tensor(
            np.interp(np.asarray(tau, np.float64), np.arange(len(self.log_level)), self.log_level)
        )
        return marginal(torch.sigmoid(-2 * at).sqrt(), 0.0, torch.sigmoid(2 * at).sqrt())

    def _timestep(self, level):
        with np.errstate(divide="ignore"):
            return np.interp(np.log(level), self.log_level, np.arange(len(self.log_level)))

    def critical_index(self, m: Marginal) -> Tensor:
        """The smallest integer timestep whose level is at least that of ``m``, clamped to the
        table; int64."""
        with np.errstate(divide="ignore"):
            index = np.searchsorted(self.log_level, np.log(m.level.numpy()))
        return torch.as_tensor(np.clip(index, int(self.lowest), int(self.highest)))


class VE(Prior):
    """Variance-exploding diffusion: z = x0 + tau eps, tau the noise std, with EDM's
    preconditioning. ``sigma_data=None`` is a plain VE network that takes (z, tau). Otherwise the
    network is EDM's F (Karras et al. 2022, Table 1) as diffusers' EDM schedulers drive it."""

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


class Flow(Prior):
    """Rectified flow: z = (1 - s) x0 + s n with s = shift u / (1 + (shift - 1) u), u = tau in [0,
    1]. The network is called with ``steps`` s, 1000 s as a rule, and predicts the velocity n - x0
    (SD3, FLUX; diffusers' convention), or what ``prediction_type`` says; eps and v say nothing of
    x0's scale where no signal is left, so s then ends before 1."""

    def __init__(
        self, shift: float = 1.0, steps: int = 1000, prediction_type: str = "flow_prediction"
    ):
        super().__init__(prediction_type)
        self.shift, self.steps, self.lowest, self.highest = shift, steps, 0.0, 1.0
        if prediction_type != "flow_prediction":
            self.highest = 1 - 1 / steps

    def marginal(self, tau) -> Marginal:
        u = torch.as_tensor(tau, dtype=torch.float64)
        s = self.shift * u / (1 + (self.shift - 1) * u)
        return marginal(1 - s, 0.0, s)

    def _timestep(self, level):
        s = np.where(np.isinf(level), 1.0, level / (1 + np.where(np.isinf(level), 0.0, level)))
        return s / (self.shift - (self.shift - 1) * s)

    def network_input(self, z, tau):
        return z, self.steps * self.marginal(tau.cpu()).noise


# Classes whose config may leave the betas at their defaults.
DEFAULT_BETAS = (
    "DDPMScheduler",
    "DDIMScheduler",
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
)


def prior_from_config(config: dict) -> Prior:
    """The prior of a diffusers scheduler config (its saved dict). UserError for a scheduler class,
    beta schedule or prediction type that is not covered."""
    name, prediction = (
        config.get("_class_name", "DDPMScheduler"),
        config.get("prediction_type", "epsilon"),
    )
    steps = config.get("num_train_timesteps", 1000)
    for key, other in (("timestep_type", "continuous"), ("invert_sigmas", True)):
        if config.get(key) == other:
            raise UserError(
                f"The scheduler's {key}={other} is not covered; choose a model of the usual"
                " timesteps."
            )
    if name.startswith("FlowMatch"):
        return Flow(config.get("shift") or 1.0, steps)
    if config.get("use_flow_sigmas"):  # a solver's scheduler, such as UniPC, of a flow model
        return Flow(config.get("flow_shift") or 1.0, steps, prediction)
    if name.startswith("EDM"):
        if prediction not in ("epsilon", "v_prediction"):
            raise UserError(
                f"The scheduler's prediction_type={prediction!r} is not one of {name}; use epsilon"
                " or v_prediction."
            )
        ranges = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}
        return VE(**{k: config.get(k, v) for k, v in ranges.items()}, prediction_type=prediction)
    if (
        "beta_start" not in config
        and config.get("trained_betas") is None
        and name not in DEFAULT_BETAS
    ):
        raise UserError(
            f"The scheduler class {name} has no beta schedule that irbridge can read; save the"
            " model with a DDPM, DDIM, EDM or FlowMatch scheduler."
        )
    return VP(vp_alphas_cumprod(config), prediction)
