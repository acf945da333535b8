"""What the tests of zero-shot solvers share: toy operators, a toy network and golden arrays.

The toy of the golden files is a network ``eps(x, t) = tanh(0.3 x) t / 1000`` on the linear betas of
DDPM, and images of 3 x 8 x 8. Gaussians have an exact denoiser for every prior.
"""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import torch

from irbridge.gaussian.marginal import broadcast
from irbridge.operators.base import Operator
from irbridge.priors import VE, Flow
from irbridge.solvers.base import PUBLISHED, Problem

GOLDEN = Path(__file__).parent / "golden"
SIZE = (3, 8, 8)


class Identity(Operator):
    """A(x) = x."""

    name = "identity"
    spectral = True

    def __call__(self, x):
        return x.clone()

    inverse = adjoint = __call__

    def filter(self, x, f):
        return x * f(torch.ones((), dtype=torch.float64)).to(x.dtype)


class Mask(Identity):
    """The kept pixels, zero elsewhere; kept (H, W) or (C, H, W) of zeros and ones."""

    name = "mask"

    def __init__(self, size, kept):
        super().__init__(size)
        self.kept = torch.as_tensor(kept, dtype=torch.float64)

    def __call__(self, x):
        return x * self.kept.to(x.dtype)

    inverse = adjoint = __call__

    def filter(self, x, f):
        return x * f(self.kept).to(x.dtype)


class AveragePool(Operator):
    """Means of blocks of ``factor`` x ``factor`` pixels."""

    name = "average"
    spectral = True

    def __init__(self, size, factor=2):
        super().__init__(size)
        self.factor = factor

    def __call__(self, x):
        return torch.nn.functional.avg_pool2d(x, self.factor)

    def inverse(self, m):
        return m.repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2)

    def adjoint(self, m):
        return self.inverse(m) / self.factor**2

    def filter(self, x, f):
        known, hidden = f(torch.tensor([1 / self.factor, 0.0], dtype=torch.float64)).tolist()
        seen = self.inverse(self(x))
        return known * seen + hidden * (x - seen)


class Dense(Operator):
    """Any matrix (M, C H W) on flattened images; measurements are (B, M)."""

    name = "dense"
    spectral = True

    def __init__(self, size, matrix):
        super().__init__(size)
        self.matrix = torch.as_tensor(matrix, dtype=torch.float64)
        _, s, rows = torch.linalg.svd(self.matrix, full_matrices=True)
        self.rows, self.values = rows, torch.zeros(len(rows), dtype=torch.float64)
        self.values[: len(s)] = torch.where(s > 1e-12 * s[0], s, 0)

    def __call__(self, x):
        return x.flatten(1) @ self.matrix.to(x.dtype).T

    def _image(self, flat):
        return flat.reshape(-1, *self.size)

    def inverse(self, m):
        return self._image(m @ torch.linalg.pinv(self.matrix).to(m.dtype).T)

    def adjoint(self, m):
        return self._image(m @ self.matrix.to(m.dtype))

    def filter(self, x, f):
        rows = self.rows.to(x.dtype)
        return self._image((x.flatten(1) @ rows.T * f(self.values).to(x.dtype)) @ rows)


def golden_mask():
    """The kept pixels of the golden files, (8, 8)."""
    i, j = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    return (3 * i + 5 * j + i * j) % 4 != 0


def golden_operator(word):
    """An operator of the golden files by their word."""
    if word == "mask":
        return Mask(SIZE, golden_mask())
    return {"avgpool2": AveragePool, "identity": Identity}[word](SIZE)


def golden_image():
    """The true image of the golden files, (1, 3, 8, 8)."""
    c, i, j = torch.meshgrid(*[torch.arange(n).double() for n in SIZE], indexing="ij")
    image = 0.8 * torch.sin(0.7 * (i + 1) + 1.3 * c) * torch.cos(0.5 * (j + 1) - 0.4 * c)
    return image[None]


def golden(name):
    """A golden file; see :func:`array`."""
    return json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))


def array(entry):
    """A golden array as a float64 tensor."""
    return torch.tensor(entry["data"], dtype=torch.float64).reshape(entry["shape"])


def error(ours, theirs):
    """The largest difference relative to the largest value."""
    theirs = array(theirs) if isinstance(theirs, dict) else theirs
    return float((ours.reshape(theirs.shape) - theirs).abs().max() / theirs.abs().max())


def toy_eps(z, time):
    """The toy network, a timestep of any prior from 0 to 1000, () or (B,)."""
    return torch.tanh(0.3 * z) * broadcast(torch.as_tensor(time).double() / 1000, z)


def denoiser(eps, prior=PUBLISHED):
    """``Problem.denoise`` of a network eps(z, tau)."""

    def denoise(z, tau):
        law = prior.marginal(tau)
        return (z - broadcast(law.noise, z) * eps(z, tau)) / broadcast(law.clean, z)

    return denoise


toy_denoise = denoiser(toy_eps)


def gaussian_denoiser(covariance, prior=PUBLISHED):
    """The exact denoiser of images of a law N(0, covariance), (N, N), for any prior."""
    values, basis = torch.linalg.eigh(torch.as_tensor(covariance, dtype=torch.float64))

    def denoise(z, tau):
        law = prior.marginal(tau)
        clean, noise = law.clean[..., None], law.noise[..., None]
        gain = (clean * values / (clean**2 * values + noise**2)).to(z.dtype)
        turn = basis.to(z.dtype)
        return ((z.flatten(1) @ turn * gain) @ turn.T).reshape(z.shape)

    return denoise


class Draws:
    """Noise fed from a list, in order; for images alike it may be of their shape or flat."""

    def __init__(self, draws):
        self.draws = [array(d) if isinstance(d, dict) else d for d in draws]

    def __call__(self, like):
        return self.draws.pop(0).reshape(like.shape).to(like.dtype)


class Seeds:
    """Noise of a generator for each image of a batch."""

    def __init__(self, *seeds):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, like):
        images = zip(like, self.generators, strict=True)
        draws = [torch.randn(x.shape, generator=g, dtype=torch.float64) for x, g in images]
        return torch.stack(draws).to(like.dtype)


def problem(operator, m, noise, denoise=toy_denoise, prior=PUBLISHED, std=0.0, network=None):
    """A :class:`Problem` of the toy, or of what is given."""
    return Problem(denoise, prior, operator, m, std, noise, network)


def last(steps):
    """The result of a run."""
    return [*steps][-1].x0


# The truth table: a Gaussian in the plane of which one coordinate is seen.
PLANE = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
SEEN = 1.2


def plane_problem(particles, noise, std=0.0, prior=PUBLISHED):
    """The truth table's problem for many particles; images are (1, 1, 2)."""
    operator = Dense((1, 1, 2), [[1.0, 0.0]])
    m = torch.full((particles, 1), SEEN, dtype=torch.float64)
    return problem(operator, m, noise, gaussian_denoiser(PLANE, prior), prior, std)


def whitened(particles, seed=0):
    """Draws (particles, 1, 1, 2) of mean 0 and covariance exactly I."""
    x = torch.randn(particles, 2, generator=torch.Generator().manual_seed(seed)).double()
    x = x - x.mean(0)
    root = torch.linalg.cholesky(x.T @ x / particles)
    return torch.linalg.solve_triangular(root, x.T, upper=False).T.reshape(particles, 1, 1, 2)


class ToyNetwork(torch.nn.Module):
    """The network of the golden file of SCD: one convolution before the toy's tanh."""

    def __init__(self, case):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1).double()
        self.conv.weight.data = array(case["base_conv_weight"])
        self.conv.bias.data = array(case["base_conv_bias"])
        self.requires_grad_(False)

    def forward(self, z, time):
        hidden = z + self.conv(z)
        return torch.tanh(0.3 * hidden) * broadcast(torch.as_tensor(time).double() / 1000, z)


# The schedules of the other families, with a toy network's exact denoiser.
VE_PRIOR = VE(sigma_data=None)
FLOW_PRIOR = Flow()


def smooth_covariance(size=SIZE):
    """Of images whose nearby values are alike, (N, N)."""
    c, h, w = size
    lines = [0.9 ** (torch.arange(n)[:, None] - torch.arange(n)).abs().double() for n in (c, h, w)]
    return 0.25 * torch.kron(lines[0], torch.kron(lines[1], lines[2]))


def smooth_problem(operator, prior, noise, images=1, std=0.0, dtype=torch.float64):
    """A problem of images of a Gaussian law under a prior."""
    generator = torch.Generator().manual_seed(7)
    root = torch.linalg.cholesky(smooth_covariance(operator.size))
    x = torch.randn(images, len(root), generator=generator, dtype=torch.float64) @ root.T
    m = operator(x.reshape(images, *operator.size))
    m = m + std * torch.randn(m.shape, generator=generator, dtype=torch.float64)
    denoise = gaussian_denoiser(smooth_covariance(operator.size), prior)
    return problem(operator, m.to(dtype), noise, denoise, prior, std)


def one_of(whole, index):
    """The problem of one image of a batch; its noise is to be replaced."""
    return replace(whole, m=whole.m[index : index + 1])
