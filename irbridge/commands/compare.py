"""Comparisons over many settings: samplers of one adapter, and contenders over training budgets."""

from itertools import product
from pathlib import Path

from tqdm import tqdm

from irbridge.assets import CONFIGS
from irbridge.commands.evaluate import validation_images
from irbridge.data.pair import split_mask
from irbridge.environment import device, set_threads
from irbridge.errors import UserError
from irbridge.evaluation.evaluate import evaluate
from irbridge.evaluation.metrics import LPIPS
from irbridge.evaluation.records import read_records
from irbridge.evaluation.scoring import weights_hash
from irbridge.experiments.build import from_pretrained
from irbridge.experiments.config import composed
from irbridge.experiments.instantiate import instantiate
from irbridge.experiments.saved import read_settings
from irbridge.experiments.task_data import test_pairs
from irbridge.gaussian.noise import image_seed
from irbridge.models.irbridge import IRBridge
from irbridge.models.timestep_schedule import linear
from irbridge.reports.sampler_table import sampler_table
from irbridge.samplers.base import rule


def compare_run(options: dict) -> None:
    """Score a trained adapter with every bridge, sampler, spacing, start and call count of the
    config, and print the tables. What a bridge cannot serve is left out and said so; UserError if
    the run is no IRBridge.
    """
    run = Path(options["run"])
    set_threads(options["threads"])
    model, config = (
        from_pretrained(run, device(options["device"]), frozen=options["backbone"]),
        read_settings(run / "run.json"),
    )
    if not isinstance(model, IRBridge):
        raise UserError(
            f"run={run} was trained with method={config['method']}; give a run of method=irbridge."
        )
    task = config["task"]["name"]
    held, highest = options["split"] == "validation", model.backbone.prior.highest
    if above := [start for start in options["starts"] if start is not None and start > highest]:
        raise UserError(
            f"starts={above} are above the prior's last timestep, {highest:g}; give lower ones."
        )
    results = Path(options["results"] or f"runs/compare-{task}" + "-validation" * held)
    pairs = validation_images(run, options["size"]) if held else test_pairs(config, options["size"])
    protocol, lpips, trained = (
        instantiate(config["task"]["protocol"], of="protocol"),
        LPIPS.load(),
        model.timesteps,
    )
    about = {
        "task": task,
        "seed": options["seed"],
        "size": options["size"],
        "data": "validation images" if held else "held-back images",
        "weights": weights_hash(run),
    }
    jobs = list(_settings(options, task))
    with tqdm(
        total=len(jobs) * len(pairs.names[: options["limit"]]), unit="image", dynamic_ncols=True
    ) as bar:
        for name, bridge, sampler, start in jobs:
            name = name if start is None else f"{name} from {start:g}"
            called = sampler.get("rule", "anchor alone")
            row = f"{name}, {called}, {sampler['spacing']}, {sampler['nfe']} calls"
            try:
                if sampler["nfe"] == 0 and model.endpoint != "anchor":
                    raise UserError("this model has no anchor")
                model.sampler.changed(**sampler).check(bridge)
            except UserError as error:
                tqdm.write(f"left out: {row}: {error}")
                continue
            model.bridge, model.timesteps = bridge, trained if start is None else linear(start)

            def restore(image, key, fields=sampler):
                degraded, mask = split_mask(image)
                return model.restore(
                    degraded, mask=mask, seeds=[image_seed(options["seed"], key)], **fields
                )

            record = about | {
                "row": row,
                "bridge": name,
                "rule": called,
                "spacing": sampler["spacing"],
                "nfe": sampler["nfe"],
            }
            folder = results / row.replace(", ", "-").replace(" ", "-")
            for _ in evaluate(
                restore, pairs, protocol, folder, record, lpips, limit=options["limit"]
            ):
                bar.update()
    # not of another adapter
    table = sampler_table([r for r in read_records(results) if about.items() <= r.items()])
    (results / "table.md").write_text(table + "\n")
    print(f"\n{table}\n\nWrote: {results / 'table.md'}")


def _settings(options: dict, task: str):
    """(bridge's name, bridge, sampler fields, start) of each setting; rules on the prior alone
    once, under "no bridge", and the anchor alone, 0 calls, once.
    """
    for group, names in (("bridge", options["bridges"]), ("sampler", options["samplers"])):
        known = sorted(file.stem for file in (CONFIGS / group).glob("*.yaml"))
        if wrong := [name for name in names if name not in known]:
            raise UserError(f"{group}s={wrong} are unknown; choose of {', '.join(known)}.")
    bridges = {
        b: instantiate(
            composed("train", f"task={task}", f"bridge={b}", "name=x")["bridge"], of="bridge"
        )
        for b in options["bridges"]
    }
    fields = {
        s: {
            k: v
            for k, v in composed("train", f"sampler={s}", "name=x")["sampler"].items()
            if v is not None
        }
        for s in options["samplers"]
    }
    first = next(iter(bridges.values()))
    if 0 in options["nfe"]:
        yield "no bridge", first, {"nfe": 0, "spacing": options["spacings"][0]}, None
    for start, spacing, sampler, nfe in product(
        options["starts"], options["spacings"], fields.values(), options["nfe"]
    ):
        sampler = sampler | {"nfe": nfe, "spacing": spacing}
        if nfe and rule(sampler.get("rule", "")).on_prior:
            yield "no bridge", first, sampler, start
        elif nfe:
            yield from ((name, bridge, sampler, start) for name, bridge in bridges.items())
