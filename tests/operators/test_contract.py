"""What every operator keeps: adjoint, pseudo-inverse, singular values, proximal step, batches."""

import pytest
import torch
from cases import SIZES, every, holes, linear, seeded, spectral, uneven

from irbridge.operators.catalog import operator

pytest.importorskip("deepinv", reason="deepinv, of the extra inverse, is missing")


@pytest.mark.parametrize("size", [*SIZES.values(), (3, 21, 27)])
def test_the_adjoint_is_exact(size):
    for name, A in linear(size).items():
        x = seeded(2, *size)
        y = seeded(*A(x).shape, seed=1)
        one, other = (A(x) * y).sum(), (x * A.adjoint(y)).sum()
        assert abs(one - other) < 1e-11 * A(x).norm() * y.norm(), name


@pytest.mark.parametrize("size", SIZES.values())
def test_the_inverse_is_a_pseudo_inverse(size):
    for name, A in linear(size).items():
        m = A(seeded(2, *size))
        error = (A(A.inverse(m)) - m).abs().max()
        # conjugate gradients end early, and cut singular values are left out on purpose
        bar = 1e-10 if A.spectral and name != "blur cut" else 0.05
        assert error < bar, (name, float(error))


@pytest.mark.parametrize("size", SIZES.values())
def test_filter_knows_the_singular_values(size):
    x = seeded(2, *size)
    for name, A in spectral(size).items():
        assert torch.allclose(A.filter(x, torch.ones_like), x, atol=1e-12), name
        assert torch.allclose(A.filter(x, lambda s: 0 * s), 0 * x), name
        seen = A.filter(x, lambda s: (s > 0).double())
        # A^+ A is the projection on what is seen, and lost directions have the value 0 exactly
        known = A.inverse(A(x))
        assert torch.allclose(known, seen, atol=1e-9), name
        assert torch.allclose(A.filter(seen, lambda s: (s > 0).double()), seen, atol=1e-12), name
        squares = A.filter(x, lambda s: s**2)
        bar = 1e-12 if name != "blur cut" else 1e-3  # A itself is the true blur
        assert torch.allclose(squares, A.adjoint(A(x)), atol=bar), name


def test_filter_gives_float64_singular_values_that_are_large_enough_to_tell():
    for name, A in spectral((3, 16, 24)).items():
        asked = []
        A.filter(seeded(1, 3, 16, 24, dtype=torch.float32), lambda s: asked.append(s) or s)
        for s in asked:
            assert s.dtype == torch.float64 and (s >= 0).all(), name


@pytest.mark.parametrize("size", [(3, 8, 12), (1, 9, 7)])
@pytest.mark.parametrize("rho", [1e-2, 3.0])
def test_the_proximal_step_is_the_dense_solution(size, rho):
    cases = {
        "inpaint": operator("inpaint", size, holes=holes(size)),
        "blur": operator("blur", size, kernel=uneven(3, 4)),
        "reflect": operator("blur", size, kernel=uneven(3, 4), padding="reflect"),
        "colour": operator("colour", size),
        "cs": operator("cs", size, rate=0.3),
        "ct": operator("ct", size, angles=5),
    }
    if size[0] == 3:
        cases["average"] = operator("sr", size, factor=4, kernel="average")
        cases["bicubic"] = operator("sr", size, factor=2)
    numbers = size[0] * size[1] * size[2]
    basis = torch.eye(numbers, dtype=torch.float64).view(numbers, *size)
    x = seeded(2, *size)
    for name, A in cases.items():
        dense = A(basis).flatten(1).T
        m = A(x) + 0.1 * seeded(*A(x).shape, seed=3)
        right = m.flatten(1) @ dense + rho * x.flatten(1)
        exact = torch.linalg.solve(dense.T @ dense + rho * torch.eye(numbers).double(), right.T).T
        error = (A.prox(x, m, rho).flatten(1) - exact).abs().max()
        assert error < (1e-10 if A.spectral else 1e-4), (name, float(error))
        # and the singular values are those of the dense matrix
        if name in ("blur", "bicubic"):
            largest = []
            A.filter(x, lambda s: largest.append(s.max()) or s)
            assert abs(max(largest) - torch.linalg.matrix_norm(dense, 2)) < 1e-10, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_they_follow_the_dtype_and_keep_images_of_a_batch_apart(dtype):
    size = (3, 17, 22)
    for name, A in every(size).items():
        x = seeded(3, *size, dtype=dtype)
        m = A(x)
        results = {"A": (A, x), "inverse": (A.inverse, m), "view": (A.view, m)}
        if A.linear:
            results["adjoint"] = A.adjoint, m
            results["prox"] = lambda m: A.prox(x[: len(m)] * 0.5, m, 0.1), m
        for part, (function, given) in results.items():
            whole = function(given)
            assert whole.dtype == dtype and whole.isfinite().all(), (name, part)
            assert part == "A" or whole.shape == x.shape, (name, part)
            alone = function(given[:1])
            bar = 1e-5 if dtype == torch.float32 else 1e-12
            assert torch.allclose(whole[:1], alone, atol=bar), (name, part)


def test_no_result_shares_memory_with_what_was_given():
    size = (3, 16, 24)
    for name, A in every(size).items():
        x = seeded(1, *size)
        m = A(x)
        given, kept = x.clone(), m.clone()
        A.inverse(m).fill_(7)
        m_again = A(x)
        m_again.fill_(7)
        if A.linear:
            A.adjoint(m).fill_(7)
            A.prox(x, m, 0.5).fill_(7)
        assert torch.equal(m, kept) and torch.equal(x, given), name


def test_gradients_pass_through_what_says_so():
    size = (3, 16, 24)
    for name, A in every(size).items():
        assert A.differentiable, name
        x = seeded(1, *size).requires_grad_()
        m = A(x)
        (gradient,) = torch.autograd.grad((m**2).sum() / 2, x)
        if A.linear:
            assert torch.allclose(gradient, A.adjoint(m.detach()), atol=1e-12), name
            y = seeded(*m.shape, seed=4).requires_grad_()
            (gradient,) = torch.autograd.grad((A.adjoint(y) * x.detach()).sum(), y)
            assert torch.allclose(gradient, m.detach(), atol=1e-12), name


def test_they_run_in_inference_mode_and_serve_gradients_afterwards():
    size = (3, 16, 24)
    with torch.inference_mode():
        made = every(size)
        for A in made.values():
            m = A(seeded(1, *size, dtype=torch.float32))
            A.inverse(m)
            if A.linear:
                A.prox(A.adjoint(m), m, 0.5)
    for name, A in made.items():
        x = seeded(1, *size, dtype=torch.float32).requires_grad_()
        (gradient,) = torch.autograd.grad(A(x).square().sum(), x)
        assert gradient.isfinite().all(), name


def test_they_work_on_the_device_of_what_they_are_given():
    """On tensors without values, of which torch knows device and dtype alone."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    size = (3, 16, 24)
    made = every(size)
    del made["ct"]  # whose adjoint asks for a driver
    with FakeTensorMode(allow_non_fake_inputs=True):
        for name, A in made.items():
            for dtype in (torch.float32, torch.float64):
                x = torch.empty(2, *size, device="cuda", dtype=dtype)
                m = A(x)
                found = [m, A.view(m)]
                if A.linear:
                    found.append(A.adjoint(m))
                if A.spectral:
                    found += [A.inverse(m), A.prox(x, m, 0.5), A.filter(x, lambda s: 2 * s)]
                for part in found:
                    assert (part.device.type, part.dtype) == ("cuda", dtype), name
