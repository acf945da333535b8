"""One classical method a task, without any learning: what a network must beat.

Images are float (H, W, 3) in [0, 1].
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from irbridge.errors import UserError
from irbridge.images.arrays import LUMA, to_bytes

# pixels; a hole's linear system grows with its area, and a far pixel says little about it
TILE = 64


def classical(task: str) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """The method of a task.

    Returns:
        (label, restore). ``restore`` takes and gives float32 (H, W, 3) in [0, 1]; for inpaint it
        takes the mask as a fourth channel, where that is known.

    Raises:
        UserError: if the task has none; it lists those that do.
    """
    if task not in CLASSICAL:
        raise UserError(
            f"task={task} has no classical method; the tasks that do are {', '.join(CLASSICAL)}."
        )
    label, method = CLASSICAL[task]
    return (
        f"Classical ({label})",
        lambda image: np.clip(method(image), 0, 1).astype(np.float32)[..., :3],
    )


def _median(size: tuple[int, int]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: ndimage.median_filter(image, size=(*size, 1), mode="reflect")


def noise_std(image: np.ndarray) -> float:
    """The noise of an image, from the mean response to a mask that ignores linear structure.

    Source: Immerkaer, Fast noise variance estimation, 1996.
    """
    mask = np.outer([1, -2, 1], [1, -2, 1])[..., None]
    response = ndimage.convolve(image.astype(np.float64), mask, mode="reflect")
    return float(np.sqrt(np.pi / 2) / 6 * np.abs(response).mean())


def non_local_means(image: np.ndarray, std: float, strength: float) -> np.ndarray:
    """Non-local means (Buades et al., CVPR 2005) by scikit-image: fast, patch 5, distance 6.

    Args:
        image: (H, W, 3) in [0, 1].
        std: of its noise.
        strength: how much of the std the filter's own h is.
    """
    from skimage.restoration import denoise_nl_means

    return denoise_nl_means(
        image,
        patch_size=5,
        patch_distance=6,
        h=strength * std,
        sigma=std,
        fast_mode=True,
        channel_axis=-1,
    )


def _means(image: np.ndarray) -> np.ndarray:
    """Non-local means of the estimated noise."""
    std = noise_std(image)
    return image if std == 0 else non_local_means(image, std, 0.8)


def _brighten(image: np.ndarray) -> np.ndarray:
    """Gamma to a middle grey of the mean luma, then CLAHE (Zuiderveld, 1994) of the luma.

    The ratios of the colours are kept.
    """
    from skimage.exposure import equalize_adapthist

    mean = float(np.clip((image @ LUMA).mean(), 1e-3, 0.999))
    bright = image ** min(1.0, np.log(0.4) / np.log(mean))
    luma = bright @ LUMA
    gain = equalize_adapthist(luma.clip(0, 1), clip_limit=0.005) / np.maximum(luma, 1e-3)
    return bright * gain[..., None]


def _dehaze(
    image: np.ndarray, radius: int = 7, keep: float = 0.95, floor: float = 0.1
) -> np.ndarray:
    """Dark channel prior (He et al., CVPR 2009).

    Its transmission is refined by the guided filter (He et al., ECCV 2010).

    Args:
        image: to restore.
        radius: of the patch, in pixels.
        keep: share of the haze that is removed, the paper's omega.
        floor: least transmission.
    """

    def dark(x: np.ndarray) -> np.ndarray:
        return ndimage.minimum_filter(x.min(axis=2), 2 * radius + 1)

    darkest = np.argsort(dark(image).ravel())[-max(1, image[..., 0].size // 1000) :]
    light = np.maximum(image.reshape(-1, 3)[darkest].mean(axis=0), 0.1)
    coarse = 1 - keep * dark(image / light)
    guide = image @ LUMA
    width = 8 * radius + 1

    def mean(x: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(x, width, mode="reflect")

    covariance = mean(guide * coarse) - mean(guide) * mean(coarse)
    slope = covariance / (mean(guide**2) - mean(guide) ** 2 + 1e-3)
    transmission = mean(slope) * guide + mean(mean(coarse) - slope * mean(guide))
    return (image - light) / transmission.clip(floor, 1)[..., None] + light


def holes(image: np.ndarray, fill: float = 0.5) -> np.ndarray:
    """(H, W) bool: the pixels that are exactly the fill colour.

    They are compared in float or, where no such pixel is, as saved in 8 bits.
    """
    exact = (image == np.float32(fill)).all(axis=2)
    if exact.any():
        return exact
    return (to_bytes(image) == to_bytes(np.float32(fill))).all(axis=2)


def _inpaint(image: np.ndarray) -> np.ndarray:
    """Biharmonic inpainting (Damelin and Hoang, 2018), tile by tile.

    Each tile sees a margin of half a tile around it.
    """
    from skimage.restoration import inpaint_biharmonic

    mask = image[..., 3] > 0.5 if image.shape[2] > 3 else holes(image)
    image = image[..., :3]
    result = image.copy()
    for top in range(0, image.shape[0], TILE):
        for left in range(0, image.shape[1], TILE):
            inner = np.s_[top : top + TILE, left : left + TILE]
            if not mask[inner].any():
                continue
            y = max(0, top - TILE // 2)
            x = max(0, left - TILE // 2)
            outer = np.s_[y : top + TILE + TILE // 2, x : left + TILE + TILE // 2]
            if mask[outer].all():  # nothing known is near: the mean of what is known anywhere
                result[inner] = image[~mask].mean(axis=0) if not mask.all() else image[inner]
                continue
            filled = inpaint_biharmonic(
                image[outer], mask[outer], channel_axis=-1, split_into_regions=True
            )
            result[inner] = filled[top - y : top - y + TILE, left - x : left - x + TILE]
    return result


def _deconvolve(image: np.ndarray, sigma: float = 1.5, steps: int = 5) -> np.ndarray:
    """Richardson-Lucy with an isotropic Gaussian of ``sigma`` pixels.

    Nothing is known of the camera's true path.
    """
    estimate = np.maximum(image, 1e-3)
    for _ in range(steps):
        ratio = image / np.maximum(ndimage.gaussian_filter(estimate, (sigma, sigma, 0)), 1e-3)
        estimate = estimate * ndimage.gaussian_filter(ratio, (sigma, sigma, 0))
    return estimate


def _sharpen(image: np.ndarray, sigma: float = 1.5, amount: float = 0.6) -> np.ndarray:
    """Unsharp mask of the bicubically enlarged input."""
    return image + amount * (image - ndimage.gaussian_filter(image, (sigma, sigma, 0)))


CLASSICAL = {
    "derain": ("median 1 x 11", _median((1, 11))),  # streaks are thin and nearly upright
    "dehaze": ("dark channel prior", _dehaze),
    "desnow": ("median 3 x 3", _median((3, 3))),
    "raindrop": ("non-local means", _means),
    "lowlight": ("gamma and CLAHE", _brighten),
    "inpaint": ("biharmonic", _inpaint),
    "deblur": ("Richardson-Lucy", _deconvolve),
    "sr": ("bicubic and unsharp mask", _sharpen),
    "denoise": ("non-local means", _means),
}
