"""What ``irbridge reproduce deblur`` runs: domains, contenders, steps and samples, in one place.

The question is what a diffusion adds to a regression of blurred images: one of the residual
(stochastic refinement), one of a few tokens (HI-Diff), or a bridge on a frozen prior of images. All
are trained on equally many crops of the same blur, and are scored on the same images
(docs/deblur.md).
"""

from collections.abc import Iterator

from irbridge.commands.domains import BUDGET, STEPS, Domain, present

ROOT = "runs/deblur"
TWICE = 2 * STEPS  # what the second of two trainings has seen, both together
CALLS = 1, 4, 10, 50
SAMPLES = 8
ON_PRIOR = ("bridge=refine", "timesteps=critical", "sampler=posterior", "sampler.nfe=10")
# whose number of steps and of samples is asked
ASKED = "refine_joint", "refine_joint_twice", "refine_frozen", "refine_prior"
# what restores in one way, by its training's words; refine_frozen and HI-Diff also take a run
PLAIN = {
    "regression": (STEPS, ("recipe=regression",)),
    "regression_twice": (TWICE, ("recipe=regression",)),
    "refine_joint": (STEPS, ("recipe=refine",)),
    "refine_joint_twice": (TWICE, ("recipe=refine",)),
    "anchored": (STEPS, ("recipe=irbridge",)),
    "ebridge": (STEPS, ("recipe=irbridge", "bridge=ebridge")),
    "refine_prior": (STEPS, ("recipe=irbridge", *ON_PRIOR)),
}


DOMAINS = (
    # 33 photographs, which are too few for kid_lpips
    Domain("photographs", (), ("size=128",)),
    Domain(
        "faces",
        ("experiment=faces",),
        ("size=64", "limit=64", "metrics=[kid_lpips]", "save_images=true"),
        "data/faces/test",
    ),
)


def commands() -> Iterator[tuple[str, ...]]:
    """All commands: trainings, then cheap rows, then those of many calls, then the tables.

    A domain whose images are not there is passed over, which is said.
    """
    there = present(DOMAINS)
    for domain in there:
        yield from trained(domain)
    for domain in there:
        yield from scored(domain)
    for samples in (1, SAMPLES):
        for calls in CALLS:
            for domain in there:
                for name in ASKED:
                    yield refined(domain, name, calls, samples)
    for domain in there:
        yield from tables(domain)


def contenders(domain: Domain) -> dict[str, tuple[int, tuple[str, ...]]]:
    """(steps, words) of every training by its name, in the order in which they need one another."""
    frozen = ("recipe=refine_frozen", f"refine.predictor={run_of(domain, 'regression')}")
    second = ("recipe=hidiff", "stage=2", f"stage1={run_of(domain, 'hidiff_stage1')}")
    return PLAIN | {
        "refine_frozen": (STEPS, frozen),
        "hidiff_stage1": (STEPS, ("recipe=hidiff", "stage=1")),
        "hidiff": (STEPS, second),
        "hidiff_direct": (STEPS, (*second, "hidiff.diffusion=false")),
    }


def run_of(domain: Domain, name: str) -> str:
    """The folder of a run."""
    steps = PLAIN[name][0] if name in PLAIN else STEPS
    return f"{ROOT}/{domain.name}/deblur-{name}-{steps}-0"


def trained(domain: Domain) -> Iterator[tuple[str, ...]]:
    """Every training of a domain."""
    for name, (steps, words) in contenders(domain).items():
        budget = (f"trainer.steps={steps}", *BUDGET, f"run={run_of(domain, name)}")
        yield ("train", *domain.training, "task=deblur", *words, *budget)


def scored(domain: Domain) -> Iterator[tuple[str, ...]]:
    """What restores in one way, the predictors alone, the degraded images, a classical method."""
    for method in ("identity", "classical"):
        yield scoring(domain, "regression", f"method={method}")
    for name in contenders(domain):
        if name not in ASKED:
            yield scoring(domain, name, "all_rows=false")
    for name in ASKED:
        yield scoring(domain, name, "method=anchor")


def refined(domain: Domain, name: str, calls: int, samples: int) -> tuple[str, ...]:
    """The words that score one draw, or the mean of several, of so many steps."""
    drawn = (f"samples={samples}",) if samples > 1 else ()
    return scoring(domain, name, "all_rows=false", f"sampler.nfe={calls}", *drawn)


def scoring(domain: Domain, name: str, *words: str) -> tuple[str, ...]:
    """The words that score a row of a run into the run's own folder."""
    run = run_of(domain, name)
    return ("evaluate", f"run={run}", *words, *domain.scoring, f"results={run}/results")


def tables(domain: Domain) -> Iterator[tuple[str, ...]]:
    """Scores with calls, parameters and seconds; the perception-distortion plot; intervals."""
    folder = f"{ROOT}/{domain.name}"
    yield ("table", folder, "layout=budgets")
    yield ("table", folder, "format=pd", f"output={folder}/perception.png")
    yield ("table", folder)
