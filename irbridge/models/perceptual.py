"""LPIPS as a network: what the metric of that name runs, and a term of a training's loss.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018.
"""

import hashlib
import warnings
from copy import deepcopy
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn

from irbridge.assets import ROOT, remedy
from irbridge.errors import UserError

TRUNK = ROOT / "data" / "metrics" / "alexnet_lpips_trunk.safetensors"
TRUNK_SHA256 = "55e6a715ecf5a8999423276ea50aa4e5c81d6dc4852d6b9af81762bc6440c726"
LPIPS_SIDE = 31  # below this side, in pixels, AlexNet's last pooling has nothing left


@cache
def lpips_network(path: str | Path) -> nn.Module:
    """The network of LPIPS v0.1 with the AlexNet trunk of this file, on the CPU.

    Args:
        path: AlexNet's convolutions under torchvision's names, safetensors.

    Returns:
        A frozen network of two batches of images in [-1, 1], (B, 3, H, W); it gives (B, 1, 1, 1).

    Raises:
        UserError: if the file is not the known one.
    """
    content = Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != TRUNK_SHA256:
        raise UserError(
            f"{path} is not the known AlexNet (its SHA-256 differs), so its LPIPS would not"
            f" compare; {remedy('data/metrics')}."
        )
    # The package draws a random trunk first: neither its warnings nor its draws may be noticed.
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        import lpips

        # a metric may ask for it first, and weights made in inference mode could train nothing
        with torch.inference_mode(False):
            network = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
            trunk = load(content)
            own = network.net.state_dict()
            named = {key: trunk["features." + key.split(".", 1)[1]] for key in own}
            network.net.load_state_dict(named)
            return network.requires_grad_(False)


def perceptual(restored: Tensor, clean: Tensor) -> Tensor:
    """LPIPS of each image, with a gradient.

    Args:
        restored: (B, 3, H, W) in about [-1, 1], sides of 31 or more.
        clean: alike.

    Returns:
        (B,), 0 of equal images.

    Raises:
        UserError: the images are smaller, or the trunk's file is missing or another one.
    """
    if (side := min(clean.shape[2:])) < LPIPS_SIDE:
        raise UserError(
            f"loss.lpips looks at images of {LPIPS_SIDE} pixels a side or more, and these crops"
            f" have {side}; give a larger trainer.crop, or loss.lpips=0."
        )
    network = _on(clean.device)
    # its distances are of small differences between features: half precision would round them off
    with torch.autocast(clean.device.type, enabled=False):
        return network(restored.float(), clean.float()).flatten()


@cache
def _on(device: torch.device) -> nn.Module:
    """The network on a device."""
    if not TRUNK.is_file():
        raise UserError(f"{TRUNK} is missing, of which loss.lpips is; {remedy('data/metrics')}.")
    # the cached one stays on the CPU, where the metric runs
    network = lpips_network(TRUNK)
    if device.type == "cpu":
        return network
    return deepcopy(network).to(device)
