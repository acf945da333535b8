"""DDRM and PiGDM beside programs of their own: dense matrices, by coordinates, in NumPy."""

import numpy as np
import pytest
import torch
from solvers.toys import AveragePool, Dense, Mask, denoiser, error, problem

from irbridge.solvers.base import strided
from irbridge.solvers.ddrm import DDRM
from irbridge.solvers.pigdm import PiGDM

ALPHA_BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
SIZE, BAR = (3, 4, 4), 1e-11


def level(index):
    """(alpha, sigma) of an index; -1 is the clean end."""
    bar = 1.0 if index < 0 else ALPHA_BAR[index]
    return np.sqrt(bar), np.sqrt(1 - bar)


def network(z, time):
    """Mixes neighbours, so that its Jacobian is not diagonal."""
    return torch.tanh(0.3 * z + 0.1 * z.roll(1, -1)) * time / 1000


def eps(z, index):
    shifted = np.roll(z.reshape(SIZE), 1, -1).reshape(-1)
    return np.tanh(0.3 * z + 0.1 * shifted) * index / 1000


def estimate(z, index):
    alpha, sigma = level(index)
    return (z - sigma * eps(z, index)) / alpha


def jacobian(index, z):
    """Of the estimate, in closed form."""
    alpha, sigma = level(index)
    shift = np.roll(np.eye(z.size).reshape(-1, *SIZE), 1, -1).reshape(z.size, -1).T
    slope = 1 - np.tanh(0.3 * z + 0.1 * (shift @ z)) ** 2
    inner = slope[:, None] * (0.3 * np.eye(z.size) + 0.1 * shift) * index / 1000
    return (np.eye(z.size) - sigma * inner) / alpha


def operators():
    rng = np.random.default_rng(5)
    kept = rng.random(SIZE[1:]) > 0.4
    return {
        "dense": Dense(SIZE, rng.standard_normal((20, 48)) / 7),
        "average": AveragePool(SIZE),
        "mask": Mask(SIZE, kept),
    }


OPERATORS = operators()


def matrix(operator):
    images = torch.eye(48, dtype=torch.float64).reshape(48, *SIZE)
    return operator(images).reshape(48, -1).numpy().T


class Noted:
    """Seeded noise that is noted."""

    def __init__(self):
        self.rng, self.drawn = np.random.default_rng(1), []

    def __call__(self, like):
        self.drawn.append(self.rng.standard_normal(48))
        return torch.from_numpy(self.drawn[-1]).reshape(1, *SIZE)


def measurement(operator, std):
    rng = np.random.default_rng(2)
    clean = matrix(operator) @ rng.uniform(-0.8, 0.8, 48)
    flat = clean + std * rng.standard_normal(len(clean))
    shape = operator(torch.zeros(1, *SIZE, dtype=torch.float64)).shape
    return flat, torch.from_numpy(flat).reshape(shape)


def compare(solver, name, std, theirs):
    operator = OPERATORS[name]
    flat, m = measurement(operator, std)
    noise = Noted()
    steps = [*solver.run(problem(operator, m, noise, denoiser(network), std=std))]
    states, result = theirs(matrix(operator), flat, std, iter(noise.drawn))
    for step, state in zip(steps, states, strict=True):
        assert error(step.z, torch.from_numpy(state).reshape(1, *SIZE)) < BAR
    return steps[-1].x0, torch.from_numpy(result).reshape(1, *SIZE)


def ddrm(eta, measured, steps):
    """DDRM's rules for each singular direction in turn (zero, noisier, cleaner)."""

    def run(a, y, std, noises):
        u, s, v = np.linalg.svd(a)
        full = np.zeros(48)
        full[: len(s)] = np.where(s > 1e-10, s, 0)
        known = np.zeros(48)
        seen = full > 0
        known[: len(s)][s > 1e-10] = (u.T @ y)[: len(s)][s > 1e-10] / s[s > 1e-10]
        indices = [*strided(1000, steps), -1]
        alpha, sigma = level(indices[0])
        start, noise = np.zeros(48), v @ next(noises)
        for k in range(48):
            if full[k] * sigma / alpha > std:
                start[k] = (
                    known[k] + np.sqrt((sigma / alpha) ** 2 - (std / full[k]) ** 2) * noise[k]
                )
            else:
                start[k] = sigma / alpha * noise[k]
        z, states = alpha * (v.T @ start), []
        for at, to in zip(indices, indices[1:], strict=False):
            states.append(z)
            x0, e, noise = v @ estimate(z, at), v @ eps(z, at), v @ next(noises)
            after = level(to)[1] / level(to)[0]
            new, keep = np.zeros(48), np.sqrt(1 - eta**2)
            for k in range(48):
                if not seen[k] or full[k] * after == std:
                    new[k] = x0[k] + keep * after * e[k] + eta * after * noise[k]
                elif full[k] * after < std:
                    pull = keep * after * full[k] * (known[k] - x0[k]) / std
                    new[k] = x0[k] + pull + eta * after * noise[k]
                else:
                    spread = np.sqrt(after**2 - (measured * std / full[k]) ** 2)
                    new[k] = measured * known[k] + (1 - measured) * x0[k] + spread * noise[k]
            z = level(to)[0] * (v.T @ new)
        return states, z

    return run


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("std", [0.0, 0.02, 0.3])
def test_ddrm(name, std):
    for eta, measured, steps in ((0.85, 1.0, 20), (0.5, 0.7, 5)):
        solver = DDRM(steps=steps, eta=eta, eta_measured=measured, returns="official")
        ours, theirs = compare(solver, name, std, ddrm(eta, measured, steps))
        assert error(ours, theirs) < BAR


def pigdm(eta, replace, steps):
    def run(a, y, std, noises):
        inverse = np.linalg.pinv(a, rcond=1e-10)
        indices = [*strided(1000, steps), -1]
        alpha, sigma = level(indices[0])
        z, states = alpha * (inverse @ y) + sigma * next(noises), []
        for at, to in zip(indices, indices[1:], strict=False):
            states.append(z)
            (alpha, sigma), (after, rest) = level(at), level(to)
            x0, e = estimate(z, at), eps(z, at)
            if std:
                gram = a @ a.T + std**2 / sigma**2 * np.eye(len(a))  # r^2 = sigma^2 here
                q = a.T @ np.linalg.solve(gram, y - a @ x0)
            else:
                q = inverse @ (y - a @ x0)
            guide = jacobian(at, z).T @ q
            if replace and not std:
                x0 = x0 - inverse @ (a @ x0 - y)
                guide = guide - inverse @ (a @ guide)
            bar, next_bar = alpha**2, after**2
            new = eta * np.sqrt((1 - bar / next_bar) * (1 - next_bar) / (1 - bar))
            kept = np.sqrt(rest**2 - new**2)
            share = alpha * (1 if std else after)
            z = after * x0 + new * next(noises) + kept * e + share * guide
        return states, z

    return run


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("std", [0.0, 0.3])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("replace", [False, True])
def test_pigdm(name, std, eta, replace):
    solver = PiGDM(steps=5, eta=eta, replace=replace)
    ours, theirs = compare(solver, name, std, pigdm(eta, replace, 5))
    assert error(ours, theirs) < BAR
