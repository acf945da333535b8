"""The command ``irbridge convert_hidiff``: the released weights of HI-Diff as a model."""

from pathlib import Path

from irbridge.assets import find
from irbridge.commands.export import EXPORTED
from irbridge.commands.options import ConvertHIDiffOptions
from irbridge.errors import UserError
from irbridge.experiments.build import build_model, describe, save_pretrained
from irbridge.experiments.config import composed
from irbridge.files import locked, write_json
from irbridge.models.hidiff_weights import gather
from irbridge.reports.model_card import private
from irbridge.weights import load_into

NAMES = "net_g.pth", "net_le_dm.pth", "net_d.pth"
FIRST = "net_g.pth", "net_le.pth"  # of stage 1


def convert_run(options: ConvertHIDiffOptions) -> None:
    """Write a folder that restores as any trained run does.

    Raises:
        UserError: a file is missing or is not of a published variant, or the output is taken.
    """
    output = Path(options.output)
    if output.exists() and not output.is_dir():
        raise UserError(f"output={output} is a file; give another output.")
    if taken := [path.name for path in output.glob("*")]:
        raise UserError(f"output={output} holds {min(taken)}; give a folder that is not there yet.")
    variant, stage, weights = gather(files(options.weights))
    config = composed("train", f"recipe=hidiff_{variant}", "task=deblur", f"stage={stage}")
    model = build_model(config)
    load_into(model.trainable(), weights, ", ".join(options.weights))
    with locked(output):
        write_json(output / "run.json", private(config) | EXPORTED)
        save_pretrained(model, output, describe(config, model))
    print(f"HI-Diff of the {variant} variant, stage {stage}. Wrote: {output}")


def files(given: tuple[str, ...]) -> list[Path]:
    """The files that the words of a command name.

    Args:
        given: files, or one folder of them, which may be of either stage.

    Raises:
        UserError: a folder lacks them.
    """
    found = []
    for word in given:
        path = find(word)
        if not path.is_dir():
            found.append(path)
            continue
        wanted = NAMES if (path / NAMES[1]).is_file() else FIRST
        lacking = [name for name in wanted if not (path / name).is_file()]
        if lacking:
            raise UserError(f"{path} holds no {lacking[0]}; give HI-Diff's released files.")
        found += [path / name for name in wanted]
    return found
