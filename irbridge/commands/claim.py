"""What ``irbridge reproduce claim`` runs: contenders, tasks, budgets and seeds, all in one place.

The claim is that a frozen prior with a light adapter beats a bridge from scratch. Here it is asked
in the world of faces, where the prior generates (docs/faces.md). Every contender sees the same
crops in the same order, and is scored on the same faces of other people.
"""

from collections.abc import Iterator
from itertools import product

# where a loss has LPIPS, all that are compared with it have it, of the same weight
LPIPS = "loss.lpips=1"
EBRIDGE = ("recipe=irbridge", "bridge=ebridge")
RESIDUAL = ("objective.target=residual", "objective.loss=l1")
THROUGH_PRIOR = {
    "published": ("recipe=published",),
    "published_irsde": ("recipe=published", "bridge=irsde"),
    "published_visited": ("recipe=published", "loss.states=visited"),
    "anchored": ("recipe=irbridge",),
    "anchored_lpips": ("recipe=irbridge", LPIPS),
    # as published: end y, the loss of v on the bridge's own states, ten calls
    "ebridge": ("recipe=irbridge_y", "bridge=ebridge", "loss=published_v", "loss.states=bridge"),
    "ebridge_anchored": EBRIDGE,
    "ebridge_few": (*EBRIDGE, "loss.states=bridge", "loss.consistency=1", "sampler.nfe=1"),
    "ebridge_lpips": (*EBRIDGE, LPIPS),
}
FROM_SCRATCH = {
    "regression": ("recipe=regression",),
    "regression_lpips": ("recipe=regression", LPIPS),
    "goub": ("recipe=goub",),
    "goub_residual": ("recipe=goub_residual",),
    "goub_lpips": ("recipe=goub_residual", LPIPS),
    "irsde": ("recipe=irsde",),
    "rdbm": ("recipe=rdbm",),
    "rdbm_residual": ("recipe=rdbm", *RESIDUAL),
    "rdbm_lpips": ("recipe=rdbm", *RESIDUAL, LPIPS),
    "rdbm_released": ("recipe=rdbm_released",),
}
CONTENDERS = THROUGH_PRIOR | FROM_SCRATCH
# adapters whose prior is asked by DDIM too: what is left of the bridge then
ASKED = "published", "anchored", "ebridge", "ebridge_anchored"
TASKS = "inpaint", "sr"
STEPS = 125, 625, 3125  # of 16 images: 2,000, 10,000 and 50,000
SEEDS = 0, 1
ROOT = "runs/claim"
QUESTIONS = "calls", "schedules", "noise", "elsewhere"  # folders ROOT-QUESTION beside it
MIDDLE = STEPS[1]  # the budget at which the paper's own questions are asked
SCORED = ("evaluate.all_rows=false", "evaluate.limit=128")
# whose number of calls is asked: the bridge, and the rules beside DDIM with the same adapter
COMPARED = {
    "published": ("goub", "reverse,ddim,ddim_fresh"),
    "anchored": ("brownian", "reverse,ddim"),
    "ebridge": ("ebridge", "implicit,drawn,ddim"),
    "ebridge_anchored": ("ebridge", "implicit,drawn,ddim"),
}
CALLS = "nfe=[1,2,3,5,10,25]"  # Table 3
SCHEDULES = tuple(f"S{k}" for k in range(1, 9))  # Fig. 11
# recipes that are tried where they were not trained
MOVED = "published", "anchored", "ebridge_anchored", "regression", "goub_residual"
NOISES = 0.00784, 0.0784, 0.2353  # Fig. 2: lambda of GOUB, in [-1, 1]


def run_of(task: str, contender: str, steps: int = MIDDLE, seed: int = 0) -> str:
    """The folder of a run."""
    return f"{ROOT}/{task}-{contender}-{steps}-{seed}"


def training(task: str, words: tuple[str, ...], steps: int, seed: int, run: str) -> tuple[str, ...]:
    """The words that train, or with ``reuse`` take over, and score one run."""
    budget = (f"trainer.steps={steps}", f"seed={seed}")
    return ("train", "experiment=faces", f"task={task}", *words, *budget, *SCORED, f"run={run}")


def commands() -> Iterator[tuple[str, ...]]:
    """All that the claim runs, in the order in which the runs need one another."""
    for part in (contests, distilled, baselines, questions, elsewhere, drawn):
        yield from part()


def contests() -> Iterator[tuple[str, ...]]:
    """Every contender at every budget and seed, the small budgets of all of them first."""
    for steps, seed, task in product(STEPS, SEEDS, TASKS):
        for contender, words in CONTENDERS.items():
            yield training(task, words, steps, seed, run_of(task, contender, steps, seed))


def distilled() -> Iterator[tuple[str, ...]]:
    """One call from the anchored E-Bridge: as many images again, of which none is clean (IBMD)."""
    for steps, task in product(STEPS, TASKS):
        words = ("recipe=distill", f"teacher={run_of(task, 'ebridge_anchored', steps)}")
        words = (*words, "sampler.steps=1", "trainer.lr=1.0e-4")
        yield training(task, words, steps, 0, run_of(task, "distilled", steps))


def baselines() -> Iterator[tuple[str, ...]]:
    """DDIM with the same adapters, from their own start and from noise (Fig. 9); and degraded."""
    for steps, seed, task, contender in product(STEPS, SEEDS, TASKS, ASKED):
        run = run_of(task, contender, steps, seed)
        # the degraded images once
        methods = ("ddim", "ddim_noise", *(("identity",) if contender == ASKED[0] else ()))
        for method in methods:
            words = (f"method={method}", "size=64", "limit=128", f"seed={seed}", "save_images=true")
            place = ("metrics=[kid_lpips]", f"results={run}/baselines")
            yield ("evaluate", f"run={run}", *words, *place)


def questions() -> Iterator[tuple[str, ...]]:
    """The paper's own questions, at the middle budget: calls, schedules, noise."""
    for task in TASKS:
        for contender, (bridge, rules) in COMPARED.items():
            run = run_of(task, contender)
            kinds = (f"bridges=[{bridge}]", f"samplers=[{rules}]", CALLS)
            size = ("size=64", "limit=64", f"results={ROOT}-calls/{task}-{contender}")
            yield ("compare", f"run={run}", *kinds, *size)
        taken = (*CONTENDERS["published"], f"reuse={run_of(task, 'published')}")
        for name in SCHEDULES:
            words = (*taken, "timesteps=paper", f"timesteps.name={name}")
            yield training(task, words, MIDDLE, 0, f"{ROOT}-schedules/{task}-{name}-{MIDDLE}-0")
        for noise in NOISES:
            words = (*taken, f"bridge.lam={noise}")
            yield training(task, words, MIDDLE, 0, f"{ROOT}-noise/{task}-{noise}-{MIDDLE}-0")


def elsewhere() -> Iterator[tuple[str, ...]]:
    """Where it was not trained: thin holes to thick ones, faces to photographs."""
    place = f"{ROOT}-elsewhere"
    holes = ("task=inpaint", "task.degradation.scale=0.4", "size=64", "all_rows=false")
    for contender in MOVED:
        thin = f"{place}/inpaint-{contender}_thin-{MIDDLE}-0"
        words = (*CONTENDERS[contender], "task.degradation.kinds=[thin]")
        yield training("inpaint", words, MIDDLE, 0, thin)
        faces = ("data.test=data/faces/test", "limit=128")
        trained = run_of("inpaint", contender)
        for run, kinds in ((thin, "thin"), (trained, "all")):
            words = ("task.degradation.kinds=[thick]", *faces)
            results = f"results={place}/thick/{contender}_{kinds}"
            yield ("evaluate", f"run={run}", *holes, *words, results)
        words = ("task.degradation.kinds=[thin,thick,half]",)
        results = f"results={place}/photographs/{contender}"
        yield ("evaluate", f"run={trained}", *holes, *words, results)


def drawn() -> Iterator[tuple[str, ...]]:
    """Faces that the prior drew, of no real person, degraded and restored after the first budget.

    These may be shown, and photographs of people may not.
    """
    faces = f"{ROOT}-drawn"
    draw = ("kid.samples=50", f"kid.output={faces}")
    yield ("prior", "images=data/faces/test", "backbone=faces", *draw)
    for task in TASKS:
        scale = ("task.degradation.scale=0.4",) if task == "inpaint" else ()
        words = (f"task={task}", *scale, f"data.test={faces}", "size=64", "limit=8")
        for contender in CONTENDERS:
            run = run_of(task, contender, STEPS[0])
            scoring = ("evaluate", f"run={run}", *words, "save_images=true")
            yield (*scoring, "all_rows=false", f"results={run}/drawn")
            if contender == ASKED[0]:
                yield (*scoring, "method=identity", f"results={run}/drawn")
