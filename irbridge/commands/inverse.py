"""The command ``irbridge inverse``: solvers, classical methods and models on known problems."""

from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from tqdm import tqdm

from irbridge.assets import find, shipped
from irbridge.commands.compare import check_table
from irbridge.commands.options import InverseOptions, PriorOptions
from irbridge.data.image_source import ImageSource
from irbridge.data.problems import check_problem
from irbridge.data.selection import Subset, split_scenes
from irbridge.environment import device, set_threads
from irbridge.errors import UserError
from irbridge.evaluation.inverse import (
    CLASSICAL,
    DEGRADED,
    Contender,
    Measurements,
    by_model,
    by_solver,
    compete,
)
from irbridge.evaluation.methods import Trained
from irbridge.evaluation.metrics import STANDARD
from irbridge.evaluation.protocol import Protocol
from irbridge.evaluation.records import HELD_BACK, About, read_records, record_files, slug
from irbridge.experiments.build import from_pretrained, frozen_prior, trained
from irbridge.experiments.config import composed
from irbridge.files import write_atomically
from irbridge.reports.inverse_table import inverse_tables
from irbridge.reports.table import render

TEST, TRAIN = "data/samples/test", "data/samples/train"


def inverse_run(options: InverseOptions) -> None:
    """Score every contender on every problem at every noise, and print the tables.

    What a solver or a model cannot serve is left out, and said so.

    Raises:
        UserError: a word is unknown or out of range, images are missing, or nobody can serve any
            problem.
    """
    set_threads(options.threads)
    check(options)
    images, data = chosen_images(options)
    results = Path(options.results or f"runs/{slug(f'inverse {data} {_prior(options.backbone)}')}")
    check_table(results)
    for metric in STANDARD:
        metric.ready()
    tasks = [
        Measurements(images, problem, noise, options.seed, options.size)
        for problem, noise in product(options.problem, options.noise)
    ]
    # what cannot be measured at all shows before any model is loaded
    firsts = [given.measurement(0) for given in tasks]
    about = About("", data=data, size=options.size, seed=options.seed)
    rows = list(contenders(options))
    total = len(rows) * len(tasks) * len(images.names[: options.limit])
    with tqdm(total=total, unit="image", dynamic_ncols=True) as bar:
        for row, (given, first) in product(rows, list(zip(tasks, firsts, strict=True))):
            try:
                row.check(first)
            except UserError as error:
                tqdm.write(f"left out: {row.label}, {given.task}: {error}")
                bar.total -= len(images.names[: options.limit])
                continue
            for _ in compete(
                row,
                given,
                Protocol(),
                results,
                about,
                save_images=options.save_images,
                limit=options.limit,
            ):
                bar.update()
    deliver(results, about, images.names[: options.limit])


def check(options: InverseOptions) -> None:
    """Refuse words that are unknown or do not go together."""
    for problem in options.problem:
        check_problem(problem)
    if not options.problem or not options.noise:
        key = "noise" if options.problem else "problem"
        raise UserError(f"{key}=[] leaves nothing to solve; give one or more.")
    if options.images and options.split == "validation":
        raise UserError(
            "split=validation is of the project's own photographs; give images=DIR of other"
            " validation images without split."
        )
    if options.solver_settings and len(options.solver) != 1:
        raise UserError(
            f"solver.{next(iter(options.solver_settings))} is a constant of one solver; give one,"
            " such as solver=dps."
        )
    if not (options.solver or options.run or options.baselines):
        raise UserError(
            "Nobody is left to compare; give solver=NAME, run=FOLDER or baselines=true."
        )


def chosen_images(options: InverseOptions):
    """(clean images, what records call them)."""
    if options.images:
        return ImageSource(find(options.images)), options.images
    if options.split == "test":
        return ImageSource(find(TEST)), HELD_BACK
    images = ImageSource(find(TRAIN))
    # those that no training of the project's tasks sees
    every = composed("train", "name=x")["data"]["validation"]
    return Subset(images, split_scenes(images.scenes, every)[1]), "validation images"


def contenders(options: InverseOptions) -> Iterator[Contender]:
    """The rows: degraded and classical, the solvers as they are named, the models.

    Raises:
        UserError: a name is unknown, or two models would share a row.
    """
    at = device(options.device)
    if options.baselines:
        yield DEGRADED
        yield CLASSICAL
    if options.solver:
        backbone = frozen_prior(options.backbone.given()).to(at).eval()
        for name in options.solver:
            yield by_solver(backbone, name, options.solver_settings, at)
    models = []
    for name in options.run:
        model, folder = from_pretrained(name, at), trained(name)
        of_project = name in shipped() and folder == shipped()[name]
        models.append(by_model(model, Trained.of(model, folder), name, of_project))
    for label, count in Counter(model.label for model in models).items():
        if count > 1:
            raise UserError(
                f"{count} of run={list(options.run)} would both be the row {label!r}; score them"
                " one by one, each with a results=DIR of its own."
            )
    yield from models


def _prior(backbone: PriorOptions) -> str:
    """What names of folders call the frozen prior."""
    return Path(backbone.pretrained).name if backbone.pretrained else "embedded"


def deliver(results: Path, about: About, names: list[str]) -> None:
    """Write and print the tables of what is scored below a folder.

    Args:
        results: the folder.
        about: what the records that count have in common.
        names: of the images that count.

    Raises:
        UserError: nothing is scored there.
    """
    if not record_files(results):
        raise UserError("Nobody could serve any of these problems; see what was left out above.")
    keys = "seed", "size", "data"
    wanted = [getattr(about, key) for key in keys]
    records = [
        record
        for record in read_records(results)
        if [getattr(record.about, key) for key in keys] == wanted
    ]
    text, path = render(inverse_tables(records, names), "markdown"), results / "table.md"
    write_atomically(path, lambda aside: aside.write_text(text + "\n", encoding="utf-8"))
    print(f"\n{text}\n\nWrote: {path}")
