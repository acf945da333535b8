"""The comparison of bridges, samplers, spacings, starts and call counts of one trained adapter."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from tqdm import tqdm

from irbridge.assets import CONFIGS
from irbridge.bridges import Bridge
from irbridge.commands.evaluate import validation_images
from irbridge.data.pair import split_mask
from irbridge.environment import device, set_threads
from irbridge.errors import UserError
from irbridge.evaluation.evaluate import evaluate
from irbridge.evaluation.methods import Restore, Trained
from irbridge.evaluation.metrics import STANDARD
from irbridge.evaluation.records import EARLIER, About, fingerprint, read_records, record_files
from irbridge.experiments.build import build_protocol, from_pretrained, sampler_fields
from irbridge.experiments.config import composed, own_folders
from irbridge.experiments.instantiate import instantiate
from irbridge.experiments.saved import read_settings
from irbridge.experiments.task_data import test_pairs
from irbridge.files import write_atomically
from irbridge.gaussian.noise import image_seed
from irbridge.models.irbridge import IRBridge
from irbridge.models.timestep_schedule import linear
from irbridge.reports.sampler_table import sampler_table
from irbridge.samplers.base import named


@dataclass(frozen=True)
class Setting:
    """What a row of the comparison is sampled with.

    Args:
        name: of the bridge, or "no bridge" for a rule on the prior alone.
        bridge: that is walked.
        sampler: fields of the model's sampler that change.
        start: the prior's timestep to start from; None: as it was trained.
    """

    name: str
    bridge: Bridge
    sampler: dict[str, object]
    start: float | None = None

    @property
    def called(self) -> str:
        """The bridge, with its start."""
        return self.name if self.start is None else f"{self.name} from {self.start:g}"

    @property
    def rule(self) -> str:
        """The step rule; without calls of the network there is none."""
        return self.sampler.get("rule", "anchor alone")

    @property
    def row(self) -> str:
        """What the records call it."""
        calls = f"{self.sampler['nfe']} calls"
        return f"{self.called}, {self.rule}, {self.sampler['spacing']}, {calls}"

    @property
    def folder(self) -> str:
        """The name of its folder of records."""
        return self.row.replace(", ", "-").replace(" ", "-")

    def about(self, shared: About) -> About:
        """What each of its records says."""
        more = {"bridge": self.called, "rule": self.rule, "spacing": self.sampler["spacing"]}
        return replace(shared, row=self.row, nfe=self.sampler["nfe"], more=more)


def compare_run(options: dict) -> None:
    """Score a trained adapter with every setting of the config, and print the table.

    What a bridge cannot serve is left out and said so.

    Raises:
        UserError: if the run is no IRBridge, or a setting does not exist.
    """
    run = Path(options["run"])
    set_threads(options["threads"])
    model = from_pretrained(run, device(options["device"]), frozen=options["backbone"])
    config = read_settings(run / "run.json")
    check(model, options, config)
    held = options["split"] == "validation"
    task = config["task"]["name"]
    results = Path(options["results"] or f"runs/compare-{task}" + ("-validation" if held else ""))
    check_table(results)
    pairs = validation_images(run, options["size"]) if held else test_pairs(config, options["size"])
    trained = Trained.of(model, run)
    about = About(
        "",
        task,
        weights=trained.weights,
        data="validation images" if held else "held-back images",
        size=options["size"],
        seed=options["seed"],
    )
    protocol = build_protocol(config)
    for metric in STANDARD:
        metric.ready()
    own_states = model.bridge.prior_states  # as it was trained
    settings, scheduled = list(_settings(options, task, own_states)), model.timesteps
    total = len(settings) * len(pairs.names[: options["limit"]])
    with tqdm(total=total, unit="image", dynamic_ncols=True) as bar:
        for setting in settings:
            if why := unserved(model, setting, own_states):
                tqdm.write(f"left out: {setting.row}: {why}")
                continue
            model.bridge = setting.bridge
            model.timesteps = scheduled if setting.start is None else linear(setting.start)
            for _ in evaluate(
                restorer(model, setting.sampler, options["seed"]),
                pairs,
                protocol,
                results / setting.folder,
                setting.about(about),
                settings=fingerprint([trained.settings, repr(setting)]),
                limit=options["limit"],
                keep_others=True,
            ):
                bar.update()
    deliver(results, about)


def check_table(results: Path) -> None:
    """UserError where a table of another hand is in the way; ours stands beside its records."""
    if (results / "table.md").exists() and not record_files(results):
        raise UserError(
            f"{results / 'table.md'} is there and is not what irbridge wrote, which alone is"
            " replaced; move it, or give another results=DIR."
        )


def deliver(results: Path, about: About) -> None:
    """Write and print the table of what is scored below a folder, but for other adapters."""
    keys = "task", "seed", "size", "data", "weights"
    wanted = [getattr(about, key) for key in keys]
    records = [
        record
        for record in read_records(results)
        if [getattr(record.about, key) for key in keys] == wanted
        and EARLIER not in record.about.more
    ]
    text, path = sampler_table(records).render("markdown"), results / "table.md"
    write_atomically(path, lambda aside: aside.write_text(text + "\n", encoding="utf-8"))
    print(f"\n{text}\n\nWrote: {path}")


def check(model, options: dict, config: dict) -> None:
    """UserError if the model is no IRBridge, or its prior does not know a start."""
    if not isinstance(model, IRBridge):
        raise UserError(
            f"run={options['run']} was trained with method={config['method']}, on which no other"
            " bridge can be tried; give a run of method=irbridge, or compare samplers and calls by"
            f" irbridge evaluate -m run={options['run']} sampler=posterior,implicit"
            " sampler.nfe=2,10."
        )
    highest = model.backbone.prior.highest
    if above := [start for start in options["starts"] if start is not None and start > highest]:
        raise UserError(
            f"starts={above} are above the prior's last timestep, {highest:g}; give lower ones."
        )


def unserved(model: IRBridge, setting: Setting, own_states: bool) -> str:
    """Why the model cannot serve a setting; empty where it can.

    Args:
        model: the trained one.
        setting: of the comparison.
        own_states: whether it was trained on a bridge whose states are the prior's own. What its
            network says is then the image between y and x0, and for other bridges x0 itself.
    """
    if setting.bridge.prior_states != own_states:
        states = "the prior's own states" if own_states else "another bridge's states"
        return f"the adapter was trained on {states}, and what it says of these means another image"
    if setting.sampler["nfe"] == 0 and model.endpoint != "anchor":
        return "this model has no anchor"
    if setting.start is not None and setting.bridge.prior_states:
        return "its horizon, bridge.T0, says where it starts"
    try:
        model.sampler.changed(**setting.sampler).check(setting.bridge)
    except UserError as error:
        return str(error)
    return ""


def restorer(model: IRBridge, sampler: dict[str, object], seed: int) -> Restore:
    """The model with these fields of its sampler, as a method to score."""

    def restore(seen: np.ndarray, name: str) -> np.ndarray:
        degraded, mask = split_mask(seen)
        return model.restore(degraded, mask=mask, seeds=[image_seed(seed, name)], **sampler)

    return restore


def _settings(options: dict, task: str, own_states: bool) -> Iterator[Setting]:
    """Every combination; rules on the prior alone, and the anchor alone (0 calls), once.

    These are under "no bridge".

    Raises:
        UserError: a bridge or a sampler is unknown, or none of the bridges is of the kind that the
            adapter was trained on; ``own_states`` as of :func:`unserved`.
    """
    for group, names in (("bridge", options["bridges"]), ("sampler", options["samplers"])):
        files = [p for top in (CONFIGS, *own_folders()) for p in (top / group).glob("*.yaml")]
        known = sorted({file.stem for file in files})
        if wrong := [name for name in names if name not in known]:
            raise UserError(f"{group}s={wrong} are unknown; choose of {', '.join(known)}.")
    bridges = {
        name: instantiate(_composed(f"task={task}", f"bridge={name}")["bridge"], of="bridge")
        for name in options["bridges"]
    }
    samplers = []
    for name in options["samplers"]:
        samplers.append(sampler_fields(_composed(f"sampler={name}")["sampler"]))
    first = next((b for b in bridges.values() if b.prior_states == own_states), None)
    if first is None:
        raise UserError(
            f"bridges={options['bridges']} have states of another kind than the bridge that the"
            f" adapter was trained on; give bridges=[{'ebridge' if own_states else 'brownian'}]."
        )
    if 0 in options["nfe"]:
        yield Setting("no bridge", first, {"nfe": 0, "spacing": options["spacings"][0]})
    for start, spacing, fields, nfe in product(
        options["starts"], options["spacings"], samplers, options["nfe"]
    ):
        sampler = fields | {"nfe": nfe, "spacing": spacing}
        if nfe and named(sampler.get("rule", "")).kind.on_prior:
            yield Setting("no bridge", first, sampler, start)
        elif nfe:
            for name, bridge in bridges.items():
                yield Setting(name, bridge, sampler, start)


def _composed(*words: str) -> dict:
    return composed("train", *words, "name=x")
