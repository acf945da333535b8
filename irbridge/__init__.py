"""irbridge: image restoration with diffusion bridges on a frozen, pretrained diffusion model.

Example:
    ```python
    import irbridge

    model = irbridge.load("derain")
    restored = model.restore(irbridge.read_image("rain.jpg"), seed=0)
    irbridge.write_image("restored.png", restored)
    ```
"""

from importlib import import_module

from irbridge.assets import __version__

_PLACES = {
    "BridgeNetwork": "irbridge.models.bridge_network",
    "IRBridge": "irbridge.models.irbridge",
    "Refinement": "irbridge.models.refinement",
    "Regression": "irbridge.models.regression",
    "ZeroShot": "irbridge.models.zero_shot",
    "from_pretrained": "irbridge.experiments.build",
    "load": "irbridge.hub",
    "push_to_hub": "irbridge.hub",
    "read_image": "irbridge.images.io",
    "write_image": "irbridge.images.io",
    "zeroshot": "irbridge.models.zero_shot",
}

__all__ = [
    "BridgeNetwork",
    "IRBridge",
    "Refinement",
    "Regression",
    "ZeroShot",
    "__version__",
    "from_pretrained",
    "load",
    "push_to_hub",
    "read_image",
    "write_image",
    "zeroshot",
]


def __getattr__(name: str):
    # Late, so that `import irbridge` does not wait for torch and diffusers.
    if name not in _PLACES:
        raise AttributeError(f"module 'irbridge' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
