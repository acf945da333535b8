"""A frozen backbone as a denoiser of deepinv's, so that deepinv's own algorithms run on it."""

from functools import cache

import torch
from torch import Tensor

from irbridge.backbones.base import Backbone
from irbridge.errors import UserError
from irbridge.images.arrays import pad
from irbridge.operators.physics import deepinv


def deepinv_denoiser(backbone: Backbone):
    """A backbone as a ``deepinv.models.Denoiser``.

    Its ``forward(x, sigma)`` takes images (B, 3, H, W) that are in [0, 1] but for Gaussian noise of
    the std ``sigma`` in the same units: a number, or one for each image. In the units of the
    backbone that is ``2 x - 1`` with noise ``2 sigma``. The network is asked at the timestep of
    equal noise / clean, so that its state is ``z = alpha (2 x - 1)``. What is beyond the range of
    its prior is asked at its end, and at ``sigma = 0`` the result is x. Sides that the network
    cannot take are padded by reflection. Gradients pass.

    Args:
        backbone: frozen; of pixels.

    Raises:
        UserError: the backbone is of latents, or deepinv is not installed.
    """
    if backbone.vae is not None or backbone.channels != 3:
        raise UserError(
            "deepinv's algorithms denoise pixels, and this backbone is of latents; choose a"
            " backbone of pixels, such as backbone=embedded."
        )
    return _kind()(backbone)


@cache
def _kind() -> type:
    """The class, made where it is first needed: its base is deepinv's."""
    base = deepinv("deepinv_denoiser", "models").Denoiser

    class BackboneDenoiser(base):
        """See :func:`deepinv_denoiser`."""

        def __init__(self, backbone: Backbone):
            super().__init__(device=next(backbone.parameters(), torch.empty(0)).device)
            self.backbone = backbone

        def forward(self, x: Tensor, sigma: float | Tensor, **kwargs) -> Tensor:
            """The clean estimate of x, see :func:`deepinv_denoiser`."""
            std = torch.as_tensor(sigma, dtype=torch.float64).detach().cpu().flatten()
            std = std.expand(len(x))
            prior = self.backbone.prior
            tau = prior.timestep(2 * std.numpy())
            alpha = prior.marginal(tau).clean.view(-1, 1, 1, 1).to(x)
            z = pad(alpha * (2 * x - 1), self.backbone.stride)
            x0 = self.backbone.denoise(z, tau)[..., : x.shape[-2], : x.shape[-1]]
            noisy = (std > 0).view(-1, 1, 1, 1).to(x.device)
            return torch.where(noisy, (x0 / 2 + 0.5).to(x.dtype), x)

    return BackboneDenoiser
