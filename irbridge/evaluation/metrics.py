"""PSNR, SSIM and LPIPS of one restored image under a stated protocol. Nothing here downloads."""

import hashlib
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from irbridge.assets import ROOT, remedy
from irbridge.errors import UserError
from irbridge.evaluation.protocol import Protocol
from irbridge.images.arrays import to_bytes

TRUNK = ROOT / "data" / "metrics" / "alexnet_lpips_trunk.safetensors"
TRUNK_SHA256 = "55e6a715ecf5a8999423276ea50aa4e5c81d6dc4852d6b9af81762bc6440c726"
MAX_PSNR = 100.0  # dB; stands for identical images too, so that every score is finite
SSIM_WINDOW = 11
LPIPS_SIDE = 31  # below this side, in pixels, AlexNet's last pooling has nothing left


def psnr(restored: np.ndarray, clean: np.ndarray, protocol: Protocol) -> float:
    """Peak signal-to-noise ratio in dB of float (H, W, 3) in [0, 1], peak 255 in either space, at
    most ``MAX_PSNR``. UserError if shapes differ, the images are not float (H, W, 3) or not finite,
    or the crop leaves nothing.
    """
    from skimage.metrics import peak_signal_noise_ratio

    restored, clean = _prepared(restored, clean, protocol, 1)
    with np.errstate(divide="ignore"):
        return min(float(peak_signal_noise_ratio(clean, restored, data_range=255)), MAX_PSNR)


def ssim(restored: np.ndarray, clean: np.ndarray, protocol: Protocol) -> float:
    """Structural similarity (Wang et al., 2004): Gaussian 11 x 11 window, sigma 1.5, mean over
    channels. Windows that would leave the image are not counted. Arguments and errors as
    :func:`psnr`.
    """
    from skimage.metrics import structural_similarity

    restored, clean = _prepared(restored, clean, protocol, SSIM_WINDOW)
    return float(
        structural_similarity(
            clean,
            restored,
            win_size=SSIM_WINDOW,
            gaussian_weights=True,
            sigma=1.5,
            K1=0.01,
            K2=0.03,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=-1 if clean.ndim == 3 else None,
        )
    )


class LPIPS:
    """LPIPS v0.1 with AlexNet (Zhang et al., CVPR 2018) of the ``lpips`` package, on the CPU.
    ``path``: AlexNet's convolutions under torchvision's names, safetensors; UserError if the file
    is missing or is not the one known to give the published scores.
    """

    def __init__(self, path: str | Path = TRUNK):
        if not Path(path).is_file():
            raise UserError(f"The LPIPS weights {path} are missing; {remedy('data/metrics')}.")
        content = Path(path).read_bytes()
        if hashlib.sha256(content).hexdigest() != TRUNK_SHA256:
            raise UserError(
                f"{path} is not the known AlexNet (its SHA-256 differs), so its LPIPS would not"
                f" compare; {remedy('data/metrics')}."
            )
        import torch
        from safetensors.torch import load

        # The package draws a random trunk first: neither its warnings nor its draws may be noticed.
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            import lpips

            self.network = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
        trunk, net = load(content), self.network.net
        net.load_state_dict(
            {key: trunk["features." + key.split(".", 1)[1]] for key in net.state_dict()}
        )

    @classmethod
    def load(cls, path: str | Path = TRUNK) -> "LPIPS | None":
        """LPIPS, or None where the weights are missing: scores then hold None. Other weights still
        raise.
        """
        return cls(path) if Path(path).is_file() else None

    def __call__(self, restored: np.ndarray, clean: np.ndarray) -> float:
        """Distance of two float (H, W, 3) in [0, 1], sides of 31 pixels or more; 0 for identical
        images.
        """
        import torch

        if min(clean.shape[:2]) < LPIPS_SIDE:
            raise UserError(
                f"Images of {clean.shape[0]} x {clean.shape[1]} pixels are too small for LPIPS; "
                f"use {LPIPS_SIDE} or more a side."
            )
        pair = torch.from_numpy(np.stack([restored, clean])).permute(0, 3, 1, 2).float() * 2 - 1
        with torch.inference_mode():
            return self.network(pair[:1], pair[1:]).item()


def score(
    restored: np.ndarray, clean: np.ndarray, protocol: Protocol, lpips: LPIPS | None = None
) -> dict:
    """``{"psnr": dB, "ssim": ..., "lpips": ...}`` under the protocol; lpips is None where not
    given. LPIPS is always of the 8-bit RGB images, after the protocol's crop. Arguments and errors
    as :func:`psnr`.
    """
    distance = None
    if lpips is not None:
        pair = _prepared(restored, clean, replace(protocol, space="rgb", quantise=True), 1)
        distance = lpips(*(image / 255 for image in pair))
    return {
        "psnr": psnr(restored, clean, protocol),
        "ssim": ssim(restored, clean, protocol),
        "lpips": distance,
    }


def bootstrap_interval(values, seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """95 % percentile bootstrap interval (low, high) of the mean; one value gives itself twice."""
    values, rng = np.asarray(values, dtype=np.float64), np.random.default_rng([seed])
    at_once = max(1, 10**6 // len(values))  # bounds the memory; the draws are the same in pieces
    means = np.concatenate(
        [
            values[rng.integers(0, len(values), (min(at_once, draws - i), len(values)))].mean(
                axis=1
            )
            for i in range(0, draws, at_once)
        ]
    )
    return tuple(float(v) for v in np.percentile(means, (2.5, 97.5)))


def _prepared(restored, clean, protocol: Protocol, smallest: int) -> list[np.ndarray]:
    """Both images as the protocol compares them: float64 on 0 to 255, (H, W, 3) or, in y, (H,
    W).
    """
    if restored.shape != clean.shape:
        raise UserError(
            f"The restored image {restored.shape} and its reference {clean.shape} differ in "
            "shape; compare images of one size."
        )
    images = [_prepare(restored, protocol), _prepare(clean, protocol)]
    if min(images[0].shape[:2]) < smallest:
        raise UserError(
            f"An image of shape {clean.shape} with crop {protocol.crop} leaves less than the "
            f"{smallest} x {smallest} pixels to score; use larger images or a smaller crop."
        )
    return images


def _prepare(image: np.ndarray, protocol: Protocol) -> np.ndarray:
    if (
        image.ndim != 3
        or image.shape[2] != 3
        or image.dtype.kind != "f"
        or not np.isfinite(image).all()
    ):
        raise UserError(
            "An image to score must be finite float (H, W, 3) in [0, 1], not "
            f"{image.dtype} {image.shape} or NaN; read it with irbridge.read_image."
        )
    x = to_bytes(image) if protocol.quantise else image.clip(0, 1).astype(np.float64) * 255
    height, width, c = *x.shape[:2], protocol.crop
    x = x[c : max(height - c, c), c : max(width - c, c)].astype(np.float64)
    return x if protocol.space == "rgb" else 16 + x @ np.array([65.481, 128.553, 24.966]) / 255
