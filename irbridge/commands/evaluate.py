"""What the evaluate command does: which images, which methods, where the records go."""

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple

from irbridge.adapters.pretrained_anchor import PREFIX
from irbridge.assets import ROOT, find
from irbridge.data.jpeg import SavedAsJpeg
from irbridge.data.layouts import BenchmarkPairs, Faces
from irbridge.data.public_sets import BENCHMARKS
from irbridge.environment import device, processes, set_threads
from irbridge.errors import UserError
from irbridge.evaluation.classical import CLASSICAL
from irbridge.evaluation.evaluate import score_rows
from irbridge.evaluation.methods import IDENTITY, Method, Trained, classical_method, methods
from irbridge.evaluation.pretrained_network import network_row
from irbridge.evaluation.protocol import Protocol
from irbridge.evaluation.records import HELD_BACK, About, slug
from irbridge.evaluation.rows import draws_of
from irbridge.evaluation.saved_outputs import output_row
from irbridge.evaluation.share import Share
from irbridge.evaluation.vae_reference import RoundTrip
from irbridge.experiments.build import build_protocol, from_pretrained, sampler_fields
from irbridge.experiments.config import composed
from irbridge.experiments.instantiate import instantiate
from irbridge.experiments.metrics import metrics
from irbridge.experiments.saved import read_settings
from irbridge.experiments.task_data import test_pairs, validation_pairs
from irbridge.models.restorer import Restorer
from irbridge.reports.table import print_scores

# of one run
OWN = "irbridge", "ddim", "ddim_noise", "dpmpp", "anchor", "hidiff", "hidiff_oracle"
# Trained runs of their own and the configs/recipe that makes them.
TRAINED = {
    "regression": "regression",
    "bridge": "goub_residual",
    "refine": "refine",
    "irbridge_y": "irbridge_y",
}
METHODS = *OWN, *TRAINED, "identity", "classical", "outputs"


class Home(NamedTuple):
    """Where the adapter and the test images come from.

    Args:
        run: folder of the adapter, which need not be there.
        task: the task's name.
        config: of the test images: "data", "task" and "seed".
        of_run: whether that is the config of the run; else the command line names the task.
    """

    run: Path
    task: str
    config: dict
    of_run: bool


def evaluate_run(options: dict) -> None:
    """Score methods on a task's, a run's, a public set's or the user's pairs; print the table."""
    set_threads(options["threads"])
    check_choice(options)
    # A process may wait long for another's share of slow images.
    state = processes(cpu=options["device"] == "cpu", timeout=timedelta(days=7))
    scored_by, at = metrics(options["metrics"]), home(options)
    if options["split"] == "validation":
        pairs, data = validation_images(at.run, options["size"]), "validation images"
    else:
        pairs, data = images(options, at)
    if quality := options["jpeg"]:
        pairs, data = SavedAsJpeg(pairs, quality), f"{data}, JPEG of quality {quality}"
        _ = len(pairs) and pairs[0]  # holes are refused before anything is written
    protocol = build_protocol(at.config, **options["protocol"])
    # nfe says the same
    sampler = {k: v for k, v in sampler_fields(options["sampler"]).items() if k != "steps"}

    @cache
    def model(folder: Path) -> Restorer:
        found = from_pretrained(folder, device(options["device"]), frozen=options["backbone"])
        if options["run"] and folder == at.run:  # others may stand beside it that have no noise
            found.average(options["samples"], **sampler)
        found.samples = options["samples"] or found.samples
        return found

    reference = RoundTrip(model(at.run)) if protocol.reference == "vae" else None
    rows = chosen(options, at.run, at.task, pairs, sampler, model)
    _check_means(options, rows)
    results = results_folder(options, at, data, sampler, protocol)
    score_rows(
        rows,
        pairs,
        protocol,
        results,
        About("", at.task, seed=options["seed"], size=options["size"], data=data),
        scored_by,
        options["save_images"],
        options["limit"],
        Share(state.process_index, state.num_processes),
        reference,
        # in a run's own folder the scores of its older weights give way
        keep_others=at.run / "evaluations" not in results.parents,
    )
    if state.is_main_process:
        print_scores(results)
        print(f"Wrote: {results}")


def results_folder(options: dict, at: Home, data: str, sampler: dict, protocol: Protocol) -> Path:
    """Where the records go: as the command says, else in a folder that is named by the settings."""
    if options["results"]:
        return Path(options["results"])
    size, seed = options["size"], options["seed"]
    draws = options["samples"] and f"{options['samples']} samples"
    settings = data, size, *sampler.values(), draws, seed, protocol.describe()
    name = slug(" ".join(f"{value}" for value in settings if value is not None))
    shipped = ROOT / "data" in at.run.resolve().parents
    if options["run"] and not shipped:
        return at.run / "evaluations" / name
    return Path("results", at.task) / name


def validation_images(run: Path, size: int | None):
    """The validation pairs of a run, centre-cropped to ``size``.

    Raises:
        UserError: if its folder was exported, without what it was trained on.
    """
    settings = read_settings(run / "run.json")
    places = {"pairs", "clean", "root"}
    if not all(entry.keys() & places for entry in settings["data"].get("mix") or ()):
        raise UserError(
            f"{run} was exported without its training images, of which split=validation scores a"
            " part; give run=FOLDER of the training itself, or leave out split."
        )
    return validation_pairs(settings, size)


def check_choice(options: dict) -> None:
    """Refuse what does not go together."""
    method, data = options["method"], options["data"]
    if method not in (None, "all", *METHODS) and not method.startswith(PREFIX):
        raise UserError(
            f"method={method} is unknown; choose all, {PREFIX}FILE or one of {', '.join(METHODS)}."
        )
    elsewhere = options["benchmark"] or data["clean"]
    if options["split"] == "validation" and (options["run"] is None or elsewhere):
        raise UserError(
            "split=validation scores the images that a training held back; give run=FOLDER of that"
            " training, without benchmark or data.clean."
        )
    if method == "outputs" and not options["outputs"]:
        raise UserError("method=outputs scores saved images; give their folder, outputs=DIR.")
    if options["outputs"] and options["jpeg"]:
        raise UserError(
            f"jpeg={options['jpeg']} changes what methods are given, and outputs="
            f"{options['outputs']} holds what one has made already; leave out one of them."
        )
    if options["outputs"] and method not in (None, "all", "outputs"):
        raise UserError(
            f"outputs={options['outputs']} does not go with method={method}; leave out one of them."
        )
    _check_data(options["benchmark"], data)


def _check_data(benchmark: str | None, data: dict) -> None:
    """Refuse keys of ``data`` that do not go together, or not with the benchmark."""
    if bool(benchmark) != bool(data["root"]):
        raise UserError("benchmark=NAME and data.root=DIR belong together; give both.")
    if benchmark and benchmark not in BENCHMARKS:
        raise UserError(f"benchmark={benchmark} is unknown; choose one of {', '.join(BENCHMARKS)}.")
    if data["masks"] and benchmark != "celebahq":
        raise UserError(
            "data.masks=DIR makes holes in benchmark=celebahq alone; other sets have their degraded"
            " images."
        )
    given = [k for k in ("clean", "degraded") if data[k]]
    if len(given) == 1:
        raise UserError(
            f"data.{given[0]} alone is not a pair; give both data.clean=DIR and data.degraded=DIR."
        )
    if given and benchmark:
        raise UserError(
            f"data.{given[0]} does not go with benchmark={benchmark}; leave out one of them."
        )


def home(options: dict) -> Home:
    """Where the adapter and the test images come from: the run, or a task of the command line."""
    task, run, config = options["task"].get("name"), options["run"], None
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
    named = "degradation" in options["task"]
    if named and (options["task"]["degradation"] or config is None):
        own_config = {"data": options["data"], "task": options["task"], "seed": 0}
        return Home(run, task, own_config, of_run=False)
    if config is None:
        settings = composed("train", f"task={task}", "name=x")["task"]
        own_config = {"data": options["data"], "task": settings, "seed": 0}
        return Home(run, task, own_config, of_run=False)
    return Home(run, task, config, of_run=True)


def _here(path: str) -> Path:
    """A path here or in the project; the words of the config where it is in neither."""
    return find(path) if find(path).exists() else Path(path)


def images(options: dict, at: Home):
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
    if not at.of_run and not at.config["task"].get("degradation"):
        raise UserError(
            f"task={at.task} has no images of its own; give data.clean=DIR data.degraded=DIR, or"
            " run=FOLDER."
        )
    pairs = test_pairs(at.config, size)
    if at.of_run:
        return pairs, getattr(pairs, "title", HELD_BACK)
    return pairs, _held_back(at.config, at.task)


def _held_back(config: dict, task: str) -> str:
    """What tells a task's test images from its default ones."""
    default = composed("train", f"task={task}", "name=x")
    own, usual = config["task"]["degradation"], default["task"]["degradation"]
    changes = [f"{k}={v}" for k, v in own.items() if v != usual.get(k)]
    test = config["data"]["test"]
    where = HELD_BACK if test == default["data"]["test"] else test
    return ", ".join([where, *changes])


def chosen(
    options: dict,
    run: Path,
    task: str,
    pairs,
    sampler: dict,
    model: Callable[[Path], Restorer],
) -> list[Method]:
    """The rows that the config asks for.

    Args:
        options: of the command.
        run: folder of the adapter.
        task: the task's name.
        pairs: that are scored.
        sampler: fields to change.
        model: loads the model of a folder.

    Raises:
        UserError: if something must be trained first.
    """
    method = options["method"]

    def load(folder: Path) -> list[Method]:
        restorer = model(folder)
        known = Trained.of(restorer, folder)
        return methods(restorer, options["seed"], known, pairs, **sampler)

    saved = []
    if options["outputs"]:
        saved = [
            output_row(options["outputs"], options["row"], pairs, options["size"], options["limit"])
        ]
        if method in (None, "outputs"):
            return saved
    if method == "identity":
        return [IDENTITY]
    if method == "classical":
        return [classical_method(task)]
    if method and method.startswith(PREFIX):
        return [network_row(method, options["row"], options["device"])]
    if method in TRAINED:
        return load(trained(method, task, run, options))[-1:]
    if not (run / "config.json").is_file() and options["run"] is None:
        raise UserError(
            f"There is no adapter for task={task} in {run}; train one, python scripts/train.py"
            f" task={task}, and give run=FOLDER."
        )
    rows = load(run)
    if method in OWN:
        return _named(method, rows, run)
    if not options["all_rows"]:
        return rows[-1:]
    plain_regression = []
    if (run / "regression" / "config.json").is_file():
        plain_regression = load(run / "regression")
    simple = [classical_method(task)] if task in CLASSICAL else []
    return [IDENTITY, *simple, *plain_regression, *rows, *saved]


def _check_means(options: dict, rows: list[Method]) -> None:
    """UserError where means of several draws are asked for, and no row is one."""
    count = options["samples"] or 1
    if count == 1 or any(draws_of(row.label) == count for row in rows):
        return
    what = f"method={options['method']}" if options["method"] else "this model with these calls"
    raise UserError(
        f"samples={count} has no row here, as {what} draws no noise of its own; leave samples out,"
        " or give method=NAME or sampler.nfe=N of one that does."
    )


def _named(method: str, rows: list[Method], run: Path) -> list[Method]:
    """The rows of an adapter by their key; a run with endpoint=y is an IRBridge too."""
    for key in (method, f"{method}_y"):
        if found := [row for row in rows if row.key == key]:
            return found
    raise UserError(f"{run} has no row method={method}; it has {', '.join(r.key for r in rows)}.")


def trained(method: str, task: str, run: Path, options: dict) -> Path:
    """The folder of a regression, a refinement, a bridge from scratch or the published IRBridge.

    It is the run that is given, its own regression, or ``<task>-<recipe>`` beside the run or in
    ``run_root``.
    """
    recipe = TRAINED[method]
    given = options["run"] is not None and (run / "config.json").is_file()
    if given and kind_of(run) == method:
        return run
    root = f"{run.parent}" if given else options["run_root"]
    default = _here(f"{root}/{task}-{recipe}")
    command = f"python scripts/train.py task={task} recipe={recipe} name={recipe} baseline=false"
    if root != "runs":
        command += f" run_root={root}"
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
    """What a trained run is: regression, refine, bridge, irbridge or irbridge_y."""
    config = read_settings(run / "config.json")
    kind = config.get("method", "irbridge")
    return "irbridge_y" if kind == "irbridge" and config.get("endpoint") == "y" else kind
