"""What ``irbridge COMMAND --help`` says of the commands under Hydra."""

from textwrap import fill
from typing import NamedTuple


class Page(NamedTuple):
    """A help page.

    Attributes:
        summary: what the command does.
        keys: the usual ones, each with a sentence.
        examples: commands.
    """

    summary: str
    keys: dict[str, str]
    examples: tuple[str, ...]

    def text(self, command: str) -> str:
        """The page of a command of that name."""
        lines = [f"Usage: irbridge {command} [key=value]...", ""]
        lines += [fill(self.summary, 98, initial_indent="  ", subsequent_indent="  "), "", "Keys:"]
        widest = 2 + max(map(len, self.keys))
        for key, sentence in self.keys.items():
            start = f"  {key.ljust(widest)}"
            lines.append(fill(start + sentence, 98, subsequent_indent=" " * len(start)))
        lines += ["", "Examples:", *(f"  {example}" for example in self.examples), ""]
        lines.append(f"irbridge {command} --cfg job prints every key and its value.")
        return "\n".join(lines)


SAMPLER = {
    "sampler": "A step rule by name, such as posterior or ddim; docs/samplers.md has all.",
    "sampler.nfe": "Calls of the network.",
}
COMMON = {
    "seed": "Seed of all that is random.",
    "threads": "Threads of the CPU; null: as many as cores are free.",
}
SCORED = {
    "size": "Pixels of a side of the centre crops; null: whole images.",
    "limit": "Only so many images; null: all.",
    "results": "Folder of the records; null: one named by the settings.",
}
TRAIN = {
    "task": "What is restored: derain, dehaze, desnow, raindrop, lowlight, inpaint, deblur, sr,"
    " sr8, denoise, universal, or paired, your own pairs.",
    "recipe": "How a model is trained: irbridge, through the frozen model; bridge, a network from"
    " scratch, or goub, irsde, rdbm, ... of one bridge; refine, a predictor and the diffusion of"
    " what it leaves, refine_frozen on a finished regression, refine_published; hidiff, and"
    " hidiff_gopro or hidiff_realblur as published; published; regression.",
    "bridge": "The process between clean and degraded: brownian, goub, ou, rdbm, i2sb, ...",
    "endpoint": "Where the bridge ends: anchor, the adapter's coarse estimate, or y.",
    "backbone": "The frozen model: embedded, faces, celebahq256, church256, sd15, sd21 or sd3.",
    "backbone.pretrained": "Its folder or hub id, where it is not the usual one.",
    "adapter": "What is trained: static, control; of latents controlnet, t2i, lora, ...",
    "trainer": "The training's size: cpu, gpu, latent, ship or ship_gpu.",
    "trainer.minutes": "How long it may take; null: trainer.steps decide.",
}

PAGES = {
    "train": Page(
        "Train a restoration model, score it on held-back images and draw it. The same command"
        " again goes on where it was stopped, or prints the same table.",
        TRAIN
        | SAMPLER
        | {
            "data.clean": "Of task=paired: folder of the clean images; data.degraded: of theirs.",
            "data.benchmark": "A public set, such as rain100h; data.root: its folder.",
            "stage": "Of recipe=hidiff: 1, the oracle that stage 2 learns from; 2, the method.",
            "stage1": "Of stage=2: the folder of the finished stage 1, runs/TASK-hidiff_stage1.",
            "refine.predictor": "Of recipe=refine and refine_frozen: the folder of a finished"
            " regression, or spandrel:FILE; refine_frozen takes run_root/TASK-regression if it is"
            " left out.",
            "name": "Tells apart the runs of one task; the run is run_root/TASK-NAME.",
            "run_root": "Folder of the runs.",
            "baseline": "Whether plain regression is trained beside it.",
            "experiment": "A study of one or many runs: faces, ship, tasks, efficiency, rdbm,"
            " paper/...",
            "debug": "default: the whole command in seconds.",
        }
        | COMMON,
        (
            "irbridge train task=derain",
            "irbridge train task=derain trainer.minutes=60 name=hour",
            "irbridge train task=paired data.clean=DIR data.degraded=DIR",
            "irbridge train -m task=derain,dehaze bridge=brownian,goub",
        ),
    ),
    "evaluate": Page(
        "Score a trained run, or every method on a task's test images, and print the table. The"
        " same command again goes on.",
        {
            "run": "Folder of a trained run.",
            "task": "The task whose test images are taken; without run, its shipped adapter.",
            "method": "all, or one of irbridge, ddim, dpmpp, anchor, regression, refine, bridge,"
            " hidiff, identity, classical, outputs; or spandrel:FILE, a released network.",
            **SAMPLER,
            "samples": "Besides one draw of an image also the mean of so many.",
            "benchmark": "A public test set, such as rain100h; data.root: its folder.",
            "data.clean": "Folder of your own clean images; data.degraded: of theirs.",
            "outputs": "Folder of another method's restored images, to be scored.",
            "save_images": "Whether the restored images are kept, for FID and pages.",
            **SCORED,
            "device": "auto (CUDA, else MPS, else CPU), cpu, cuda or mps.",
            **COMMON,
        },
        (
            "irbridge evaluate run=runs/derain-brownian sampler.nfe=10",
            "irbridge evaluate -m task=derain,dehaze method=identity,irbridge",
            "irbridge evaluate task=derain benchmark=rain100h data.root=DIR size=null",
        ),
    ),
    "compare": Page(
        "Score one trained adapter with every bridge, step rule and number of network calls, and"
        " print the tables. The same command again goes on.",
        {
            "run": "Folder of a trained run of method irbridge.",
            "bridges": "Bridges, a list of files of configs/bridge.",
            "samplers": "Step rules, a list.",
            "spacings": "How the times are spaced: time, logsnr, karras.",
            "nfe": "Numbers of network calls; 0: the anchor alone.",
            "split": "test, or validation: the images that the run held back for choices.",
            **SCORED,
            **COMMON,
        },
        (
            "irbridge compare run=data/adapters/derain",
            "irbridge compare run=runs/mine 'bridges=[brownian]' 'samplers=[reverse,ddim]'"
            " 'nfe=[1,3]'",
        ),
    ),
    "pretrain": Page(
        "Train an unconditional diffusion prior on photographs, and write it as a diffusers folder"
        " that backbone.pretrained= takes. The same command again goes on.",
        {
            "data.train": "Folders or tars of photographs, a list.",
            "data.exclude": "Images with the names of those in this folder are left out.",
            "start": "A diffusers folder to go on from; null: fresh weights.",
            "unet.block_out_channels": "Channels of the network's levels, a list.",
            "trainer.steps": "Steps of the training.",
            "trainer.crop": "Pixels of a side of the crops.",
            "name": "The run is run_root/NAME.",
            "run_root": "Folder of the runs.",
            **COMMON,
        },
        ('irbridge pretrain "data.train=[photos.tar,data/samples/train]"',),
    ),
    "prior": Page(
        "Score a prior as a denoiser: the PSNR of one call at some noise levels. With kid.samples"
        " as a generator: how far its draws are from real images.",
        {
            "images": "Folder of clean photographs.",
            "backbone.pretrained": "The prior's folder or hub id; null: the embedded one.",
            "stds": "Stds of the noise, of 255, a list.",
            "classical": "Whether non-local means are scored beside it.",
            "kid.samples": "Draws of the prior that are compared with the images, 50 or more.",
            "kid.against": "A folder of other real images, whose distance is told beside.",
            "kid.calls": "Calls of the network for a draw, by DDIM.",
            "seed": COMMON["seed"],
        },
        ("irbridge prior images=data/samples/test backbone.pretrained=runs/longer/prior",),
    ),
    "profile": Page(
        "Measure where the time and memory of training and restoring go; or, with"
        " benchmark.restore, time the whole restore command. It takes every key of train as well.",
        {
            "task": "The task whose model is measured.",
            "backbone": "The frozen model: embedded, sd15, ...",
            "adapter": "What is trained: static, control, controlnet, ...",
            "trainer.crop": "Pixels of a side of the training's crops.",
            "benchmark.steps": "Steps and restorations that are measured.",
            "benchmark.size": "Pixels of a side of the restored images.",
            "benchmark.restore": "A task: time irbridge restore with its shipped adapter.",
            "benchmark.sizes": "Pixels of a side of the photographs that it restores, a list.",
            "benchmark.against": "Folder of another checkout, which runs in turn with this one.",
            "benchmark.throughput": "Fit a formula of images a second to timed training steps.",
            "benchmark.crops": "Pixels of a side of the crops of these steps, a list.",
            "benchmark.batches": "Images of these steps, a list.",
            "benchmark.widths": "Values of adapter.width of these steps, a list.",
            "output": "A .json file for the numbers.",
            **COMMON,
        },
        (
            "irbridge profile task=derain adapter=control",
            "irbridge profile benchmark.restore=derain 'benchmark.sizes=[512]'",
            "irbridge profile benchmark.throughput=true 'benchmark.widths=[16,24]' threads=1",
        ),
    ),
}
