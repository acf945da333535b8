"""The command ``irbridge reproduce``: one word for every table of the documentation.

A recipe is a list of the other commands, in the order in which they need one another. Each of them
goes on where it was stopped and does nothing again that is finished, and so does the whole.
"""

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from irbridge.commands import claim, deblur_comparison, zero_shot_comparison
from irbridge.commands.options import ReproduceOptions
from irbridge.errors import Failure, UserError, unknown
from irbridge.reports import published

SIX = "derain,dehaze,desnow,raindrop,lowlight,inpaint"
# the real pairs of docs/results.md: task and folder
REAL = {
    "derain": "Rain100H",
    "dehaze": "SOTS-indoor",
    "raindrop": "RainDrop",
    "lowlight": "LOL-small",
}
# the task that each row of Table 4 takes its adapter from
TABLE4_TASKS = {"realrain": "derain", "realsnow": "desnow", "rtts": "dehaze"}
# the rows of the search for an adapter, and the steps that each took in 150 core seconds
SEARCH = {
    "w16": (1532, "adapter.width=16"),
    "w24": (816, "adapter.width=24"),
    "deep3": (
        684,
        "adapter.width=24 adapter.encoder=[1,2,4] adapter.middle=4 adapter.decoder=[1,1,1]",
    ),
    "fast": (850, "adapter.width=24 trainer.lr=4e-3"),
    "attention": (685, "adapter.width=24 adapter.attention=true"),
    "w32": (524, "adapter.width=32"),
    "deep4": (665, "adapter.width=24 adapter.encoder=[1,1,2,4] adapter.middle=4"),
    "large": (874, "adapter.width=24 trainer.crop=96 trainer.batch_size=8"),
    "slow": (843, "adapter.width=24 trainer.lr=1e-3"),
}


class Step(NamedTuple):
    """A command of a recipe.

    Attributes:
        words: of the command, without ``irbridge``.
        names: what a user's word may begin with to reach this step alone, as
            ``derain.data.root=DIR``; a word without such a beginning reaches every step with names.
    """

    words: tuple[str, ...]
    names: tuple[str, ...] = ()


class Recipe(NamedTuple):
    """How a table is made.

    Attributes:
        what: the table.
        cost: what it takes.
        page: where it stands.
        steps: the commands, in order.
    """

    what: str
    cost: str
    page: str
    steps: Callable[[], Iterator[Step]]


def reproduce_run(options: ReproduceOptions) -> None:
    """Run a recipe, print its commands, or list all recipes.

    Raises:
        UserError: the name is none, or a word reaches no step.
        RuntimeError: a step failed.
    """
    if not options.name:
        raise UserError("Give the name of a table; irbridge reproduce list has all.")
    name, *words = options.name
    if name == "list":
        print(listing())
        return
    commands = list(planned(name, words))
    for number, command in enumerate(commands, 1):
        shown = shlex.join(["irbridge", *command])
        if options.dry_run:
            print(shown)
            continue
        print(f"[{number}/{len(commands)}] {shown}", flush=True)
        _run(command, shown, last=number == len(commands))


def listing() -> str:
    """Every name with what it makes and what that costs."""
    widest = max(map(len, RECIPES))
    lines = []
    for name, recipe in RECIPES.items():
        lines.append(f"{name.ljust(widest)}  {recipe.what} ({recipe.page})")
        lines.append(f"{' ' * widest}  {recipe.cost}")
    return "\n".join(lines)


def planned(name: str, words: list[str]) -> Iterator[list[str]]:
    """The commands of a recipe with the user's words.

    Args:
        name: of the recipe.
        words: ``key=value`` for the steps that train or score; ``NAME.key=value`` for those alone
            that bear the name.

    Raises:
        UserError: there is no such recipe, or a word is none.
    """
    if name not in RECIPES:
        remedy = "see irbridge reproduce list"
        raise unknown(f"{name!r} is not a table of the documentation", name, RECIPES, remedy)
    if wrong := [word for word in words if "=" not in word]:
        raise UserError(f"{wrong[0]!r} is no key=value; give one table, then words for its runs.")
    steps = list(RECIPES[name].steps())
    known = {known for step in steps for known in step.names}
    for step in steps:
        yield [*step.words, *(_reaching(step, words, known) if step.names else ())]


def _reaching(step: Step, words: list[str], known: set[str]) -> Iterator[str]:
    """The user's words that reach a step."""
    for word in words:
        first, _, rest = word.partition(".")
        if first not in known or "=" in first:
            yield word
        elif first in step.names:
            yield rest


def _run(command: list[str], shown: str, last: bool) -> None:
    """Run one command in a process of its own; RuntimeError where it fails.

    A command that was interrupted saves what it has, so it is waited for.
    """
    child = subprocess.Popen([sys.executable, "-m", "irbridge", *command])
    try:
        status = child.wait()
    except KeyboardInterrupt:
        try:
            child.wait(timeout=1)  # a terminal's signal has reached it too
        except subprocess.TimeoutExpired:
            child.terminate()
            child.wait()
        raise
    if status:
        goes_on = "" if last else "; the same reproduce command goes on from there"
        raise Failure(f"`{shown}` ended with status {status}{goes_on}.")


def _shipped() -> Iterator[Step]:
    methods = "method=identity,classical,anchor,ddim,irbridge"
    results = "results=results/shipped/${task.name}"
    yield Step(("evaluate", "-m", f"task={SIX}", methods, results), ("evaluate",))
    yield Step(("table", "results/shipped", "layout=tasks"))


def _real() -> Iterator[Step]:
    for task, folder in REAL.items():
        words = (
            "method=identity,classical,anchor,ddim,irbridge",
            f"data.clean=pairs/{folder}/clean",
            f"data.degraded=pairs/{folder}/degraded",
            "size=null",
            f"results=results/real/{task}",
        )
        yield Step(("evaluate", "-m", f"task={task}", *words), (task,))
    yield Step(("table", "results/real", "layout=tasks"))


def _default() -> Iterator[Step]:
    yield Step(("train", "task=derain"), ("train",))


def _efficiency() -> Iterator[Step]:
    for task in ("derain", "inpaint"):
        yield Step(("train", "experiment=efficiency", f"task={task}"), (task,))
    plot = "plot=runs/efficiency/efficiency.png"
    yield Step(("table", "runs/efficiency", "layout=budgets", plot))


def _rdbm() -> Iterator[Step]:
    yield Step(("train", "experiment=rdbm"), ("train",))
    yield Step(("table", "runs/rdbm"))


def _tasks() -> Iterator[Step]:
    yield Step(("train", "experiment=tasks"), ("train",))
    yield Step(
        (
            "evaluate",
            "-m",
            f"task={SIX}",
            "method=identity,classical,regression,bridge,ddim,irbridge_y,irbridge",
            "run=runs/tasks/${task.name}-irbridge",
            "results=results/tasks/${task.name}",
        )
    )
    yield Step(("table", "results/tasks", "layout=tasks"))


def _claim() -> Iterator[Step]:
    for words in claim.commands():
        yield Step(words, ("train",) if words[0] == "train" else ())
    table = ("table", claim.ROOT, "layout=budgets")
    yield Step((*table, f"plot={claim.ROOT}/claim.png", f"picture={claim.ROOT}/faces.png"))
    yield Step((*table, "results=drawn", f"picture={claim.ROOT}/drawn.png"))
    for question in claim.QUESTIONS:
        yield Step(("table", f"{claim.ROOT}-{question}"))


def _zero_shot() -> Iterator[Step]:
    for words in zero_shot_comparison.commands():
        yield Step(words, (words[0],))


def _deblur() -> Iterator[Step]:
    for words in deblur_comparison.commands():
        yield Step(words, (words[0],) if words[0] != "table" else ())


def _samplers() -> Iterator[Step]:
    yield Step(("compare", "run=data/adapters/derain"), ("compare",))


def _spacings() -> Iterator[Step]:
    words = (
        "run=data/adapters/derain",
        "bridges=[brownian]",
        "samplers=[reverse,implicit,posterior,ddim,dpmpp]",
        "spacings=[time,logsnr,karras]",
        "nfe=[2,3,5,8]",
        "limit=16",
        "results=runs/compare-derain-spacings",
    )
    yield Step(("compare", *words), ("compare",))


def _inpaint_calls() -> Iterator[Step]:
    one = ("hydra.mode=RUN", "recipe=irbridge", "trainer.steps=160", "seed=0")
    yield Step(("train", "experiment=efficiency", "task=inpaint", *one), ("train",))
    words = (
        "run=runs/efficiency/inpaint-irbridge-160-0",
        "bridges=[brownian]",
        "samplers=[reverse,posterior,ddim]",
        "nfe=[1,2,3,5,8]",
        "limit=8",
    )
    yield Step(("compare", *words), ("compare",))


def _levels() -> Iterator[Step]:
    yield Step(("train", "task=derain"), ("train",))
    words = (
        "run=runs/derain-brownian",
        "split=validation",
        "bridges=[brownian]",
        "samplers=[reverse]",
        "starts=[4,8,15,30]",
        "nfe=[0,1,3]",
        "size=128",
        "limit=12",
    )
    yield Step(("compare", *words), ("compare",))


def _search() -> Iterator[Step]:
    for name, (steps, keys) in SEARCH.items():
        words = (
            "task=derain",
            "loss.anchor_first=1",
            "sampler.nfe=0",
            f"trainer.steps={steps}",
            f"trainer.validate_every={steps}",
            "baseline=false",
            "evaluate.enabled=false",
            "run_root=runs/search",
            f"name={name}",
        )
        yield Step(("train", *words, *keys.split()), ("train", name))
    for name in SEARCH:
        run = f"run=runs/search/derain-{name}"
        results = f"results=results/search/{name}"
        words = ("split=validation", "method=anchor", "limit=24", results, f"row={name}")
        yield Step(("evaluate", run, *words))
    yield Step(("table", "results/search"))


def _prior() -> Iterator[Step]:
    yield Step(("prior", "images=data/samples/test"), ("prior",))


def _degradations() -> Iterator[Step]:
    yield Step(("data", "tasks", "output=runs/tasks-pictures"))


def _bridges() -> Iterator[Step]:
    yield Step(("bridges", "recipe=bridge", "output=runs/bridges"))


def _parts() -> Iterator[Step]:
    for adapter in ("static", "control"):
        words = ("task=derain", f"adapter={adapter}", "threads=1", f"output=runs/{adapter}.json")
        yield Step(("profile", *words), ("profile", adapter))


def _restoring() -> Iterator[Step]:
    restore = ("profile", "benchmark.restore=derain")
    three = ("benchmark.calls=3", "benchmark.sizes=[512,1024]", "benchmark.runs=1")
    yield Step((*restore, *three), ("profile", "calls"))
    alone = ("benchmark.sizes=[512,1024,2048]", "benchmark.runs=2")
    yield Step((*restore, *alone), ("profile", "anchor"))


def _speed_of_training() -> Iterator[Step]:
    words = ("adapter.trunk=unet", "trainer.batch_size=8", "benchmark.runs=2")
    yield Step(("profile", *words), ("profile",))


def _paper(table: str) -> Callable[[], Iterator[Step]]:
    """The steps of a table of the paper: the adapters that it takes over, its rows, the table."""

    def steps() -> Iterator[Step]:
        rows = [line.experiment for line in published.lines(table) if line.run]
        rows = list(dict.fromkeys(rows))
        adapters = [f"table1_{_task(row)}_goub" for row in rows]
        for experiment in dict.fromkeys([*adapters, *rows]):
            words = ("train", *published.words_of(experiment))
            yield Step(words, (_task(experiment), experiment))
        yield Step(("table", f"paper={table}"))

    return steps


def _task(experiment: str) -> str:
    """The task of a row of the paper."""
    table, row, *_ = experiment.split("_")
    if table == "table3":
        return "derain"
    return TABLE4_TASKS.get(row, row)


DAYS = "about a day each on an RTX 3090 in the paper, never run here"
RECIPES = {
    "shipped": Recipe(
        "the shipped adapters on six tasks",
        "30 rows of 33 photographs at 160 px, no training",
        "docs/results.md",
        _shipped,
    ),
    "real": Recipe(
        "the shipped adapters on real pairs",
        "20 rows of 5 to 20 whole photographs, no training; the pairs in pairs/SET/clean, degraded",
        "docs/results.md",
        _real,
    ),
    "default": Recipe(
        "the default training", "10 to 15 minutes on 2 cores", "docs/adapter.md", _default
    ),
    "efficiency": Recipe(
        "prior or from scratch, by training budget",
        "112 runs, about an hour on 2 cores for each of two tasks",
        "docs/efficiency.md",
        _efficiency,
    ),
    "rdbm": Recipe(
        "RDBM as published, as released, and its ablation",
        "4 runs, about 20 minutes on 2 cores",
        "docs/efficiency.md",
        _rdbm,
    ),
    "tasks": Recipe(
        "six tasks by four methods at one budget",
        "24 runs, about an hour and a half on 2 cores, then 42 rows of 33 photographs",
        "docs/efficiency.md",
        _tasks,
    ),
    "claim": Recipe(
        "a prior that generates, or a bridge from scratch: faces, by training budget",
        "145 trainings of 2,000 to 50,000 images, days on 2 cores; needs the faces in data/faces",
        "docs/faces.md",
        _claim,
    ),
    "zeroshot": Recipe(
        "zero-shot solvers, classical methods and trained models on five known problems",
        "10 trainings of 10,000 crops, about 2 hours on one core, then 16 images x 5 problems x 2"
        " levels of noise: 3 hours for the cheap solvers, 10 for the dear ones; twice that with the"
        " faces in data/faces",
        "docs/zero-shot-comparison.md",
        _zero_shot,
    ),
    "deblur": Recipe(
        "regression, stochastic refinement, HI-Diff and bridges, on blurred images",
        "11 trainings of 10,000 or 20,000 crops of 64 px, about 3 hours on 2 cores, then 13 cheap"
        " rows and 32 rows of 1 to 400 calls of 33 photographs at 128 px; again with the faces in"
        " data/faces, which were not measured yet",
        "docs/deblur.md",
        _deblur,
    ),
    "samplers": Recipe(
        "bridge x step rule x calls",
        "40 rows at 7 numbers of calls, 6 photographs at 80 px: about 2 hours on 2 cores",
        "docs/samplers.md",
        _samplers,
    ),
    "samplers/spacings": Recipe(
        "spacings of the times",
        "15 rows at 4 numbers of calls, 16 photographs at 80 px: about 10 minutes on 2 cores",
        "docs/samplers.md",
        _spacings,
    ),
    "samplers/inpaint": Recipe(
        "rules and calls of inpaint",
        "one training of 160 steps, then 3 rows at 5 numbers of calls: a few minutes on 2 cores",
        "docs/samplers.md",
        _inpaint_calls,
    ),
    "adapter/search": Recipe(
        "width, depth and rate of the adapter",
        "9 runs of 150 core seconds; in the table on a mix with Rain800, here 'data.mix=[...]'",
        "docs/adapter.md",
        _search,
    ),
    "adapter/levels": Recipe(
        "levels and calls, on validation images",
        "the default training, then 4 levels at 3 numbers of calls, 12 images at 128 px",
        "docs/adapter.md",
        _levels,
    ),
    "prior": Recipe(
        "the embedded prior as a denoiser",
        "33 whole photographs at 3 levels, and non-local means beside it",
        "docs/prior.md",
        _prior,
    ),
    "degradations": Recipe(
        "the degraded PSNR and the pictures of every task",
        "10 tasks of 33 photographs at 160 px, no network",
        "docs/tasks.md",
        _degradations,
    ),
    "bridges": Recipe(
        "the law of every bridge, drawn with the noise that it was published with",
        "19 pictures, no network",
        "docs/bridges/index.md",
        _bridges,
    ),
    "speed/restoring": Recipe(
        "seconds and memory of irbridge restore",
        "12 restorations of up to 2048 px; with benchmark.against=DIR beside another checkout",
        "docs/speed.md",
        _restoring,
    ),
    "speed/training": Recipe(
        "images a second of training",
        "2 short trainings each; needs benchmark.against=DIR, another checkout",
        "docs/speed.md",
        _speed_of_training,
    ),
    "speed/parts": Recipe(
        "parts of a training step and of a restoration",
        "2 x 26 steps and restorations, one thread",
        "docs/speed.md",
        _parts,
    ),
    "paper/table1": Recipe(
        "six tasks, GOUB and IR-SDE",
        f"12 runs, of which 6 train, {DAYS}; needs TASK.data.root=DIR of six public sets",
        "docs/paper.md",
        _paper("table1"),
    ),
    "paper/table3": Recipe(
        "100, 50 and 25 steps",
        f"one training, {DAYS}, then 3 runs; needs data.root=DIR of Rain100H",
        "docs/paper.md",
        _paper("table3"),
    ),
    "paper/table4": Recipe(
        "photographs without clean versions",
        f"3 trainings, {DAYS}, then 3 runs; needs TASK.data.root=DIR and"
        " table4_realrain.evaluate.real=DIR and alike",
        "docs/paper.md",
        _paper("table4"),
    ),
    "paper/fig11": Recipe(
        "eight timestep schedules",
        f"6 trainings, {DAYS}, then 96 runs of 4 images; needs TASK.data.root=DIR",
        "docs/paper.md",
        _paper("fig11"),
    ),
}
