"""SCD against the official program's numbers, and the network as it was after a run."""

import builtins
import copy
import math
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import (
    FLOW_PRIOR,
    SIZE,
    VE_PRIOR,
    AveragePool,
    Dense,
    Draws,
    Mask,
    Seeds,
    ToyNetwork,
    array,
    denoiser,
    error,
    golden,
    golden_mask,
    golden_operator,
    last,
    one_of,
    plane_problem,
    problem,
    smooth_problem,
)

from irbridge.errors import UserError
from irbridge.operators.base import Operator
from irbridge.solvers.base import PUBLISHED, solver_class
from irbridge.solvers.low_rank import LowRank, _layers
from irbridge.solvers.scd import SCD, total_variation

CASES = golden("scd")["cases"]


class Listed(SCD):
    """At the golden file's timesteps, which no stride gives."""

    def indices(self, length):
        return np.arange(7)[::-1] * 150


def toy(case):
    """(solver, problem) of a golden case."""
    c = case["constants"]
    solver = Listed(
        steps=7,
        rank=c["r"],
        inner=c["K"],
        lr=c["lr"],
        gamma=c["gamma"],
        cg=c["max_iter"],
        tv=c["alphatv"],
        skip=c["skip"],
        eta=c["eta"],
        returns="official",
    )
    unit = c["r"] * array(case["lora_down_init"])
    new = [s["z"] for s in case["steps"]] if c["eta"] else []
    draws = Draws([case["init_draw_xT"], unit, *new])
    network = ToyNetwork(case)
    operator, m = golden_operator(case["operator"]), array(case["y"])
    return solver, problem(operator, m, draws, denoiser(network), network=network)


def by_level(steps):
    """The steps of each level, from the most noise on."""
    levels = {}
    for step in steps:
        levels.setdefault(float(step.tau), []).append(step)
    return list(levels.values())


@pytest.mark.parametrize("case", CASES)
def test_every_level_is_the_official_one(case):
    solver, given = toy(case)
    official = [*solver.run(given)]
    assert len(official) == solver.calls
    clean = [*replace(solver, returns="clean").run(toy(case)[1])]
    levels = zip(by_level(official), by_level(clean), case["steps"], strict=True)
    for ours, corrected, theirs in levels:
        assert len(ours) == 2 + theirs["n_adapt"]
        assert error(ours[0].z, theirs["x_t"]) < 1e-10
        assert error(ours[0].x0, theirs["x0_frozen"]) < 1e-10
        assert error(ours[-1].x0, theirs["x0_adapted"]) < 1e-10
        assert error(corrected[-1].x0, theirs["xhat_after_cg"]) < 1e-10
    assert error(official[-1].x0, case["returned_image"]) < 1e-10


@pytest.mark.parametrize("case", CASES)
def test_every_gradient_and_update_is_the_official_one(case, monkeypatch):
    seen, step = [], LowRank.step

    def recorded(updates, image, loss):
        step(updates, image, loss)
        down, up = updates.weights[image]
        seen.append([w.detach().clone() for w in (down.grad, up.grad, down, up)])

    monkeypatch.setattr(LowRank, "step", recorded)
    solver, given = toy(case)
    last(solver.run(given))
    for level in case["steps"]:
        for theirs in level["inner"]:
            now = seen.pop(0)
            grad_down, grad_up, down, up = now
            assert close(grad_up, theirs["grad_up"]) and close(grad_down, theirs["grad_down"])
        if level["inner"]:
            assert close(down, level["lora_down_after"]) and close(up, level["lora_up_after"])
    assert not seen


def close(ours, theirs):
    """Gradients may be zero."""
    theirs = array(theirs)
    return (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()


@pytest.mark.parametrize("case", golden("dds")["cases"])
def test_without_inner_steps_it_is_the_official_dds(case):
    c = case["constants"]
    solver = SCD(steps=4, inner=0, eta=c["eta"], gamma=c["gamma"], cg=c["max_iter"])
    for returns, wanted in (("clean", "final_xhat"), ("official", "final_x0_pred")):
        draws = Draws([case["init_draw_xT"], *(s["z"] for s in case["steps"])])
        given = problem(golden_operator(case["operator"]), array(case["y"]), draws)
        steps = [*replace(solver, returns=returns).run(given)]
        for ours, theirs in zip(steps, case["steps"], strict=True):
            assert error(ours.z, theirs["x_t"]) < 1e-10
        assert error(steps[-1].x0, case[wanted]) < 1e-10


def test_without_a_learning_rate_it_is_dds():
    solver, given = toy(CASES[0])
    results = []
    for changes in (dict(lr=0.0), dict(inner=0), dict(lr=1e-100)):
        solver, given = toy(CASES[0])
        if "lr" not in changes or not changes["lr"]:
            given.noise.draws.pop(1)  # no updates, no draw for them
        results.append(last(replace(solver, **changes).run(given)))
    assert torch.equal(results[0], results[1]) and error(results[2], results[1]) < 1e-10


def test_the_rank_is_the_rank_and_inner_are_adams_steps():
    """The official help pages have the two the other way round."""
    solver, given = toy(CASES[2])
    assert (solver.rank, solver.inner) == (1, 3)
    steps = solver.run(given)
    next(steps)
    assert given.network.conv.lora_A["measurement"].weight.shape[0] == 1
    steps.close()
    assert SCD(rank=12, inner=18, skip=5).calls == 200 + 23 * 18  # the README's command


def test_exact_steps_of_conjugate_gradients_are_the_proximal_step():
    """Two steps suffice where A^T A has two eigenvalues; the third divides nothing by zero."""
    for operator in (Mask(SIZE, golden_mask()), AveragePool(SIZE)):
        x = torch.randn(2, *SIZE, dtype=torch.float64)
        m = operator(torch.randn(2, *SIZE, dtype=torch.float64))
        for cg in (2, 3, 20):
            found = SCD(cg=cg)._corrected(operator, m, x)
            assert error(found, operator.prox(x, m, 1 / 10)) < 1e-12
        exact = SCD()._corrected(operator, operator(x), x)
        assert torch.equal(exact, x)


def test_total_variation_counts_the_common_grid():
    x = torch.zeros(1, 1, 3, 4, dtype=torch.float64)
    x[0, 0, 1, 1] = 1
    assert total_variation(x) == 4
    x = torch.zeros(1, 1, 3, 4, dtype=torch.float64)
    x[0, 0, 2] = 5  # the last row counts as a neighbour alone
    assert total_variation(x) == 15


def state(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(network, weights):
    now = network.state_dict()
    return [*now] == [*weights] and all(torch.equal(now[k], weights[k]) for k in now)


SHORT = dict(steps=4, inner=2, rank=2, lr=1e-2, skip=2)


def real_problem(backbone, images=1, side=16, operator=None):
    operator = operator or AveragePool((3, side, side))
    m = operator(torch.linspace(-1, 1, images * 3 * side**2).reshape(images, 3, side, side))
    return problem(
        operator,
        m,
        Seeds(*range(1, images + 1)),
        lambda z, tau: backbone.denoise(z, tau),
        backbone.prior,
        network=backbone.network,
    )


class Broken(AveragePool):
    """Fails at a later call."""

    left = 8

    def __call__(self, x):
        self.left -= 1
        if not self.left:
            raise RuntimeError("broken")
        return super().__call__(x)


@pytest.mark.parametrize("end", ["normal", "exception", "closed", "forgotten"])
def test_the_network_is_what_it_was_however_a_run_ends(backbone, end):
    z, tau = torch.randn(1, 3, 16, 16), torch.tensor(300.0, dtype=torch.float64)
    weights, output = state(backbone.network), backbone.denoise(z, tau)
    modules = dict(backbone.network.named_modules())
    wanted = [w.requires_grad for w in backbone.network.parameters()]
    attributes = set(vars(backbone.network))
    operator = Broken((3, 16, 16)) if end == "exception" else None
    run = SCD(**SHORT).run(real_problem(backbone, operator=operator))
    if end == "exception":
        with pytest.raises(RuntimeError, match="broken"):
            last(run)
    elif end == "normal":
        assert last(run).isfinite().all()
    else:
        for _ in range(4):
            next(run)
        if end == "closed":
            run.close()
        del run
    assert same(backbone.network, weights)
    assert dict(backbone.network.named_modules()) == modules
    assert [w.requires_grad for w in backbone.network.parameters()] == wanted
    assert all(w.grad is None for w in backbone.network.parameters())
    assert set(vars(backbone.network)) == attributes
    assert torch.equal(backbone.denoise(z, tau), output)


def test_between_steps_the_network_gives_its_own_output(backbone):
    z, tau = torch.randn(1, 3, 16, 16), torch.tensor(300.0, dtype=torch.float64)
    output = backbone.denoise(z, tau)
    moved = []
    for step in SCD(**SHORT).run(real_problem(backbone)):
        assert torch.equal(backbone.denoise(z, tau), output)
        moved.append(step.x0)
    assert not torch.equal(moved[1], moved[2])  # although the network learns


def test_it_learns_the_measurement(backbone):
    """With a step size that matters, the adapted estimates miss less of the measurement."""

    def missed(**changes):
        given = real_problem(backbone)
        solver = SCD(**SHORT | dict(returns="official", tv=0.0, gamma=0.1) | changes)
        return (given.operator(last(solver.run(given))) - given.m).square().mean()

    assert missed(inner=10) < 0.7 * missed(inner=0)


def test_the_updated_layers_are_those_of_the_blocks_by_class(backbone):
    names = _layers(backbone.network)
    assert "down_blocks.0.resnets.0.conv1" in names and "mid_block.resnets.0.conv2" in names
    assert not {"conv_in", "conv_out", "time_embedding.linear_1"} & set(names)
    renamed = torch.nn.Sequential(copy.deepcopy(backbone.network))
    assert _layers(renamed) == [f"0.{name}" for name in names]
    flat = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3), torch.nn.ReLU(), torch.nn.Linear(2, 2))
    assert _layers(flat) == ["0", "2"]
    with pytest.raises(UserError, match="choose another solver"):
        _layers(torch.nn.ReLU())


def test_images_of_a_batch_do_not_depend_on_one_another():
    solver, given = toy(CASES[0])
    factor = torch.tensor([1.0, -2.0, 0.3]).double().reshape(3, 1, 1, 1)
    given = replace(given, m=factor * given.m)
    for returns in ("clean", "official"):
        for inner in (2, 0):
            kind = replace(solver, returns=returns, inner=inner, lr=1e-2)
            together = last(kind.run(replace(given, noise=Seeds(1, 2, 3))))
            for i in range(3):
                alone = last(kind.run(replace(one_of(given, i), noise=Seeds(i + 1))))
                assert error(together[i : i + 1], alone) < 1e-10


@pytest.mark.parametrize("prior", [PUBLISHED, VE_PRIOR, FLOW_PRIOR])
def test_every_family_of_priors_gives_consistent_images(prior):
    given = smooth_problem(AveragePool(SIZE), prior, Seeds(1, 2), 2)
    x = last(SCD(inner=0, gamma=1e4).run(given))
    assert x.isfinite().all() and error(given.operator(x), given.m) < 1e-3
    network = ToyNetwork(CASES[0])
    time = (lambda tau: 1000 * tau) if prior is FLOW_PRIOR else (lambda tau: tau)
    eps = denoiser(lambda z, tau: network(z, time(tau)), prior)
    given = replace(given, denoise=eps, network=network, noise=Seeds(1, 2))
    assert last(SCD(**SHORT).run(given)).isfinite().all()


# The truth table's row of DDS; 20,000 particles, as there.
COUNT = 20_000


@pytest.mark.parametrize(
    "std, seen, mean, variances", [(0.0, 1.2, 0.914, 0.338), (0.3, 1.2, 0.913, 0.346)]
)
def test_the_gaussian_truth_table(std, seen, mean, variances):
    x = last(SCD(inner=0, gamma=5.0, eta=0.85).run(plane_problem(COUNT, Seeds0(), std))).flatten(1)
    both = math.sqrt(2)  # the table's numbers are estimates of as many particles
    error_of_mean = both * math.sqrt(variances / COUNT)
    assert x[:, 0].mean() == pytest.approx(seen, abs=1e-3)
    assert x[:, 1].mean() == pytest.approx(mean, abs=3 * error_of_mean)
    error_of_variance = both * variances * math.sqrt(2 / COUNT)
    assert x[:, 1].var() == pytest.approx(variances, abs=3 * error_of_variance)


class Seeds0:
    """One generator for all particles."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, like):
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)


def test_half_and_single_precision_and_inference_mode(backbone_folder):
    from irbridge.backbones.pixel import load_backbone

    for dtype in ("float32", "bfloat16"):
        backbone = load_backbone(str(backbone_folder), dtype, lazy=True)
        weights = state(backbone.network)
        with torch.inference_mode():
            x = last(SCD(**SHORT).run(real_problem(backbone, 2)))
        assert x.dtype == torch.float32 and x.isfinite().all()
        assert same(backbone.network, weights)


def test_memory_does_not_grow_with_the_steps():
    solver, given = toy(CASES[0])
    states = []
    for step in replace(solver, returns="clean").run(given):
        states.append(weakref.ref(step.x0))
        del step
    assert sum(at() is not None for at in states) <= 1


def test_refusals_before_any_work(monkeypatch, backbone):
    assert solver_class("scd") is SCD
    run = SCD(**SHORT).run(real_problem(backbone))
    next(run)
    with pytest.raises(UserError, match="already"):
        next(SCD(**SHORT).run(real_problem(backbone)))
    run.close()
    with pytest.raises(UserError, match="no gradients"):
        last(SCD(**SHORT).run(replace(real_problem(backbone), denoise=lambda z, tau: z)))
    with pytest.raises(UserError, match="network"):
        next(SCD(**SHORT).run(replace(real_problem(backbone), network=None)))
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "peft":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    operator = AveragePool(SIZE)
    with pytest.raises(UserError, match="needs peft.*inner=0"):
        SCD().check(operator, 0.1)
    SCD(inner=0).check(operator, 0.1)
    for wrong in (dict(rank=0), dict(gamma=0.0), dict(inner=-1), dict(cg=0), dict(eta=1.5)):
        with pytest.raises(UserError, match="solver."):
            SCD(**wrong)


def test_an_operator_without_gradients_is_refused(monkeypatch):
    monkeypatch.setattr("irbridge.solvers.base.SOLVERS", ("deqir", "scd"))

    class Opaque(Dense):
        differentiable = False

    operator: Operator = Opaque((1, 1, 2), [[1.0, 0.0]])
    with pytest.raises(UserError, match="is differentiable"):
        SCD().check(operator, 0.0)
