"""What classes that saved configs name are called now.

A config names a class by where it was when the config was written. Runs and adapters of earlier
versions stay readable by this one table.
"""

MOVED = {
    "irbridge.adapters.": {
        "StaticAdapter": "irbridge.adapters.static.StaticAdapter",
        "ControlAdapter": "irbridge.adapters.control.ControlAdapter",
    },
    "irbridge.backbones.": {"load_backbone": "irbridge.backbones.pixel.load_backbone"},
    "irbridge.bridges.": {"OU": "irbridge.bridges.IRSDE", "Residual": "irbridge.bridges.RDBM"},
    "irbridge.degradations.": "irbridge.data.degradations.",
    "irbridge.interpolants.": "irbridge.bridges.",
    "irbridge.latent.": "irbridge.backbones.latent.",
    "irbridge.latent_adapters.": {
        "ControlNet": "irbridge.adapters.controlnet.ControlNet",
        "LoRA": "irbridge.adapters.lora.LoRA",
        "SD3ControlNet": "irbridge.adapters.sd3_controlnet.SD3ControlNet",
        "T2I": "irbridge.adapters.t2i.T2I",
    },
    "irbridge.metrics.": "irbridge.evaluation.protocol.",
    "irbridge.timesteps.": "irbridge.models.timestep_schedule.",
}
"""Where the classes of earlier versions are: a prefix and its successor, or the successor of each
name behind it."""


def present(config):
    """The config, or a part of it, with every class under its present name.

    Args:
        config: plain data: dicts, lists, words, numbers.

    Returns:
        A copy; the given one is left as it is.
    """
    if isinstance(config, dict):
        return {
            key: present_name(value) if key == "_target_" else present(value)
            for key, value in config.items()
        }
    return [present(value) for value in config] if isinstance(config, list) else config


def present_name(target: str) -> str:
    """The dotted name of today; a name that never moved is returned as it is."""
    for prefix, now in MOVED.items():
        name = str(target).removeprefix(prefix)
        if name == target or "." in name:
            continue
        return now + name if isinstance(now, str) else now.get(name, target)
    return target
