"""The command ``irbridge bridges``: the law of every bridge, or of some, as pictures."""

from pathlib import Path

from irbridge.assets import CONFIGS, find
from irbridge.bridges import Bridge
from irbridge.commands.options import BridgesOptions
from irbridge.errors import UserError, unknown
from irbridge.experiments.config import composed
from irbridge.experiments.instantiate import instantiate
from irbridge.files import read_json
from irbridge.own_files import check_writable
from irbridge.priors import prior_from_config
from irbridge.reports.bridge_picture import draw_bridge


def bridges_run(options: BridgesOptions) -> None:
    """Draw the law of each bridge that is named into a folder, and print where.

    Raises:
        UserError: there is no bridge of a name, a word is none of the training's keys, or a file is
            in the way.
    """
    known = known_bridges()
    names = [word for word in options.names if "=" not in word] or known
    words = [word for word in options.names if "=" in word]
    for name in names:
        if name not in known:
            remedy = f"the bridges are {', '.join(known)}"
            raise unknown(f"{name!r} is not a bridge", name, known, remedy)
    folder = Path(options.output)
    bridges = {name: bridge_named(name, words) for name in names}
    for name in names:  # before anything is drawn
        check_writable(folder / f"{name}.png")
    for name, bridge in bridges.items():
        path = folder / f"{name}.png"
        draw_bridge(bridge, name, path, options.seed)
        print(path)


def known_bridges() -> list[str]:
    """The names of the files in ``configs/bridge``."""
    return sorted(path.stem for path in (CONFIGS / "bridge").glob("*.yaml"))


def bridge_named(name: str, words: list[str]) -> Bridge:
    """The bridge that a training with these words would have, on the embedded prior.

    Args:
        name: a file of ``configs/bridge``.
        words: such as ``task=inpaint`` and ``bridge.T=50``.
    """
    try:
        config = composed("train", f"bridge={name}", f"name={name}", *words)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"A word of {' '.join(words)!r} is no key of irbridge train ({error}); give words such"
            " as bridge.T=50 or task=inpaint."
        ) from error
    prior = prior_from_config(read_json(find("data/prior") / "scheduler_config.json"))
    return instantiate(config["bridge"], of="bridge").on(prior)
