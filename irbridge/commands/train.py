"""What the train command does with a run's folder: train or take over, score, table, picture."""

import json
import os
import shutil
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
from accelerate import PartialState

from irbridge.assets import find
from irbridge.data.image_source import ImageSource
from irbridge.data.pair import spread
from irbridge.environment import device, memory, processes, set_threads
from irbridge.errors import UserError
from irbridge.evaluation.evaluate import score_rows
from irbridge.evaluation.kid import KidLPIPS
from irbridge.evaluation.methods import IDENTITY, Trained, methods
from irbridge.evaluation.metrics import STANDARD, check_scorable, psnr
from irbridge.evaluation.no_reference import check_photographs, score_photographs
from irbridge.evaluation.protocol import Protocol
from irbridge.evaluation.records import HELD_BACK, About
from irbridge.evaluation.share import agreed, check_shared
from irbridge.evaluation.vae_reference import RoundTrip
from irbridge.experiments.build import (
    build_model,
    build_protocol,
    describe,
    save_pretrained,
    taught,
    trainer_options,
)
from irbridge.experiments.hidiff import check_stages
from irbridge.experiments.run_folder import (
    as_long,
    check_finished,
    claim,
    contradiction,
    finished,
    mirror,
    run_folder,
    saved_alone,
)
from irbridge.experiments.saved import read_settings
from irbridge.experiments.task_data import (
    check_round,
    test_pairs,
    training_stream,
    validation_pairs,
)
from irbridge.files import locked, remove_leftovers, write_atomically, write_json
from irbridge.gaussian.noise import image_seed
from irbridge.images.grid import grid
from irbridge.images.io import write_image
from irbridge.models.irbridge import IRBridge
from irbridge.models.restorer import Restorer
from irbridge.profiling.flops import describe_cost
from irbridge.reports.image_tables import photograph_table
from irbridge.reports.pictures import picture
from irbridge.reports.published import SCORES, lines, words_of
from irbridge.reports.table import print_scores
from irbridge.training.checkpoint import Checkpoints
from irbridge.training.growth import phases_of
from irbridge.training.trainer import Trainer
from irbridge.weights import load_into, load_weights

# of a pixel in a training step: the smallest network here keeps more for its backward pass
LEAST_BYTES = 256


def train_run(config: dict) -> None:
    """Train as configured, or take over a trained adapter (``reuse``); then score and draw.

    With ``baseline`` the regression is trained as well. Prints the table, and what it wrote.

    Args:
        config: of the train command, as :class:`irbridge.experiments.schema.Experiment` has it.
    """
    config = taught(config)
    run = run_folder(config)
    set_threads(config["threads"], Checkpoints(run).state().get("threads"))
    # a mistake must not come up after the training
    check_effects(config)
    scored, masked = config["evaluate"], config["adapter"].get("masked", False)
    check_photographs(scored["real"], scored["metrics"], masked)
    check_kid(config)
    model, regression, plainly = build_model(config), None, config | {"method": "regression"}
    if not config["reuse"]:
        check_anchor_learns(model)
    check_scoring(model, config)
    if config["reuse"]:
        check_reuse(model, config)
    elif config["baseline"] and isinstance(model, IRBridge):
        regression = build_model(plainly)
    with alone(run, cpu=config["trainer"]["device"] == "cpu") as main:
        if main:
            say_parts(model, config)
        prepare(model, config, run)
        # what goes on from its own has no need of what it started from
        if not Checkpoints(run).latest():
            start_from(model, config)
        if regression:
            prepare(regression, plainly, run / "regression")
        if config["reuse"]:
            done = True
            if main:
                take_over(model, config, run)
        else:
            done = train(model, config, run, repeats=int(regression is not None))
            if done and regression:
                done = train(regression, as_long(plainly, run), run / "regression")
        if not main:
            return
        if not done:
            print(f"Stopped and saved in {run}; run the same command to go on.")
            return
        score(model, config, run, regression)


def say_parts(model: Restorer, config: dict) -> None:
    """Print what a run's networks cost, and which ones it takes over without being told to."""
    if isinstance(model, IRBridge):
        print(describe_cost(model, config["trainer"]["crop"]))
    if given := (config.get("refine") or {}).get("predictor"):
        way = "and goes on training" if config["refine"]["joint"] else "and stays as it is"
        print(f"The predictor g is that of {given}, {way}.")


def check_effects(config: dict) -> None:
    """UserError for settings that nothing reads, or that the machine cannot serve.

    Args:
        config: of the run.
    """
    given = [key for key, value in (config.get("objective") or {}).items() if value is not None]
    if given and config["method"] != "bridge":
        raise UserError(
            f"objective.{given[0]} is for recipe=bridge alone, a network trained from scratch;"
            f" leave it out of method={config['method']}."
        )
    data = config["data"]
    if data["masks"] and data["benchmark"] != "celebahq":
        raise UserError(
            "data.masks is for data.benchmark=celebahq alone, as other tasks make their own holes;"
            " leave it out."
        )
    check_memory(config["trainer"])
    check_round(config)
    check_stages(config)


def check_memory(trainer: dict) -> None:
    """UserError where one forward pass of a training cannot fit this machine's memory.

    Args:
        trainer: the settings of the training.
    """
    machine = memory()
    for phase in phases_of(trainer):
        at_once = max(1, phase.batch_size // trainer["accumulate"])
        needed = LEAST_BYTES * phase.crop**2 * at_once
        if needed > machine:
            raise UserError(
                f"{phase.key}.batch_size={phase.batch_size} at {phase.key}.crop={phase.crop} takes"
                f" at least {needed / 1e9:.0f} GB, and this machine has {machine / 1e9:.0f}; give a"
                " smaller batch_size or crop, or a larger trainer.accumulate."
            )


def score(model: Restorer, config: dict, run: Path, regression: Restorer | None) -> None:
    """Score a trained run as ``evaluate`` says, draw it, and name what that wrote."""
    for module in filter(None, (model, regression)):
        module.to(device(config["trainer"]["device"])).eval()
    wrote = [run]
    if config["evaluate"]["enabled"]:
        wrote += score_run(model, config, run, regression)
    if config["evaluate"]["real"]:
        wrote += score_real(model, config, run)
    print("Wrote: " + "  ".join(str(path) for path in wrote))


def check_kid(config: dict) -> None:
    """UserError where ``evaluate.kid`` is asked for and the scored images are too few for it."""
    options = config["evaluate"]
    if options["enabled"] and options.get("kid"):
        count = len(test_pairs(config, options["size"]))
        KidLPIPS().check_row(min(count, options["limit"] or count), options["save_images"])


def start_from(model: Restorer, config: dict) -> None:
    """Give the untrained model the weights of ``start``, where it names a folder.

    That is the folder of a finished run of the same sizes; the training goes on from there.
    """
    if folder := config.get("start"):
        source = find(folder)
        check_finished(source, f"start={folder}")
        load_into(model.trainable(), load_weights(source / "model.safetensors"), folder)


def check_anchor_learns(model: Restorer) -> None:
    """UserError unless a model without calls of the frozen network trains its anchor, all along."""
    if not isinstance(model, IRBridge) or model.sampler.nfe != 0:
        return
    if not model.learns_anchor:
        raise UserError(
            "sampler.nfe=0 gives the anchor alone, and a pretrained one does not train; give 1 or"
            " more calls, or adapter.anchor=true."
        )
    if model.first_share < 1:
        raise UserError(
            "sampler.nfe=0 makes no call of the frozen network, so its features would learn"
            " nothing; give loss.anchor_first=1 to train the anchor alone, or 1 or more calls."
        )


def check_scoring(model: Restorer, config: dict) -> None:
    """UserError if the model cannot be scored as the config asks, or its test images cannot."""
    (protocol, _), options = references(model, config), config["evaluate"]
    if options["enabled"]:
        check_scorable(test_pairs(config, options["size"]), protocol, limit=options["limit"])


def references(model: Restorer, config: dict):
    """The protocol of a run, and the second reference that it asks for, or None.

    Raises:
        UserError: The model cannot give that reference.
    """
    protocol = build_protocol(config)
    return protocol, RoundTrip(model) if protocol.reference == "vae" else None


@contextmanager
def alone(run: Path, cpu: bool):
    """Within the block the run's folder belongs to this command.

    Yields:
        Whether this is the command's main process, which has the lock.

    Raises:
        UserError: Another command has it, or the processes do not share the disk that it is on; in
            every process of this command.
    """
    # A process may wait long for the first one's pictures.
    state = processes(cpu=cpu, timeout=timedelta(days=7))
    with ExitStack() as stack:
        share = state.process_index, state.num_processes
        agreed(lambda: stack.enter_context(locked(run)), share)
        check_shared(run, share)
        yield state.is_main_process


def prepare(model: Restorer, config: dict, run: Path) -> None:
    """Make the run's folder ready for this untrained model, where :func:`claim` allows it."""
    state, wanted = PartialState(), config | {"backbone": describe(config, model)["backbone"]}
    agreed(lambda: claim(run, wanted), (state.process_index, state.num_processes))
    if state.is_main_process:
        remove_leftovers(run)


def check_reuse(model: Restorer, config: dict) -> None:
    """UserError unless ``reuse`` names a finished run of this method, adapter and backbone."""
    folder = find(config["reuse"])
    if not finished(folder):
        rows = {line.run for table in SCORES for line in lines(table)}
        how = ""
        if folder.name in rows:
            how = f", python scripts/train.py {' '.join(words_of(folder.name))},"
        raise UserError(
            f"reuse={config['reuse']} holds no finished run; train it first{how} or give reuse=null"
            " to train here."
        )

    def compared(described: dict) -> dict:
        return {k: described.get(k) for k in ("method", "adapter", "hidiff", "stage")} | {
            "backbone": {"digest": described["backbone"].get("digest")}
        }

    own = json.loads(json.dumps(describe(config, model)))
    if difference := contradiction(compared(read_settings(folder / "config.json")), compared(own)):
        raise UserError(
            f"reuse={config['reuse']} is of another model: {difference}; use that, or give"
            " reuse=null to train here."
        )


def take_over(model: Restorer, config: dict, run: Path) -> None:
    """Give the model the trained part of ``reuse``, and its folder what any finished run has."""
    source = find(config["reuse"]) / "model.safetensors"
    load_into(model.trainable(), load_weights(source), str(source.parent))

    def linked(path: Path) -> None:
        try:
            # a ControlNet has more than a gigabyte, and a sweep takes it over many times
            os.link(source, path)
        except OSError:
            shutil.copyfile(source, path)

    write_atomically(run / "model.safetensors", linked)
    write_json(run / "config.json", describe(config, model))


def train(model: Restorer, config: dict, run: Path, repeats: int = 0) -> bool:
    """Train into a run's folder, with sample grids, snapshots and scores of validation images.

    Args:
        model: to train.
        config: of the run.
        run: its folder.
        repeats: see :class:`~irbridge.training.trainer.Trainer`.

    Returns:
        Whether it is complete.
    """
    if saved_alone(run):
        load_into(model.trainable(), load_weights(run / "model.safetensors"), str(run))
        return True
    options, described, seed = trainer_options(config), describe(config, model), config["seed"]
    pairs = test_pairs(config, 96)
    shown = [pairs[i] for i in range(min(4, len(pairs)))]

    def sample(current, step):
        rows = [
            [
                p.degraded,
                current.restore(
                    p.degraded, image_seed(seed, p.name), mask=p.mask, **current.told(p.clean)
                ),
                p.clean,
            ]
            for p in shown
        ]
        write_image(
            run / "samples" / f"step-{step:06d}.png", grid(rows, ["degraded", "restored", "clean"])
        )

    return Trainer(
        model,
        training_stream(config, options.crop),
        options,
        seed,
        run,
        sample,
        lambda weights: save_pretrained(model, run, described, weights),
        mirror(config, run),
        on_validate=validation(config) if options.validate_every else None,
        repeats=repeats,
        on_device=config["data"].get("on_device", False),
    ).run()


def validation(config: dict, size: int = 160, most: int = 24):
    """A function that scores a model on the run's validation pairs.

    It gives the mean PSNR in dB (rgb, 8 bit), and where the model has an anchor also that of the
    anchor alone.

    Args:
        config: of the run.
        size: of the centre crops in pixels.
        most: how many pairs at most.
    """
    pairs, seed, protocol = validation_pairs(config, size), config["seed"], Protocol()
    chosen = spread(pairs, most)

    def mean(model: Restorer, trajectory=None) -> float:
        values = []
        for pair in chosen:
            own = image_seed(seed, pair.name)
            told = model.told(pair.clean)
            restored = model.restore(pair.degraded, own, trajectory, pair.mask, **told)
            values.append(psnr(restored, pair.clean, protocol))
        return round(float(np.mean(values)), 3)

    def scores(model: Restorer) -> dict[str, float]:
        found = {"psnr_oracle" if model.sees_clean else "psnr": mean(model)}
        # which without calls of the network is all there is
        if getattr(model, "endpoint", None) == "anchor":
            found["psnr_anchor"] = mean(model, model.coarse) if model.calls() else found["psnr"]
        return found

    return scores


def score_run(
    model: Restorer, config: dict, run: Path, regression: Restorer | None = None
) -> list[Path]:
    """Score all rows of a run's table on its held-back pairs, print it, draw the picture.

    Returns:
        What it wrote.
    """
    options = config["evaluate"]
    pairs, (protocol, reference) = test_pairs(config, options["size"]), references(model, config)
    seed = config["seed"]
    data = getattr(pairs, "title", HELD_BACK)
    about = About("", config["task"]["name"], seed=seed, size=options["size"], data=data)
    rows = [IDENTITY]
    if regression:
        rows += methods(regression, seed, Trained.of(regression, run / "regression"))
    rows += methods(model, seed, Trained.of(model, run), pairs)
    score_rows(
        rows if options["all_rows"] else rows[-1:],
        pairs,
        protocol,
        run / "results",
        about,
        (*STANDARD, KidLPIPS()) if options.get("kid") else STANDARD,
        save_images=options["save_images"],
        limit=options["limit"],
        reference=reference,
    )
    table = print_scores(run / "results")
    write_atomically(run / "table.md", lambda p: p.write_text(table + "\n", encoding="utf-8"))
    write_image(run / "restored.png", picture(model, pairs, config["seed"]))
    return [run / "table.md", run / "restored.png", run / "results"]


def score_real(model: Restorer, config: dict, run: Path) -> list[Path]:
    """Restore and score the photographs of ``evaluate.real``; returns what it wrote."""
    options, resize = config["evaluate"], config["data"]["resize"]
    source = ImageSource(find(options["real"]), resize)
    row = methods(model, config["seed"], Trained.of(model, run))[-1]
    folder, records = score_photographs(
        row,
        source,
        options["metrics"],
        run / "real",
        About(
            "",
            data=source.path.name,
            size=options["size"],
            seed=config["seed"],
            more={"resize": resize},
        ),
        options["limit"],
        options["all_rows"],
        next(model.parameters()).device,
    )
    table = photograph_table(records).render("markdown")
    write_atomically(folder / "table.md", lambda p: p.write_text(table + "\n", encoding="utf-8"))
    print(f"\n{table}\n")
    return [folder]
