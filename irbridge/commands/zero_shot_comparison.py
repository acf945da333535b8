"""What ``irbridge reproduce zeroshot`` runs: domains, solvers, trainings, in one place.

The question is where a frozen prior alone restores better than a network that was trained for the
task, and what it costs. All are given the same measurements (``irbridge inverse``), on photographs
with the embedded prior and on faces with theirs. Solvers know the operator and the noise; the
trained models see the measurement as an image, and were trained on measurements of the very same
problem with noise from 0 to 0.05.
"""

from collections.abc import Iterator

from irbridge.commands.domains import BUDGET, STEPS, Domain, present
from irbridge.data.problems import LOST, PAINTED, PROBLEMS

ROOT = "runs/zeroshot"
RESULTS = "results/zeroshot"
IMAGES = ("limit=16", "size=64")
RECIPES = "regression", "irbridge"
HOLES = {"pixels": LOST, "brush": PAINTED}  # and the share of the image that they take
CHEAP = "ddrm", "ddnm", "pigdm", "diffpir", "reddiff", "deqir", "likelihood"
DEAR = "scd", "dps"  # hundreds of calls with gradients, or a thousand


# chosen by irbridge inverse split=validation limit=4, see docs/zero-shot-comparison.md
TUNED = (("reddiff", ("solver.lr=0.05",)),)
DOMAINS = (
    Domain("photographs", tuned=TUNED),
    Domain(
        "faces",
        ("experiment=faces",),
        ("images=data/faces/test", "backbone=faces"),
        "data/faces/test",
    ),
)


def commands() -> Iterator[tuple[str, ...]]:
    """All commands: cheap rows of every domain first, the dear ones last, then the tables.

    A domain whose images are not there is passed over, which is said.
    """
    there = present(DOMAINS)
    for domain in there:
        yield inverse(domain, f"solver=[{','.join(CHEAP)}]")
    for domain in there:
        for solver, constants in domain.tuned:
            yield inverse(domain, f"solver={solver}", *constants, "baselines=false")
    for domain in there:
        yield from trained(domain)
    for solver in DEAR:
        for domain in there:
            yield inverse(domain, f"solver={solver}", "baselines=false")
    for domain in there:
        yield inverse(domain, "solver=[]")


def inverse(domain: Domain, *words: str) -> tuple[str, ...]:
    """The words that score rows of a domain into its folder, whose table they print."""
    return ("inverse", *domain.scoring, *IMAGES, *words, f"results={RESULTS}/{domain.name}")


def trained(domain: Domain) -> Iterator[tuple[str, ...]]:
    """Regression and a bridge through the frozen prior, on each problem, and their scores."""
    for problem in PROBLEMS:
        runs = [f"{ROOT}/{domain.name}/{problem}-{recipe}" for recipe in RECIPES]
        for recipe, run in zip(RECIPES, runs, strict=True):
            yield training(domain, problem, recipe, run)
        only = (f"problem={problem}", "solver=[]", "baselines=false")
        yield inverse(domain, *only, f"run=[{','.join(runs)}]")


def training(domain: Domain, problem: str, recipe: str, run: str) -> tuple[str, ...]:
    """The words of one training, on measurements of a problem with noise from 0 to 0.05."""
    task = ("task=known", f"task.degradation.operator={problem}")
    if problem in HOLES:
        share = HOLES[problem]
        kind = (f"task.degradation.kinds=[{problem}]", "task.degradation.scale=1.0")
        task = ("task=inpaint", *kind, f"task.degradation.masked=[{share},{share}]")
    noise = "task.degradation.noise=[0.0,0.05]"
    budget = (f"trainer.steps={STEPS}", *BUDGET, f"run={run}")
    return ("train", *domain.training, *task, noise, f"recipe={recipe}", *budget)
