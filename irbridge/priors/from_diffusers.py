"""The prior of a diffusers model."""

from irbridge.errors import UserError
from irbridge.priors.base import Prior
from irbridge.priors.flow import Flow
from irbridge.priors.ve import VE
from irbridge.priors.vp import DEFAULT_BETAS, VP, vp_alphas_cumprod


def prior_from_config(config: dict) -> Prior:
    """The prior of a diffusers scheduler config.

    Args:
        config: its saved dict.

    Raises:
        UserError: its class, beta schedule or prediction type is not covered.
    """
    name = config.get("_class_name", "DDPMScheduler")
    prediction = config.get("prediction_type", "epsilon")
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
