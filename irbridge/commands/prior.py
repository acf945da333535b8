"""The command ``irbridge prior``: what a prior is worth.

As a denoiser that is the PSNR of one call, as a generator the kernel distance of its draws.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from irbridge.assets import find
from irbridge.backbones.pixel import PixelBackbone, load_backbone
from irbridge.data.image_source import ImageSource
from irbridge.environment import machine
from irbridge.evaluation.classical import non_local_means
from irbridge.evaluation.draws import write_draws
from irbridge.evaluation.kid import check_count, kid_of_files, kid_of_folders
from irbridge.evaluation.metrics import psnr
from irbridge.evaluation.protocol import Protocol
from irbridge.evaluation.records import slug
from irbridge.gaussian.marginal import draw
from irbridge.gaussian.noise import Noise, image_seed
from irbridge.images.arrays import pad, to_image, to_tensor
from irbridge.images.io import list_images


def prior_run(config: dict) -> None:
    """Print a table of PSNR by noise level, or with ``kid.samples`` the distance of its draws.

    Raises:
        UserError: prior or images are not there, or too few.
    """
    if config["kid"]["samples"]:
        kid_run(config)
        return
    backbone = load_backbone(config["backbone"]["pretrained"])
    images = ImageSource(find(config["images"]))
    classical, seed = config["classical"], config["seed"]
    print(
        f"PSNR in dB, rgb, 8 bit, whole images; {len(images)} images of {config['images']}, seed"
        f" {seed}, {machine()}"
    )
    print("| noise std (of 255) | one call of the prior |" + " non-local means |" * classical)
    print("| ---: | ---: |" + " ---: |" * classical)
    for std in config["stds"]:
        scores = []
        for index, name in enumerate(tqdm(images.names, desc=f"std {std}", leave=False)):
            clean = images[index]
            noise = unit_noise(clean, seed, name)
            denoised = [one_call(backbone, clean, noise, std / 255)]
            if classical:
                noisy = clean + std / 255 * noise[0].permute(1, 2, 0).numpy()
                denoised.append(non_local_means(noisy, std / 255, 0.6).clip(0, 1))
            scores.append([psnr(image, clean, Protocol()) for image in denoised])
        print(f"| {std} | " + " | ".join(f"{mean:.2f}" for mean in np.mean(scores, axis=0)) + " |")


def kid_run(config: dict) -> None:
    """Print kid_lpips of the prior's draws against the images, and of other real images."""
    options, images, seed = config["kid"], find(config["images"]), config["seed"]
    check_count(options["samples"], "kid.samples")
    check_count(len(list_images(images)), str(images))
    if options["against"]:
        floor = kid_of_folders(find(options["against"]), images, seed)
        print(f"real images, {options['against']}: {floor.in_words()}")
    backbone = load_backbone(config["backbone"]["pretrained"])
    made_of = {"prior": backbone.digest[:12], "seed": seed}
    made_of |= {key: options[key] for key in ("size", "calls", "precision")}
    default = "runs/draws/" + slug(" ".join(map(str, made_of.values())))
    folder = Path(options["output"] or default)
    files = write_draws(backbone, folder, options["samples"], made_of)
    found = kid_of_files(files, list_images(images), str(folder), str(images), seed)
    print(
        f"draws of {backbone.name}, {options['calls']} DDIM calls, {options['precision']}, seed"
        f" {seed}: {found.in_words()}\nagainst {config['images']}; {machine()}; in {folder}"
    )


def unit_noise(image: np.ndarray, seed: int, name: str) -> Tensor:
    """Unit normal noise (1, 3, H, W) for an image (H, W, 3), seeded by (seed, name)."""
    return Noise([image_seed(seed, name)])(to_tensor(image)[None])


def one_call(backbone: PixelBackbone, clean: np.ndarray, noise: Tensor, sigma: float) -> np.ndarray:
    """One call of the prior on a noisy image, which is not clipped.

    Args:
        backbone: the prior.
        clean: (H, W, 3) in [0, 1].
        noise: unit normal, (1, 3, H, W).
        sigma: std of the noise in units of the image.

    Returns:
        The denoised image, (H, W, 3).
    """
    height, width = clean.shape[:2]
    x0, tau = to_tensor(clean)[None], backbone.prior.timestep(2 * sigma)
    with torch.no_grad():
        z = pad(draw(backbone.prior.marginal(tau), x0, x0, noise), backbone.stride)
        return to_image(backbone.denoise(z, tau)[0, :, :height, :width])
