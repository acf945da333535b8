"""HI-Diff from a config, and whether its two stages fit."""

from dataclasses import asdict

from irbridge.adapters.hidiff.network import HIDiffOptions
from irbridge.errors import UserError
from irbridge.experiments.saved import read_settings
from irbridge.experiments.schema import made
from irbridge.models.hidiff import HIDiff
from irbridge.models.restorer import Restorer
from irbridge.ranges import shown


def check_stages(config: dict) -> None:
    """UserError where a run's stages make no sense: before anything is built.

    Args:
        config: of the run.
    """
    method, stage, first = (config.get(key) for key in ("method", "stage", "stage1"))
    if method != "hidiff":
        given = [key for key in ("stage", "stage1", "hidiff") if config.get(key) is not None]
        if given:
            raise UserError(f"{given[0]} is for recipe=hidiff alone; leave it out of {method}.")
    elif stage == 2 and not (first or config.get("reuse")):
        raise UserError(
            "stage=2 of recipe=hidiff begins from a trained stage 1; give stage1=RUN, a run of"
            " recipe=hidiff stage=1."
        )
    elif stage == 1 and first:
        raise UserError("stage1 is for stage=2, which begins from it; leave it out of stage=1.")


def hidiff(config: dict, lpips: float = 0.0, first: Restorer | None = None) -> HIDiff:
    """An untrained HI-Diff model.

    Args:
        config: of a run, with the keys ``hidiff`` and ``stage``.
        lpips: weight of the LPIPS in its loss.
        first: the model of ``stage1``.

    Raises:
        UserError: sizes make no sense, the task has holes, or the model of ``stage1`` is no
            finished stage 1 of this task and these sizes.
    """
    if not isinstance(config.get("hidiff"), dict) or config.get("stage") not in (1, 2):
        raise UserError(
            "method=hidiff has no sizes or no stage; give recipe=hidiff with stage=1 or stage=2."
        )
    if config["adapter"].get("masked"):
        raise UserError(
            "recipe=hidiff takes no mask, so it fills no holes; give a task without, such as"
            " task=deblur."
        )
    options = made(HIDiffOptions, config["hidiff"])
    if first is not None:
        _check_first(first, options, config)
    return HIDiff(options, config["stage"], lpips, first)


def _check_first(first: Restorer, options: HIDiffOptions, config: dict) -> None:
    """UserError unless a model is a stage 1 that a stage 2 of these sizes can begin from."""
    # of training; restoring needs none of it
    from irbridge.experiments.run_folder import check_finished

    name = config["stage1"]
    if not isinstance(first, HIDiff) or first.stage != 1:
        what = "stage 2 of HI-Diff" if isinstance(first, HIDiff) else "of another method"
        raise UserError(f"stage1={name} is {what}; give a finished run of recipe=hidiff stage=1.")
    check_finished(first.folder, f"stage1={name}")
    task = read_settings(first.folder / "config.json").get("task", {}).get("name")
    if task != config["task"].get("name"):
        raise UserError(
            f"stage1={name} was trained for another task; give task={task}, or a stage 1 of this"
            " one."
        )
    own, theirs = asdict(options), asdict(first.options)
    # what stage 1 has no part in
    for key in ("denoiser_width", "denoiser_blocks", "steps", "diffusion"):
        own.pop(key)
    for key, value in own.items():
        if theirs[key] != value:
            raise UserError(
                f"stage1={name} has hidiff.{key}={shown(theirs[key])}, not {shown(value)}; give the"
                " recipe that it was trained with."
            )
