"""The weight with which each backbone's config trains, against its network's own loss."""

import pytest
import torch

from irbridge.experiments.config import composed
from irbridge.gaussian.marginal import broadcast, draw
from irbridge.gaussian.transition import loss_weight
from irbridge.priors import prior_from_config

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
# by backbone: the scheduler's config as it is published, and what the network predicts
PUBLISHED = {
    "sd15": {"_class_name": "PNDMScheduler", **SD},
    "sd21": {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction", **SD},
    "sd3": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
}
ZERO_SNR = PUBLISHED["sd21"] | {"rescale_betas_zero_snr": True}


def losses(prior, options, share):
    """(loss with these options, the network's own squared error) of one batch."""
    tau = torch.tensor([prior.lowest + share * (prior.highest - prior.lowest)], dtype=torch.float64)
    x0, noise, slip = torch.randn(
        3, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    law = prior.marginal(tau)
    z = draw(law, x0, x0, noise)
    alpha, _, sigma = (broadcast(f, z) for f in law)
    truth = {
        "epsilon": noise,
        "v_prediction": alpha * noise - sigma * x0,
        "flow_prediction": noise - x0,
    }[prior.prediction_type]
    said = truth + 0.1 * slip
    weight = broadcast(loss_weight(law, options["weight"]), z)
    power = {"l1": 1, "l2": 2}[options["norm"]]
    ours = ((prior.clean(z, said, tau) - x0) * weight).abs() ** power
    return ours.mean(), ((said - truth).abs() ** power).mean()


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name, scheduler", [*PUBLISHED.items(), ("sd21", ZERO_SNR)])
def test_a_latent_backbone_trains_by_its_networks_own_loss(name, scheduler, share):
    options = composed("train", "name=t", f"backbone={name}")["loss"]
    assert options["states"] == "prior" and options["norm"] == "l2"
    ours, own = losses(prior_from_config(scheduler), options, share)
    assert float(ours) == pytest.approx(float(own), rel=1e-9)


@pytest.mark.parametrize("name", ["sd21", "sd3"])
def test_the_noise_loss_would_vanish_where_sampling_starts(name):
    options = composed("train", "name=t", f"backbone={name}", "loss=published")["loss"]
    assert options["weight"] == "eps"
    ours, own = losses(prior_from_config(PUBLISHED[name]), options, 0.9)
    assert ours < 0.05 * own


@pytest.mark.parametrize("words", [["recipe=published"], ["recipe=irbridge_y"]])
def test_published_on_pixels_is_the_noise_loss(words):
    """The embedded prior predicts noise."""
    assert composed("train", "name=t", *words)["loss"]["weight"] == "eps"
