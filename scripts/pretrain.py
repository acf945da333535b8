"""Train the unconditional prior: ``python scripts/pretrain.py "data.train=[photos.tar]"``; again to resume.

Writes an ordinary diffusers folder to ``<run>/prior``, which ``backbone.pretrained=`` takes.
"""

from pathlib import Path

from irbridge.config import run_cli


def main(cfg):
    from irbridge.build import find
    from irbridge.config import plain
    from irbridge.data import CropStream
    from irbridge.images import write_image
    from irbridge.pretraining import Photographs, Pretrainer, new_backbone, save_prior
    from irbridge.runs import claim, mirror
    from irbridge.training import fit
    from irbridge.viz import grid

    config = plain(cfg)
    run = Path(config["run"])
    claim(run, config)
    data = config["data"]
    photographs = Photographs([find(p) for p in data["train"]], find(data["exclude"]) if data["exclude"] else None)
    backbone = new_backbone(config["unet"], config["scheduler"], config["start"], config["seed"])
    model = Pretrainer(backbone, **config["levels"])
    size = config["trainer"]["crop"]

    def sample(current, step):
        import torch
        drawn = current.restore(torch.zeros(8, backbone.channels, size, size, device=next(current.parameters()).device))
        images = [((x + 1) / 2).cpu().permute(1, 2, 0).numpy() for x in drawn]
        write_image(run / "samples" / f"step-{step:06d}.png", grid([images[:4], images[4:]]))

    done = fit(model, CropStream(photographs, size, config["seed"]), config["trainer"], config["seed"], run, sample,
               lambda weights: save_prior(backbone, weights, config["scheduler"], run / "prior"), mirror(config, run))
    print(f"{'Finished' if done else 'Stopped and saved; run the same command to go on'}: {run / 'prior'}")


if __name__ == "__main__":
    run_cli(main, "pretrain")
