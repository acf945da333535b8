"""DeqIR against the official functions' numbers, the serial chain and the Gaussian's recursion."""

import math
from dataclasses import replace

import pytest
import torch
from toys import (
    FLOW_PRIOR,
    SIZE,
    VE_PRIOR,
    AveragePool,
    Draws,
    Mask,
    Seeds,
    array,
    error,
    golden,
    golden_image,
    golden_mask,
    golden_operator,
    last,
    one_of,
    plane_problem,
    problem,
    smooth_problem,
    toy_denoise,
    whitened,
)

from irbridge.errors import UserError
from irbridge.priors import VE, Flow
from irbridge.solvers.base import PUBLISHED, solver_class
from irbridge.solvers.deqir import Chain, DeqIR


class WithoutDecomposition(DeqIR):
    """The published factor on both noises, where an operator has no decomposition."""

    def shares(self, to):
        factor = math.sqrt(1 - to.alpha**4)
        return tuple(factor * share for share in super().shares(to))


CASES = golden("deqir")["cases"]


def toy(case):
    operator = golden_operator(case["operator"])
    m = array(case["y"]).reshape(operator(golden_image()).shape)
    draws = Draws([case["draw_xT"], case["draw_noise_shared_by_all_steps"]])
    return problem(operator, m, draws)


def solver(case, **options):
    kind = DeqIR if case["use_svd"] else WithoutDecomposition
    return kind(steps=4, nw=case["nw"], etw=case["etw"], **options)


@pytest.mark.parametrize("case", CASES)
def test_every_anderson_evaluation_is_the_official_one(case, monkeypatch):
    seen, call = [], Chain.__call__

    def recorded(chain, x):
        seen.append((x, call(chain, x)))
        return seen[-1][1]

    monkeypatch.setattr(Chain, "__call__", recorded)
    result = last(solver(case, returns="official").run(toy(case)))
    assert len(seen) == case["n_network_batches"]
    for (x, fx), theirs in zip(seen, case["anderson_evaluations"], strict=True):
        assert error(x[:, 0], theirs["state_in"]) < 1e-10
        assert error(fx[:, 0], theirs["state_out"]) < 1e-10
    assert error(result, case["anderson_returned"]) < 1e-10


def test_the_longer_golden_chain_and_its_number_of_calls():
    case = golden("deqir")["case_T25_summary"]
    operator = AveragePool(SIZE)
    draws = Draws([CASES[0]["draw_xT"]])
    steps = [*DeqIR(returns="official").run(problem(operator, operator(golden_image()), draws))]
    assert len(steps) == case["n_network_batches"]
    assert error(steps[-1].x0, case["anderson_returned"]) < 1e-10


@pytest.mark.parametrize("case", CASES)
def test_picard_and_converged_anderson_are_the_serial_chain(case):
    serial = last(solver(case, scheme="serial").run(toy(case)))
    assert error(serial, case["sequential_states"][-1]) < 1e-10
    picard = [*solver(case, scheme="picard", iterations=4, tol=0).run(toy(case))]
    assert len(picard) == 4 and error(picard[-1].x0, serial) < 1e-10
    anderson = last(solver(case, iterations=60, tol=1e-8).run(toy(case)))
    assert error(anderson, serial) < 1e-7


def test_picard_of_a_real_length_is_the_serial_chain_in_general_notation():
    for prior in (PUBLISHED, VE_PRIOR, FLOW_PRIOR):
        given = smooth_problem(Mask(SIZE, golden_mask()), prior, None, 2)
        options = dict(steps=25, nw=0.2, etw=0.3)
        serial = last(DeqIR(scheme="serial", **options).run(replace(given, noise=Seeds(1, 2))))
        picard = DeqIR(scheme="picard", iterations=25, tol=0, **options)
        assert error(last(picard.run(replace(given, noise=Seeds(1, 2)))), serial) < 1e-10


@pytest.mark.parametrize(
    "steps, mean, variance",
    [(10, 0.6683, 0.3424), (25, 0.8026, 0.3572), (50, 0.8599, 0.3601), (100, 0.8943, 0.3612)],
)
def test_a_gaussians_exact_recursion(steps, mean, variance):
    def hidden(**options):
        given = plane_problem(50, Draws([whitened(50)]))
        x = last(DeqIR(steps=steps, **options).run(given)).flatten(1)
        assert torch.allclose(x[:, 0], torch.tensor(1.2).double(), atol=1e-6)
        return x[:, 1].mean().item(), x[:, 1].var(unbiased=False).item()

    assert hidden(scheme="serial") == pytest.approx((mean, variance), abs=1e-4)
    if steps <= 25:
        found = hidden(iterations=200, tol=1e-8)
        assert found == pytest.approx((mean, variance), abs=1e-4)


def test_the_residual_curve_falls():
    given = smooth_problem(AveragePool(SIZE), PUBLISHED, Seeds(1, 2), 2)
    curve = torch.stack([s.residual for s in DeqIR(tol=0, iterations=40).run(given)])
    assert curve.shape == (40, 2)
    assert (curve[10] < 0.2 * curve[1]).all() and (curve[-1] < 1e-2 * curve[1]).all()


def test_images_of_a_batch_do_not_depend_on_one_another():
    given = smooth_problem(AveragePool(SIZE), PUBLISHED, None, 3)
    given.m[1] *= 1e4  # converges at another call
    for returns in ("clean", "official"):
        for scheme in ("anderson", "picard", "serial"):
            kind = DeqIR(steps=10, scheme=scheme, nw=0.1, tol=1.5e-2, returns=returns)
            together = last(kind.run(replace(given, noise=Seeds(1, 2, 3))))
            for i in range(3):
                alone = last(kind.run(replace(one_of(given, i), noise=Seeds(i + 1))))
                assert error(together[i : i + 1], alone) < 1e-10


def test_an_image_that_has_converged_stays():
    given = smooth_problem(AveragePool(SIZE), PUBLISHED, Seeds(1, 2), 2)
    given.m[1] *= 1e4
    steps = [*DeqIR(steps=10, tol=1.5e-2, iterations=40).run(given)]
    done = torch.stack([s.residual < 1.5e-2 for s in steps])
    first = done.int().argmax(0)
    assert first[0] != first[1] and max(first) == len(steps) - 1
    early = int(first.argmin())
    for step in steps[first[early] :]:
        assert torch.equal(step.x0[early], steps[first[early]].x0[early])


@pytest.mark.parametrize("prior", [PUBLISHED, VE_PRIOR, FLOW_PRIOR])
def test_every_family_of_priors_gives_data_consistent_images(prior):
    given = smooth_problem(AveragePool(SIZE), prior, Seeds(1, 2), 2)
    x = last(DeqIR().run(given))
    assert x.isfinite().all() and error(given.operator(x), given.m) < 1e-10


def test_float32_is_close_to_float64():
    def run(dtype):
        noise = Seeds(1, 2)
        return last(
            DeqIR().run(smooth_problem(AveragePool(SIZE), PUBLISHED, noise, 2, dtype=dtype))
        )

    single = run(torch.float32)
    assert single.dtype == torch.float32
    assert error(single.double(), run(torch.float64)) < 5e-3  # both stop at tol


def test_each_call_is_a_batch_of_all_levels_and_memory_grows_so():
    """The price that the class says: ``steps`` images a call, where the serial chain has one."""
    sizes = []

    def counted(z, tau):
        sizes.append(len(z))
        assert tau.dim() == 0 or len(tau) == len(z)
        return toy_denoise(z, tau)

    operator = AveragePool(SIZE)
    for scheme, each in (("anderson", 25), ("picard", 25), ("serial", 1)):
        sizes.clear()
        given = problem(operator, operator(golden_image()), Seeds(1), counted)
        kind = DeqIR(scheme=scheme, iterations=3, tol=0)
        assert len([*kind.run(given)]) == len(sizes) == kind.calls
        assert set(sizes) == {each}


def test_refusals_and_its_word():
    assert solver_class("deqir") is DeqIR
    with pytest.raises(UserError, match="noise=0"):
        DeqIR().check(AveragePool(SIZE), 0.1)
    for wrong in (dict(beta=0.0), dict(lam=0.0), dict(scheme="newton"), dict(memory=0)):
        with pytest.raises(UserError, match="solver."):
            DeqIR(**wrong)


def test_a_backbone_is_asked_at_all_levels_in_one_batch(backbone):
    operator = AveragePool((3, 16, 16))
    m = operator(torch.linspace(-1, 1, 3 * 256).reshape(1, 3, 16, 16))
    runs = []
    for scheme in ("serial", "picard"):
        given = problem(operator, m, Seeds(1), backbone.denoise, backbone.prior)
        with torch.no_grad():
            runs.append(last(DeqIR(steps=8, scheme=scheme, tol=0).run(given)))
    assert runs[0].dtype == torch.float32 and error(runs[1], runs[0]) < 1e-3


def test_other_families_converge_as_variance_preserving_ones_do():
    """In its own units the first guess of a variance-exploding chain is far off at low levels."""
    operator, results = AveragePool(SIZE), []
    for prior in (PUBLISHED, VE(sigma_max=1000.0, sigma_data=None), Flow(prediction_type="sample")):
        x = last(DeqIR().run(smooth_problem(operator, prior, Seeds(1, 2), 2)))
        results.append(x)
    assert error(results[1], results[0]) < 1e-8 and error(results[2], results[0]) < 1e-8
