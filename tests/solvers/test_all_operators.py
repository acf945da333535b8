"""Every operator by DeqIR, SCD and likelihood-refined noise: it is served, or refused in a word."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import PUBLISHED, Seeds, ToyNetwork, denoiser, error, golden, last, smooth_problem

from irbridge.errors import UserError
from irbridge.solvers.base import solver

sys.path.insert(0, str(Path(__file__).parents[1] / "operators"))
from cases import every

OPERATORS = every((3, 15, 14))


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("method", ["deqir", "scd", "likelihood"])
def test_an_operator_is_served_or_refused(name, method):
    operator = OPERATORS[name]
    kind = solver(method, steps=5, **{"inner": 0} if method == "scd" else {})
    if lacks := [need for need in kind.needs if not getattr(operator, need)]:
        with pytest.raises(UserError, match=f"solver={method} needs"):
            kind.check(operator, 0.0)
        assert lacks
        return
    kind.check(operator, 0.0)
    x = last(kind.run(smooth_problem(operator, PUBLISHED, Seeds(1, 2), 2)))
    assert x.isfinite().all()
    if method != "scd" and operator.spectral and name != "blur cut":
        # elsewhere A^+ is iterated, or leaves out what A hardly passes
        m = smooth_problem(operator, PUBLISHED, None, 2).m
        assert error(operator(x), m) < 1e-8


@pytest.mark.parametrize("name", [n for n, a in OPERATORS.items() if a.linear and a.differentiable])
def test_scd_learns_through_every_operator_that_it_serves(name):
    network = ToyNetwork(golden("scd")["cases"][0])
    given = smooth_problem(OPERATORS[name], PUBLISHED, Seeds(1))
    given = replace(given, denoise=denoiser(network), network=network)
    kind = solver("scd", steps=2, inner=1, rank=2, lr=1e-2, skip=1, cg=2)
    assert torch.isfinite(last(kind.run(given))).all()
