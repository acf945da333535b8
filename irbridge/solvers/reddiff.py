"""RED-diff: restoration as an optimisation, with the denoiser as the regulariser."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from irbridge.ranges import NOT_NEGATIVE, POSITIVE, one_of, option
from irbridge.solvers.base import Level, Problem, Solver, Step, predicted_noise

# of the regulariser, as a function of sigma / alpha
WEIGHTS = {
    "linear": lambda u: u,
    "sqrt": lambda u: u**0.5,
    "square": lambda u: u**2,
    "log": lambda u: torch.log1p(torch.tensor(u, dtype=torch.float64)).item(),
    "trunc_linear": lambda u: min(u, 1.0),
    "power2over3": lambda u: u ** (2 / 3),
    "const": lambda u: 1.0,
}


@dataclass
class REDdiff(Solver):
    """RED-diff (Mardani et al., ICLR 2024): one Adam over the image, one level a step, downwards.

    The gradient is ``(w / N) (eps_hat - n) + (v / M) A^T (A mu - m)``, N and M the numbers of the
    image's and of the measurement's elements; w = lam f(sigma / alpha). With the linear f it knows
    no schedule: ``(lam / N) (mu - x0) + (v / M) A^T (A mu - m)``. The noise of the measurement is
    not used: lam and v are set by hand. It gives one image, neither the most probable one nor a
    sample of the posterior; levels must fall, and are never shuffled.

    Every image of a batch has means of its own, so that none depends on the others; in the authors'
    program the means go over the batch, against Adam's fixed epsilon. There too the measurement
    itself changes where A^+ returns its argument; here the start is always a copy.

    Args:
        lr: of Adam, betas (0.9, 0.99).
        lam: the weight of the regulariser.
        v: the weight of the measurement.
        spread: std of noise on the image before each step, the authors' sigma_x0.
        weight: f above.
    """

    name: ClassVar[str] = "reddiff"
    needs: ClassVar[tuple[str, ...]] = ("differentiable",)
    published: ClassVar[dict] = {
        "": {"lr": 0.5, "spread": 0.0},
        "sr": {"lr": 0.1},
        "inpaint": {"lr": 0.25, "spread": 1e-4},
    }

    lr: float | None = option(None, POSITIVE)
    lam: float = option(0.25, NOT_NEGATIVE)
    v: float = option(1.0, NOT_NEGATIVE)
    spread: float | None = option(None, NOT_NEGATIVE)
    weight: str = option("linear", one_of(*WEIGHTS))

    @override
    def loop(self, problem: Problem) -> Iterator[Step]:
        mu = problem.start()
        adam = torch.optim.Adam([mu], lr=self.lr, betas=(0.9, 0.99))
        for at in self.levels(problem.prior):
            image = mu + self.spread * problem.noise(mu)
            noise = problem.noise(mu)
            z = at.alpha * image + at.sigma * noise
            eps = predicted_noise(z, problem.denoise(z, at.tau), at)
            mu.grad = self.gradient(problem, image, eps - noise, at)
            adam.step()
            yield Step(at.tau, z, image if self.returns == "official" else mu.clone())

    def gradient(self, problem: Problem, image: Tensor, error: Tensor, at: Level) -> Tensor:
        """Of the whole loss at an image; ``error`` is that of the predicted noise."""
        with torch.enable_grad():
            image = image.detach().requires_grad_()
            misfit = (problem.m - problem.operator(image)).flatten(1)
            (data,) = torch.autograd.grad((misfit**2).mean(1).sum() / 2, image)
        weight = self.lam * WEIGHTS[self.weight](at.sigma / at.alpha)
        return weight / image[0].numel() * error + self.v * data
