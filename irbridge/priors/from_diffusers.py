"""The prior of a diffusers model."""

from irbridge.errors import UserError
from irbridge.priors.base import Prior
from irbridge.priors.flow import Flow
from irbridge.priors.ve import VE
from irbridge.priors.vp import DEFAULT_BETAS, VP, vp_alphas_cumprod
from irbridge.ranges import POSITIVE, Range, check_values, each, number, one_of, whole

BETA = number(lambda v: 0 < v < 1, "between 0 and 1")
SWITCH = one_of(True, False)
NAME = Range(lambda v: isinstance(v, str), "a name")
STEPS = 100_000  # a hundred times those of any published model; the tables have as many rows
RANGES = {
    "_class_name": NAME,
    "beta_schedule": NAME,
    "prediction_type": NAME,
    "timestep_type": NAME,
    "num_train_timesteps": whole(2, STEPS),
    "beta_start": BETA,
    "beta_end": BETA,
    "trained_betas": each(number(lambda v: 0 < v <= 1, "above 0, at most 1"), most=STEPS),
    "rescale_betas_zero_snr": SWITCH,
    "invert_sigmas": SWITCH,
    "use_flow_sigmas": SWITCH,
    "shift": POSITIVE,
    "flow_shift": POSITIVE,
    "sigma_min": POSITIVE,
    "sigma_max": POSITIVE,
    "sigma_data": POSITIVE,
}
"""What the values of a scheduler's config may be; null stands for the default."""


def prior_from_config(config: dict) -> Prior:
    """The prior of a diffusers scheduler config.

    Args:
        config: its saved dict.

    Raises:
        UserError: a value is out of range, or its class, beta schedule or prediction type is not
            covered.
    """
    config = {key: config[key] for key in config if config[key] is not None or key == "sigma_data"}
    check_values(RANGES, config, "scheduler")
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
