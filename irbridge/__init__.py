"""irbridge: image restoration with diffusion bridges on a frozen, pretrained diffusion model."""

from irbridge.assets import __version__

__all__ = ["IRBridge", "__version__", "read_image", "write_image"]


def __getattr__(name: str):
    # Late, so that `import irbridge` does not wait for torch and diffusers.
    if name == "IRBridge":
        from irbridge.models.irbridge import IRBridge

        return IRBridge
    if name in ("read_image", "write_image"):
        from irbridge.images import io

        return getattr(io, name)
    raise AttributeError(f"module 'irbridge' has no attribute {name!r}")
