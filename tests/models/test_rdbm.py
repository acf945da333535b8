"""RDBM against the numbers of its released code, and every head, noise and constant of it."""

import math

import pytest
import torch
from golden import assert_close, load
from losses import given
from test_bridge_network import batch, model_of

from irbridge.adapters.trunk import bridge_network
from irbridge.bridges import RDBM
from irbridge.gaussian.marginal import draw
from irbridge.models.bridge_network import BridgeNetwork

TABLE = load("rdbm")
GLOBAL, RESIDUAL = RDBM(lam=1e-4, pi="one"), RDBM(lam=1e-4)
# of its inputs: (1, 1, 2, 2), in three channels of which each is the same
X0, MU, EPS = (
    torch.tensor(values, dtype=torch.float64).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    for values in ([-0.8, -0.3, 0.1, 0.6], [-0.5, -0.3, 0.45, 0.9], [0.7, -1.2, 0.3, 0.05])
)


def index_of(time):
    """Their index of the time that a network is told, 1000 t / T."""
    return float(time[0]) / 10 - 1


def x0_head(inputs, time):
    shift = 0.05 * math.sin(index_of(time) / 10)
    return 0.6 * inputs[:, :3] + 0.3 * inputs[:, 3:] + shift


def eps_head(inputs, time):
    return 0.8 * inputs[:, :3] - 0.5 * inputs[:, 3:] + 0.1 * math.cos(index_of(time) / 10)


def of_one_channel(image):
    assert torch.equal(image[:, 0], image[:, 1]) and torch.equal(image[:, 0], image[:, 2])
    return image[:, 0]


def test_theta_and_sigma():
    for index, share in TABLE["Theta"].items():
        a, b, c = GLOBAL.marginal(int(index) + 1)
        assert_close([a, b, c], [share, 1 - share, TABLE["Sigma"][index]])


@pytest.mark.parametrize("bridge, key", [(GLOBAL, ""), (RESIDUAL, "_modulated_paper")])
def test_states(bridge, key):
    for index, values in TABLE[f"q_sample{key}"].items():
        noise = EPS * bridge.scale(X0, MU)
        state = draw(bridge.marginal(int(index) + 1), X0, MU, noise)
        assert_close(of_one_channel(state), values)


@pytest.mark.parametrize("steps", [3, 10])
def test_times(steps):
    wanted = [index + 1 for index in TABLE[f"times_{steps}"]]
    assert wanted[-1] == 0
    model = model_of(GLOBAL, x0_head, target="x0", sampler={"nfe": steps})
    assert [state.t for state in model.trajectory(MU, seeds=[0])] == wanted[:-1]


@pytest.mark.parametrize(
    "bridge, target, answer, key",
    [
        (GLOBAL, "x0", x0_head, "loss_head_t50"),
        (RESIDUAL, "x0", x0_head, "loss_head_t50_modulated"),
        (RESIDUAL, "product", eps_head, "loss_paper_t50_product"),
    ],
)
def test_losses_at_index_50(bridge, target, answer, key):
    model = model_of(bridge, answer, target=target)
    least = bridge.T / 1000
    uniform = torch.tensor([(51 - least) / (model.first - least)], dtype=torch.float64)
    (loss,) = model.loss(*given(X0, MU, EPS, uniform)).values()
    assert index_of(model.network.asked[0][1]) == pytest.approx(50, abs=1e-4)
    assert_close(loss, [TABLE[key]["value"]])


@pytest.mark.parametrize("steps", [3, 10])
def test_sampling_with_the_x0_head(steps):
    model = model_of(GLOBAL, x0_head, target="x0", sampler={"nfe": steps})
    states = list(model.trajectory(MU, seeds=[0]))
    found = [of_one_channel(state.x).flatten().tolist() for state in states]
    found.append(of_one_channel(states[-1].x0).flatten().tolist())
    assert_close(found, TABLE[f"x0_head_sampling_{steps}"]["states_-1_1"], 1e-5)


@pytest.mark.parametrize("steps", [3, 10])
def test_sampling_with_the_noise_head(steps):
    """Its first step leaves y, which is why no call is made for it here."""
    model = model_of(GLOBAL, eps_head, sampler={"nfe": steps})
    states = list(model.trajectory(MU, seeds=[0]))
    found = [MU[:, 0].flatten().tolist()]
    found += [of_one_channel(state.x).flatten().tolist() for state in states]
    found.append(of_one_channel(states[-1].x0).flatten().tolist())
    assert_close(found, TABLE[f"eps_head_sampling_{steps}"]["states_-1_1"], 1e-5)


@pytest.mark.parametrize("pi", ["one", "residual", "zero"])
@pytest.mark.parametrize("lam", [1e-4, 10 / 255])
def test_with_x0_known_no_noise_ever_enters(pi, lam):
    """So that with the x0 head lambda acts in training alone."""
    model = model_of(RDBM(lam=lam, pi=pi), X0, target="x0", sampler={"nfe": 10})
    states = list(model.trajectory(MU, seeds=[0]))
    found = [of_one_channel(state.x).flatten().tolist() for state in states[1:]]
    found.append(of_one_channel(states[-1].x0).flatten().tolist())
    assert_close(found, TABLE["oracle_10"]["states"], 1e-5)


def test_what_is_not_a_number_in_their_code_is_one_here():
    """The noise implied at T is 0 / 0, computed there and unused by the x0 head."""
    assert TABLE["trap_T"]["pred_noise_at_T"] == ["nan"] * 4
    model = model_of(GLOBAL, x0_head, target="x0", sampler={"nfe": 3})
    states = list(model.trajectory(MU, seeds=[0]))
    assert states[0].t == 100 and all(state.x0.isfinite().all() for state in states)


@pytest.mark.parametrize("trunk", ["unet", "nafnet", "lucid"])
@pytest.mark.parametrize("lam", [1e-4, 10 / 255])
@pytest.mark.parametrize("pi", ["one", "residual"])
@pytest.mark.parametrize("target", ["product", "x0", "residual"])
def test_every_head_noise_and_lambda_trains_and_samples(target, pi, lam, trunk):
    torch.manual_seed(0)
    sizes = {"channels": [8, 8], "width": 8, "encoder": [1], "middle": 1, "decoder": [1]}
    network = bridge_network(trunk=trunk, **sizes)
    model = BridgeNetwork(RDBM(lam=lam, pi=pi), network, target=target, loss="l1")
    clean, y, noise = (batch(3, 8, 8, seed=k, dtype=torch.float32) for k in range(3))
    uniform = torch.tensor([0.1, 0.5, 0.9])
    optimizer, losses = torch.optim.Adam(network.parameters(), 3e-3), []
    for _ in range(12):
        (loss,) = model.loss(*given(clean, y, noise, uniform)).values()
        losses.append(float(loss.mean()))
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    assert min(losses[6:]) < losses[0]
    with torch.no_grad():
        restored = model.restore(y, seeds=[0, 1, 2])
    assert restored.isfinite().all() and restored.abs().max() <= 1
    assert model.calls() == 9 + (target != "product")


def test_without_noise_intact_pixels_stay_and_nothing_is_drawn():
    """With pi = 0 and with the paper's noise the state of a pixel that is intact is that pixel."""
    for bridge in (RDBM(), RDBM(pi="zero")):
        state = draw(bridge.marginal(40), X0, MU, EPS * bridge.scale(X0, MU))
        assert torch.equal(state[..., 0, 1], X0[..., 0, 1])
    state = draw(GLOBAL.marginal(40), X0, MU, EPS * GLOBAL.scale(X0, MU))
    assert not torch.equal(state[..., 0, 1], X0[..., 0, 1])
