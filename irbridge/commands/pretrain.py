"""The command ``irbridge pretrain``: train an unconditional prior.

It writes an ordinary diffusers folder to ``<run>/prior``, which ``backbone.pretrained=`` takes.
"""

import shutil
import tempfile
from pathlib import Path

import diffusers
import torch

from irbridge.assets import find
from irbridge.backbones.pixel import PixelBackbone, load_backbone
from irbridge.backbones.pretrained_files import OF_SCHEDULER, check_network
from irbridge.commands.train import alone, check_memory
from irbridge.data.crops import CropStream
from irbridge.data.selection import photographs_of
from irbridge.environment import affordable, processes, set_threads
from irbridge.errors import UserError
from irbridge.evaluation.share import agreed
from irbridge.experiments.build import trainer_options
from irbridge.experiments.run_folder import claim, mirror, run_folder, saved_alone
from irbridge.files import remove_leftovers, write_atomically
from irbridge.images.grid import grid
from irbridge.images.io import write_image
from irbridge.models.pretrainer import Pretrainer
from irbridge.priors.from_diffusers import prior_from_config
from irbridge.ranges import check_values
from irbridge.training.checkpoint import Checkpoints
from irbridge.training.trainer import Trainer


def pretrain_run(config: dict) -> None:
    """Train as configured, with samples on the way, and write the prior.

    Raises:
        UserError: the config, the photographs or the weights to start from are wrong.
    """
    run = run_folder(config)
    set_threads(config["threads"], Checkpoints(run).state().get("threads"))
    trainer = config["trainer"]
    check_memory(trainer)
    with alone(run, cpu=trainer["device"] == "cpu") as main:
        state = processes()
        agreed(lambda: claim(run, config), (state.process_index, state.num_processes))
        if main:
            remove_leftovers(run)
        done = saved_alone(run) or _train(config, run)
    ended = "Finished" if done else "Stopped and saved; run the same command to go on"
    if main:
        print(f"{ended}: {run / 'prior'}")


def _train(config: dict, run: Path) -> bool:
    """Train into a run's folder; whether it is complete."""
    data = config["data"]
    photographs = photographs_of(
        [find(p) for p in data["train"]], find(data["exclude"]) if data["exclude"] else None
    )
    backbone = new_backbone(config["unet"], config["scheduler"], config["start"], config["seed"])
    model = Pretrainer(backbone, **config["levels"])
    options = trainer_options(config)
    size = options.crop

    def sample(current, step):
        place = next(current.parameters()).device
        drawn = current.restore(torch.zeros(8, backbone.channels, size, size, device=place))
        images = [((x + 1) / 2).cpu().permute(1, 2, 0).numpy() for x in drawn]
        write_image(run / "samples" / f"step-{step:06d}.png", grid([images[:4], images[4:]]))

    return Trainer(
        model,
        CropStream(photographs, size, config["seed"]),
        options,
        config["seed"],
        run,
        sample,
        lambda weights: save_prior(backbone, weights, run / "prior"),
        mirror(config, run),
        on_device=data["on_device"],
    ).run()


def new_backbone(unet: dict, scheduler: dict, start: str | None, seed: int) -> PixelBackbone:
    """A network to train, with its prior.

    Args:
        unet: config of a fresh ``UNet2DModel``.
        scheduler: config of the diffusers scheduler that says its prior.
        start: a diffusers folder to go on from instead.
        seed: of the fresh weights.

    Raises:
        UserError: it cannot be built or loaded.
    """
    if start:
        return load_backbone(start)
    check_network(unet, "unet")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        check_values(OF_SCHEDULER, scheduler, "scheduler")
        try:
            network = affordable(
                lambda: diffusers.UNet2DModel(**unet), "unet.block_out_channels or layers_per_block"
            )
            prior = prior_from_config(scheduler)
            return PixelBackbone(network, prior, "new", scheduler=scheduler)
        except (ValueError, TypeError, AttributeError, ZeroDivisionError, RuntimeError) as error:
            raise UserError(
                f"A UNet2DModel cannot be built of the keys unet.* ({error}); see "
                "configs/pretrain.yaml."
            ) from error


def save_prior(backbone: PixelBackbone, weights: dict, folder: Path) -> None:
    """Write an ordinary diffusers folder: config, fp16 safetensors, scheduler config.

    Each file is the old one or the new one, whole, at any moment.
    """
    config = {k: v for k, v in backbone.network.config.items() if k != "_name_or_path"}
    copy = type(backbone.network).from_config(config)
    copy.load_state_dict(weights)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".prior-", suffix=".tmp", dir=folder.parent))
    try:
        copy.half().save_pretrained(aside)
        _scheduler(backbone).save_pretrained(aside)
        for file in sorted(aside.iterdir()):
            write_atomically(folder / file.name, file.rename)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _scheduler(backbone: PixelBackbone):
    """The diffusers scheduler that says a backbone's prior."""
    scheduler = getattr(diffusers, backbone.scheduler["_class_name"])
    config = {k: v for k, v in backbone.scheduler.items() if k != "_class_name"}
    return scheduler.from_config(config)
