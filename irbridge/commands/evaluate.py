"""What the evaluate command does: which images, which methods, where the records go; then the
table.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path

from accelerate import PartialState

from irbridge.assets import ROOT, find
from irbridge.data.layouts import BenchmarkPairs, Faces
from irbridge.data.public_sets import BENCHMARKS
from irbridge.environment import device, set_threads
from irbridge.errors import UserError
from irbridge.evaluation.classical import CLASSICAL, classical
from irbridge.evaluation.methods import IDENTITY, Row, methods
from irbridge.evaluation.records import HELD_BACK
from irbridge.evaluation.saved_outputs import output_row
from irbridge.evaluation.scoring import score_rows, slug, weights_hash
from irbridge.evaluation.vae_reference import RoundTrip
from irbridge.experiments.build import from_pretrained
from irbridge.experiments.config import composed
from irbridge.experiments.instantiate import instantiate
from irbridge.experiments.saved import read_settings
from irbridge.experiments.task_data import test_pairs, validation_pairs

OWN = "irbridge", "ddim", "ddim_noise", "dpmpp", "anchor"  # of one adapter
# Trained runs of their own and the configs/contender that makes them.
TRAINED = {"regression": "regression", "bridge": "goub_residual", "irbridge_y": "irbridge_y"}
METHODS = *OWN, *TRAINED, "identity", "classical", "outputs"


def evaluate_run(options: dict) -> None:
    """Score the methods of a config on a task's, a run's, a benchmark's or the user's own pairs,
    and print the table.
    """
    set_threads(options["threads"])
    check_choice(options)
    # A process may wait long for another's share of slow images.
    state = PartialState(cpu=options["device"] == "cpu", timeout=timedelta(days=7))
    run, task, config = home(options)
    if options["split"] == "validation":
        pairs, data = validation_images(run, options["size"]), "validation images"
    else:
        pairs, data = images(options, task, config)
    given = {k: v for k, v in options["protocol"].items() if v is not None}
    protocol = instantiate(config["task"]["protocol"] | given, of="protocol")
    # nfe says the same
    sampler = {k: v for k, v in options["sampler"].items() if v is not None and k != "steps"}
    model = cache(
        lambda folder: from_pretrained(
            folder, device(options["device"]), frozen=options["backbone"]
        )
    )
    reference = RoundTrip(model(run)) if protocol.reference == "vae" else None
    rows = chosen(options, run, task, pairs, sampler, model)
    about = {"task": task, "seed": options["seed"], "size": options["size"], "data": data}
    settings = data, options["size"], *sampler.values(), options["seed"], protocol.describe()
    name = slug(" ".join(f"{v}" for v in settings if v is not None))
    own = options["run"] and ROOT / "data" not in run.resolve().parents
    results = Path(
        options["results"] or (run / "evaluations" if own else Path("results", task)) / name
    )
    score_rows(
        rows,
        pairs,
        protocol,
        results,
        about,
        options,
        (state.process_index, state.num_processes),
        reference,
    )
    if state.is_main_process:
        print(f"Wrote: {results}")


def validation_images(run: Path, size: int | None):
    """The validation pairs of a run; UserError where its folder was exported, without what it was
    trained on.
    """
    settings = read_settings(run / "run.json")
    if not all(
        entry.keys() & {"pairs", "clean", "root"} for entry in settings["data"].get("mix") or ()
    ):
        raise UserError(
            f"{run} was exported without its training images, of which split=validation scores a"
            " part; give run=FOLDER of the training itself, or leave out split."
        )
    return validation_pairs(settings, size)


def check_choice(options: dict) -> None:
    """Refuse what does not go together."""
    method, data = options["method"], options["data"]
    if method not in (None, "all", *METHODS):
        raise UserError(f"method={method} is unknown; choose all or one of {', '.join(METHODS)}.")
    if options["split"] == "validation" and (
        options["run"] is None or options["benchmark"] or data["clean"]
    ):
        raise UserError(
            "split=validation scores the images that a training held back; give run=FOLDER of that"
            " training, without benchmark or data.clean."
        )
    if method == "outputs" and not options["outputs"]:
        raise UserError("method=outputs scores saved images; give their folder, outputs=DIR.")
    if options["outputs"] and method not in (None, "all", "outputs"):
        raise UserError(
            f"outputs={options['outputs']} does not go with method={method}; leave out one of them."
        )
    if bool(options["benchmark"]) != bool(data["root"]):
        raise UserError("benchmark=NAME and data.root=DIR belong together; give both.")
    if options["benchmark"] and options["benchmark"] not in BENCHMARKS:
        raise UserError(
            f"benchmark={options['benchmark']} is unknown; choose one of {', '.join(BENCHMARKS)}."
        )
    if data["masks"] and options["benchmark"] != "celebahq":
        raise UserError(
            "data.masks=DIR makes holes in benchmark=celebahq alone; other sets have their degraded"
            " images."
        )
    given = [k for k in ("clean", "degraded") if data[k]]
    if len(given) == 1:
        raise UserError(
            f"data.{given[0]} alone is not a pair; give both data.clean=DIR and data.degraded=DIR."
        )
    if given and options["benchmark"]:
        raise UserError(
            f"data.{given[0]} does not go with benchmark={options['benchmark']}; leave out one of"
            " them."
        )


def home(options: dict) -> tuple[Path, str, dict]:
    """The folder of the adapter, which need not be there, the task's name and the config of its
    test images: the run's, or where the command line names a task that one.
    """
    task, run = options["task"].get("name"), options["run"]
    if run is not None:
        run = _here(run)
        config = read_settings(run / "run.json")
        own = config["task"]["name"]
        if task and own not in (task, "universal", "paired"):
            raise UserError(
                f"run={run} was trained for task={own}, not task={task}; leave out one of them."
            )
        task = task or own
    elif task is None:
        if not options["benchmark"]:
            raise UserError(
                "Neither task nor run is given; give task=NAME for the shipped adapter, or"
                " run=FOLDER."
            )
        task = BENCHMARKS[options["benchmark"]].task
    run = run or _here(f"data/adapters/{task}")
    if "degradation" in options["task"] and (
        options["task"]["degradation"] or options["run"] is None
    ):
        return run, task, {"data": options["data"], "task": options["task"], "seed": 0}
    if options["run"] is None:
        config = {
            "data": options["data"],
            "task": composed("train", f"task={task}", "name=x")["task"],
            "seed": 0,
        }
    return run, task, config


def _here(path: str) -> Path:
    """A path here or in the project; the words of the config where it is in neither."""
    return find(path) if find(path).exists() else Path(path)


def images(options: dict, task: str, config: dict):
    """(pairs, what the records call them)."""
    data, size = options["data"], options["size"]
    if name := options["benchmark"]:
        root, split, resize = find(data["root"]), data["split"], data["resize"]
        if BENCHMARKS[name].task == "inpaint":
            holes = instantiate(
                composed("train", "task=inpaint", "name=x")["task"]["degradation"], of="degradation"
            )
            pairs = Faces(name, root, holes, data["masks"], split, 0, size, resize)
        else:
            pairs = BenchmarkPairs(name, root, split, size, resize)
        pairs.check()
        return pairs, pairs.title
    if data["clean"]:
        folders = {"test_clean": data["clean"], "test_degraded": data["degraded"]}
        return test_pairs({"data": folders, "task": {"degradation": None}}, size), data["degraded"]
    if not config["task"].get("degradation") and config["data"] is data:
        raise UserError(
            f"task={task} has no images of its own; give data.clean=DIR data.degraded=DIR, or"
            " run=FOLDER."
        )
    pairs = test_pairs(config, size)
    return pairs, (
        _held_back(config, task) if config["data"] is data else getattr(pairs, "title", HELD_BACK)
    )


def _held_back(config: dict, task: str) -> str:
    """What tells a task's test images from its default ones."""
    default = composed("train", f"task={task}", "name=x")
    own, usual = config["task"]["degradation"], default["task"]["degradation"]
    changes = [f"{k}={v}" for k, v in own.items() if v != usual.get(k)]
    test = config["data"]["test"]
    where = HELD_BACK if test == default["data"]["test"] else test
    return ", ".join([where, *changes])


def chosen(options: dict, run: Path, task: str, pairs, sampler: dict, model: Callable) -> list[Row]:
    """The rows that the config asks for, of ``model(folder)``; UserError where something must be
    trained first.
    """
    method, seed = options["method"], options["seed"]

    def load(folder: Path) -> list[Row]:
        return methods(model(folder), seed, weights_hash(folder), **sampler)

    saved = []
    if options["outputs"]:
        saved = [
            output_row(options["outputs"], options["row"], pairs, options["size"], options["limit"])
        ]
    if method in (None, "outputs") and saved:
        return saved
    if method == "identity":
        return [IDENTITY]
    if method == "classical":
        return [_classical(task)]
    if method in TRAINED:
        return load(trained(method, task, run, options))[-1:]
    if not (run / "config.json").is_file() and options["run"] is None:
        raise UserError(
            f"There is no adapter for task={task} in {run}; train one, python scripts/train.py"
            f" task={task}, and give run=FOLDER."
        )
    rows = load(run)
    if method in OWN:
        # By key, but a run with endpoint=y is an IRBridge too.
        found = [r for r in rows if r.method == method] or (
            rows[-1:] if rows[-1].method == f"{method}_y" else []
        )
        if not found:
            raise UserError(
                f"{run} has no row method={method}; it has {', '.join(r.method for r in rows)}."
            )
        return found
    if not options["all_rows"]:
        return rows[-1:]
    plain_regression = (
        load(run / "regression") if (run / "regression" / "config.json").is_file() else []
    )
    simple = [_classical(task)] if task in CLASSICAL else []
    return [IDENTITY, *simple, *plain_regression, *rows, *saved]


def _classical(task: str) -> Row:
    label, function = classical(task)
    return Row(label, "classical", lambda image, name: function(image))


def trained(method: str, task: str, run: Path, options: dict) -> Path:
    """The folder of a regression, a bridge from scratch or the published IRBridge: the run that is
    given, its own regression, or ``<task>-<contender>`` beside the run or in ``run_root``.
    """
    contender, given = (
        TRAINED[method],
        options["run"] is not None and (run / "config.json").is_file(),
    )
    if given and kind_of(run) == method:
        return run
    root = f"{run.parent}" if given else options["run_root"]
    default = _here(f"{root}/{task}-{contender}")
    command = (
        f"python scripts/train.py task={task} contender={contender} name={contender} baseline=false"
        + f" run_root={root}" * (root != "runs")
    )
    places = [run / "regression", default] if method == "regression" else [default]
    for place in places:
        if (place / "config.json").is_file():
            if (kind := kind_of(place)) != method:
                raise UserError(
                    f"{place} is method={kind}, not method={method}; give another run=FOLDER."
                )
            return place
    raise UserError(
        f"There is no trained {method} in {places[-1]}; make it, {command}, or give run=FOLDER."
    )


def kind_of(run: Path) -> str:
    """regression, bridge, irbridge or irbridge_y."""
    config = read_settings(run / "config.json")
    kind = config.get("method", "irbridge")
    return "irbridge_y" if kind == "irbridge" and config.get("endpoint") == "y" else kind
