"""Train the unconditional prior: ``python scripts/pretrain.py "data.train=[photos.tar]"``; again to
resume.

Writes an ordinary diffusers folder to ``<run>/prior``, which ``backbone.pretrained=`` takes.
"""

from pathlib import Path

from irbridge.errors import UserError
from irbridge.experiments.config import run_cli


def main(config):
    from irbridge.assets import find
    from irbridge.data.crops import CropStream
    from irbridge.data.pairs import photographs_of
    from irbridge.environment import set_threads
    from irbridge.experiments.run_folder import claim, mirror, run_folder
    from irbridge.images.grid import grid
    from irbridge.images.io import write_image
    from irbridge.models.pretrainer import Pretrainer
    from irbridge.training.checkpoint import Checkpoints
    from irbridge.training.trainer import fit

    run = run_folder(config)
    set_threads(config["threads"], Checkpoints(run).state().get("threads"))
    claim(run, config)
    data = config["data"]
    photographs = photographs_of(
        [find(p) for p in data["train"]], find(data["exclude"]) if data["exclude"] else None
    )
    backbone = new_backbone(config["unet"], config["scheduler"], config["start"], config["seed"])
    model = Pretrainer(backbone, **config["levels"])
    size = config["trainer"]["crop"]

    def sample(current, step):
        import torch

        drawn = current.restore(
            torch.zeros(8, backbone.channels, size, size, device=next(current.parameters()).device)
        )
        images = [((x + 1) / 2).cpu().permute(1, 2, 0).numpy() for x in drawn]
        write_image(run / "samples" / f"step-{step:06d}.png", grid([images[:4], images[4:]]))

    done = fit(
        model,
        CropStream(photographs, size, config["seed"]),
        config["trainer"],
        config["seed"],
        run,
        sample,
        lambda weights: save_prior(backbone, weights, run / "prior"),
        mirror(config, run),
        on_device=data["on_device"],
    )
    print(
        f"{'Finished' if done else 'Stopped and saved; run the same command to go on'}:"
        f" {run / 'prior'}"
    )


def new_backbone(unet: dict, scheduler: dict, start: str | None, seed: int):
    """A fresh UNet2DModel of the given config, or the one saved in the folder ``start``, with its
    prior.
    """
    import torch
    from diffusers import UNet2DModel

    from irbridge.backbones.pixel import PixelBackbone, load_backbone
    from irbridge.priors.from_diffusers import prior_from_config

    if start:
        return load_backbone(start)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return PixelBackbone(
                UNet2DModel(**unet), prior_from_config(scheduler), "new", scheduler=scheduler
            )
        except (ValueError, TypeError) as error:
            raise UserError(
                f"A UNet2DModel cannot be built of the keys unet.* ({error}); see "
                "configs/pretrain.yaml."
            ) from error


def save_prior(backbone, weights: dict, folder: Path) -> None:
    """Write an ordinary diffusers folder: config, fp16 safetensors, scheduler config."""
    import diffusers

    copy = type(backbone.network).from_config(
        {k: v for k, v in backbone.network.config.items() if k != "_name_or_path"}
    )
    copy.load_state_dict(weights)
    copy.half().save_pretrained(folder)
    getattr(diffusers, backbone.scheduler["_class_name"]).from_config(
        {k: v for k, v in backbone.scheduler.items() if k != "_class_name"}
    ).save_pretrained(folder)


if __name__ == "__main__":
    run_cli(main, "pretrain")
