"""The prior's worth: PSNR of one denoising call, ``python scripts/evaluate_prior.py images=data/samples/test``."""

from irbridge.config import run_cli


def main(cfg):
    import numpy as np
    from tqdm import tqdm

    from irbridge.backbones import load_backbone
    from irbridge.build import find
    from irbridge.data import ImageSource
    from irbridge.evaluation import machine
    from irbridge.pretraining import denoising_psnr, non_local_means_psnr

    backbone, images = load_backbone(cfg.backbone.pretrained), ImageSource(find(cfg.images))
    print(f"PSNR in dB, rgb, 8 bit, whole images; {len(images)} images of {cfg.images}, seed {cfg.seed}, {machine()}")
    print("| noise std (of 255) | one call of the prior |" + (" non-local means |" if cfg.classical else ""))
    print("| ---: | ---: |" + (" ---: |" if cfg.classical else ""))
    for std in cfg.stds:
        columns = [denoising_psnr(backbone, images, std, cfg.seed)]
        columns += [non_local_means_psnr(images, std, cfg.seed)] if cfg.classical else []
        means = [np.mean([v for _, v in tqdm(c, total=len(images), desc=f"std {std}", leave=False)]) for c in columns]
        print(f"| {std} | " + " | ".join(f"{m:.2f}" for m in means) + " |")


if __name__ == "__main__":
    run_cli(main, "prior")
