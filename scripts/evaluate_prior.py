"""The prior's worth: PSNR of one denoising call, ``python scripts/evaluate_prior.py
images=data/samples/test``.
"""

from irbridge.experiments.config import run_cli


def main(config):
    import numpy as np
    from tqdm import tqdm

    from irbridge.assets import find
    from irbridge.backbones.pixel import load_backbone
    from irbridge.data.image_source import ImageSource
    from irbridge.environment import machine
    from irbridge.evaluation.metrics import psnr
    from irbridge.evaluation.protocol import Protocol

    backbone, images = (
        load_backbone(config["backbone"]["pretrained"]),
        ImageSource(find(config["images"])),
    )
    print(
        f"PSNR in dB, rgb, 8 bit, whole images; {len(images)} images of {config['images']}, seed"
        f" {config['seed']}, {machine()}"
    )
    print(
        "| noise std (of 255) | one call of the prior |"
        + (" non-local means |" if config["classical"] else "")
    )
    print("| ---: | ---: |" + (" ---: |" if config["classical"] else ""))
    denoisers = [lambda *noisy: one_call(backbone, *noisy)] + [non_local_means] * config[
        "classical"
    ]
    for std in config["stds"]:
        scores = []
        for index, name in enumerate(tqdm(images.names, desc=f"std {std}", leave=False)):
            clean = images[index]
            noise = unit_noise(clean, config["seed"], name)
            scores.append(
                [psnr(denoise(clean, noise, std / 255), clean, Protocol()) for denoise in denoisers]
            )
        print(f"| {std} | " + " | ".join(f"{mean:.2f}" for mean in np.mean(scores, axis=0)) + " |")


def unit_noise(image, seed, name):
    """Unit normal noise (1, 3, H, W) for an image (H, W, 3), seeded by (seed, name)."""
    from irbridge.gaussian.noise import Noise, image_seed
    from irbridge.images.arrays import to_tensor

    return Noise([image_seed(seed, name)])(to_tensor(image)[None])


def one_call(backbone, clean, noise, sigma):
    """One call of the prior on ``clean``, (H, W, 3) in [0, 1], with Gaussian noise of std
    ``sigma``, not clipped.
    """
    import torch

    from irbridge.gaussian.marginal import draw
    from irbridge.images.arrays import pad, to_image, to_tensor

    x0, tau = to_tensor(clean)[None], backbone.prior.timestep(2 * sigma)
    with torch.no_grad():
        z = pad(draw(backbone.prior.marginal(tau), x0, x0, noise), backbone.stride)
        return to_image(backbone.denoise(z, tau)[0, :, : len(clean), : clean.shape[1]])


def non_local_means(clean, noise, sigma):
    """scikit-image's non-local means (fast mode, patch 5, distance 6, h = 0.6 sigma) on the same
    noise.
    """
    from skimage.restoration import denoise_nl_means

    noisy = clean + sigma * noise[0].permute(1, 2, 0).numpy()
    return denoise_nl_means(
        noisy,
        patch_size=5,
        patch_distance=6,
        h=0.6 * sigma,
        sigma=sigma,
        fast_mode=True,
        channel_axis=-1,
    ).clip(0, 1)


if __name__ == "__main__":
    run_cli(main, "prior")
