"""Likelihood-refined noise against its own formulas.

The paper and its numbers could not be read. What is compared here are three inferred candidates,
for orientation alone: none of these numbers is a target of conformance.
"""

import math
import weakref
from dataclasses import replace

import pytest
import torch
from toys import (
    FLOW_PRIOR,
    SIZE,
    VE_PRIOR,
    AveragePool,
    Dense,
    Draws,
    Identity,
    Mask,
    Seeds,
    error,
    golden_image,
    golden_mask,
    golden_operator,
    last,
    one_of,
    plane_problem,
    problem,
    smooth_problem,
    toy_denoise,
    toy_eps,
)

from irbridge.errors import UserError
from irbridge.priors.vp import vp_alphas_cumprod
from irbridge.solvers.base import PUBLISHED, Solver, solver_class
from irbridge.solvers.likelihood import Likelihood

GUESSES = ("tweedie", "estimate", "state")


def dense_score(guess, matrix, m, z, x0, alpha, sigma, std):
    """The sheet's candidates C3, C2 and C1 as they are written, with a dense inverse."""
    eye = std**2 * torch.eye(len(matrix), dtype=torch.float64)
    if guess == "tweedie":
        r2 = sigma**2 / (alpha**2 + sigma**2)
        inverse = torch.linalg.inv(eye + r2 * matrix @ matrix.T)
        return alpha * r2 / sigma**2 * (m - x0 @ matrix.T) @ inverse @ matrix
    inverse = torch.linalg.inv(eye + sigma**2 / alpha**2 * matrix @ matrix.T)
    centre = x0 if guess == "estimate" else z / alpha
    return (m - centre @ matrix.T) @ inverse @ matrix / alpha


def matrix_of(operator):
    """A of an operator, (M, N)."""
    size = math.prod(operator.size)
    return operator(torch.eye(size).double().reshape(size, *operator.size)).flatten(1).T


@pytest.mark.parametrize("guess", GUESSES)
@pytest.mark.parametrize("word", ["mask", "avgpool2", "identity"])
@pytest.mark.parametrize("std", [0.1, 0.0])
def test_the_whole_chain_is_the_candidates_formula(guess, word, std):
    operator = golden_operator(word)
    matrix = matrix_of(operator)
    if not std:  # whose rows may be zero: the inverse is of those that are not
        matrix = matrix[matrix.abs().sum(1) > 0]
    m = operator(golden_image())
    draws = [torch.randn(1, *SIZE, dtype=torch.float64) for _ in range(5)]
    kind = Likelihood(steps=5, guess=guess, eta=0.85)
    ours = [*kind.run(problem(operator, m, Draws(draws), std=std))]

    table = torch.as_tensor(vp_alphas_cumprod({}))
    seen = golden_image().flatten(1) @ matrix.T
    z = draws[0].flatten(1)
    for k, t in enumerate((800, 600, 400, 200, 0)):
        ab, below = table[t], table[t - 200] if t else torch.ones(()).double()
        alpha, sigma = ab.sqrt(), (1 - ab).sqrt()
        eps = toy_eps(z, t)
        x0 = (z - sigma * eps) / alpha
        score = dense_score(guess, matrix, seen, z, x0, alpha, sigma, std)
        refined = eps - sigma * score
        clean = (z - sigma * refined) / alpha
        assert error(ours[k].z, z) < 1e-10 and error(ours[k].x0, clean) < 1e-10
        new = 0.85 * ((1 - ab / below) * (1 - below) / (1 - ab)).sqrt()
        z = below.sqrt() * clean + (1 - below - new**2).sqrt() * refined
        if t:
            z = z + new * draws[k + 1].flatten(1)


@pytest.mark.parametrize("guess", ["tweedie", "estimate"])
def test_it_is_diffpirs_data_step(guess):
    """With rho = std^2 / r^2; so its noise is DiffPIR's, computed anew from that estimate."""
    std, generator = 0.3, torch.Generator().manual_seed(0)
    dense = Dense((3, 2, 2), torch.randn(5, 12, generator=generator))
    for operator in (dense, Mask(SIZE, golden_mask()), AveragePool(SIZE), Identity(SIZE)):
        for prior in (PUBLISHED, VE_PRIOR, FLOW_PRIOR):
            z, x0 = torch.randn(2, 2, *operator.size, generator=generator).double()
            m = operator(torch.randn(2, *operator.size, generator=generator).double())
            given = problem(operator, m, None, prior=prior, std=std)
            kind = Likelihood(steps=10, guess=guess)
            for at in kind.levels(prior):
                r2 = at.sigma**2 / at.alpha**2
                if guess == "tweedie":
                    r2 = at.sigma**2 / (at.alpha**2 + at.sigma**2)
                ours = x0 + kind.shift(given, z, x0, at)
                assert error(ours, operator.prox(x0, m, std**2 / r2)) < 1e-10


# The truth table's hidden coordinate at 100 steps, of 20,000 particles and two digits.
COUNT = 20_000


@pytest.mark.parametrize(
    "guess, mean, variance",
    [("state", 0.40, 0.57), ("estimate", 0.55, 0.54), ("tweedie", 0.55, 0.54)],
)
def test_the_gaussian_truth_table(guess, mean, variance):
    generator = torch.Generator().manual_seed(0)

    def noise(like):
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    x = last(Likelihood(guess=guess).run(plane_problem(COUNT, noise))).flatten(1)
    assert x[:, 0].mean() == pytest.approx(1.2, abs=1e-3)
    digit = 0.005
    assert x[:, 1].mean() == pytest.approx(mean, abs=digit + 3 * math.sqrt(variance / COUNT))
    spread = variance * math.sqrt(2 / COUNT)
    assert x[:, 1].var() == pytest.approx(variance, abs=digit + 3 * spread)
    # neither the posterior's mean nor its variance, .960 and .360
    assert x[:, 1].mean() < 0.6 and x[:, 1].var() > 0.5


@pytest.mark.parametrize("prior", [PUBLISHED, VE_PRIOR, FLOW_PRIOR])
@pytest.mark.parametrize("guess", GUESSES)
def test_every_family_of_priors_gives_consistent_images(prior, guess):
    for std in (0.0, 0.1):
        given = smooth_problem(AveragePool(SIZE), prior, Seeds(1, 2), 2, std)
        x = last(Likelihood(guess=guess).run(given))
        assert x.isfinite().all()
        missed = (given.operator(x) - given.m).abs().max()
        assert missed < (0.5 if std or guess == "state" else 1e-10)


def test_images_of_a_batch_do_not_depend_on_one_another():
    given = smooth_problem(AveragePool(SIZE), PUBLISHED, None, 3, 0.1)
    kind = Likelihood(steps=10)
    together = last(kind.run(replace(given, noise=Seeds(1, 2, 3))))
    for i in range(3):
        alone = last(kind.run(replace(one_of(given, i), noise=Seeds(i + 1))))
        assert error(together[i : i + 1], alone) < 1e-12


def test_float32_is_close_to_float64():
    def run(dtype):
        noise = Seeds(1, 2)
        return last(
            Likelihood().run(
                smooth_problem(AveragePool(SIZE), PUBLISHED, noise, 2, 0.1, dtype=dtype)
            )
        )

    single = run(torch.float32)
    assert single.dtype == torch.float32
    assert error(single.double(), run(torch.float64)) < 1e-4


def test_memory_does_not_grow_with_the_steps():
    operator = AveragePool(SIZE)
    given = problem(operator, operator(golden_image()), Seeds(1), toy_denoise)
    states = []
    for step in Likelihood(steps=20).run(given):
        states.append(weakref.ref(step.x0))
        del step
    assert sum(at() is not None for at in states) <= 1


def test_it_is_flagged_and_refuses_what_it_cannot_serve(monkeypatch):
    assert solver_class("likelihood") is Likelihood
    assert Likelihood.experimental and not Solver.experimental
    assert "xperimental" in Likelihood.__doc__.splitlines()[0]
    assert not Likelihood.noiseless and not Likelihood.backward

    class Unknown(AveragePool):
        spectral = False

    monkeypatch.setattr("irbridge.solvers.base.SOLVERS", ("deqir", "scd", "likelihood"))
    with pytest.raises(UserError, match="singular value decomposition.*use solver=scd"):
        Likelihood().check(Unknown(SIZE), 0.1)
    with pytest.raises(UserError, match="solver.guess"):
        Likelihood(guess="c3")
