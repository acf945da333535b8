"""ResShift, RDDM, DiffUIR and NADB against the tables of the official codes: coefficients, starts,
single steps. Their indices count from 0 for the first noisy state, so that t is the index + 1, but
for NADB."""

import numpy as np
import pytest
import torch
from golden import assert_close, inputs, load, tensor

from irbridge.bridges.nadb import NADB
from irbridge.bridges.shifting import RDDM, DiffUIR, ResShift
from irbridge.errors import UserError
from irbridge.experiments.instantiate import instantiate
from irbridge.experiments.run_folder import contradiction
from irbridge.gaussian.marginal import draw, marginal
from irbridge.gaussian.transition import step
from irbridge.models.bridge_network import readout
from irbridge.samplers import make

SHIFTED = (ResShift(), ResShift(T=4, min_noise=0.2), RDDM(), RDDM(sum_scale=1.0), DiffUIR())


def stepped(laws, table, x0=None):
    """(mean, std of the fresh noise) of a step from the table's x_t."""
    x, clean, y, _ = inputs(table)
    x0 = clean if x0 is None else x0
    mean = step(x, x0, y, *laws)
    return mean, step(x, x0, y, *laws, torch.ones_like(x)) - mean


def is_step(laws, table, mean, std, atol=1e-6):
    got, spread = stepped(laws, table)
    assert_close(got, mean, atol)
    assert_close(spread, np.full(4, std), atol)


@pytest.mark.parametrize(
    "name,bridge,count,atol",
    [
        ("resshift_15step", ResShift(), 15, 1e-7),
        ("resshift_4step", ResShift(T=4, min_noise=0.2), 4, 1e-12),
        ("rddm", RDDM(sum_scale=1.0), 13, 5e-8),
        ("diffuir", DiffUIR(), 13, 1.5e-6),
        ("nadb", NADB(), 13, 1e-9),
    ],
)
def test_coefficients(name, bridge, count, atol):
    rows, offset = load(name)["coefficients"], name != "nadb"
    assert len(rows) == count
    for row in rows:
        assert_close(bridge.marginal(row["t"] + offset), [row["a"], row["b"], row["c"]], atol, 0)
        if "c_sum_scale_0p01" in row:
            assert_close(RDDM().marginal(row["t"] + 1).noise, row["c_sum_scale_0p01"], atol)
        if "dbar" in row:  # DiffUIR's weights need not add up to 1
            _, b, _ = bridge.marginal(row["t"] + 1)
            assert_close(b, row["abar"] - row["dbar"], atol, 0)


def test_starts():
    """All start at the law of x_T with y for x0, but DiffUIR; no pinned end, but NADB's."""
    for name, bridge in (
        ("resshift_15step", ResShift()),
        ("rddm", RDDM(sum_scale=1.0)),
        ("diffuir", DiffUIR()),
    ):
        table = load(name)
        _, _, y, eps = inputs(table)
        start = table["rollout"].get("start")
        assert not bridge.pinned
        assert_close(draw(bridge.begin(), y, y, eps), start, 1e-7)
    assert_close(RDDM().begin(), [0, 1, 0.1], 1e-12, 0)
    assert_close(ResShift().begin(), [0, 1, 1.98], 1e-12, 0)
    assert NADB().pinned and NADB().begin() == marginal(0, 1, 0)


def test_diffuirs_start_is_not_where_its_training_ends():
    trained, published = DiffUIR(start="marginal").begin(), DiffUIR().begin()
    assert_close(published, [0, 0.0995, 0.1], 2e-6, 0)
    assert_close(trained, [0, 0.0995, 0.99998], 2e-6, 0)
    assert DiffUIR(start_noise=0.3).begin().noise == 0.3
    assert DiffUIR(start="y").begin() == marginal(0, 1, 0)


@pytest.mark.parametrize(
    "name,bridge",
    [("resshift_15step", ResShift()), ("resshift_4step", ResShift(T=4, min_noise=0.2))],
)
def test_resshift_posterior(name, bridge):
    table = load(name)
    for row in table["coefficients"]:
        now, then, keep = make("posterior").laws(bridge, row["t"] + 1, row["t"])
        ratio = keep / now.noise
        assert_close(ratio, row["post_coef_xt"], 1e-7)
        assert_close(then.clean - ratio * now.clean, row["post_coef_x0"], 1e-7)
        assert_close(then.degraded - ratio * now.degraded, 0, 1e-12)
        assert_close(then.noise**2 - keep**2, row["post_var"], 1e-7)
    for row in table.get("reverse_steps", []):
        is_step(
            make("posterior").laws(bridge, row["t"] + 1, row["t_next"] + 1),
            table,
            row["mean"],
            row["std"],
        )


def test_rddm_steps():
    """Its eta multiplies the variance, ours the std."""
    table = load("rddm")
    for row in table["reverse_steps"]:
        rule = "eta" if row["eta"] else "implicit"
        sampler = make(rule, eta=row["eta"] ** 0.5)
        laws = sampler.laws(RDDM(sum_scale=1.0), row["t"] + 1, row["t_next"] + 1)
        is_step(laws, table, row["mean"], row["std"])


def test_diffuir_steps():
    """The rule moves the mean by the clamped residual and neither adds noise nor takes any away."""
    table, bridge = load("diffuir"), DiffUIR()
    for row in table["reverse_steps"]:
        if row["t_next"] >= 0:
            laws = make("drift").laws(bridge, row["t"] + 1, row["t_next"] + 1)
            mean, fresh = stepped(laws, table)
            assert_close(mean, row["mean"], 1e-6)
            assert not fresh.any()
    row = table["clipping"]
    _, _, y, _ = inputs(table)
    x0 = y - (y - tensor(row["x0"])).clamp(-1, 1)
    laws = make("drift").laws(bridge, row["t"] + 1, row["t_next"] + 1)
    assert_close(stepped(laws, table, x0)[0], row["mean"], 1e-6)


def test_nadb_steps():
    """Two stages by where the step ends; alpha = 1 / 2 puts the border at 1 / 3. At the pinned end
    x is y, not the table's arbitrary state."""
    table = load("nadb")
    x, _, y, _ = inputs(table)
    for row in table["reverse_steps"]:
        mean, std = (row[k] if k in row else row[f"{k}_d_smallest"] for k in ("mean", "std"))
        off = (row["t_next"] / 1000) ** 0.4 * (x - y) if row["t"] == 1000 else 0.0
        is_step(
            make("posterior").laws(NADB(), row["t"], row["t_next"]),
            table,
            tensor(mean) - off,
            std,
            1e-9,
        )
    for s, share in ((0.33, 0.33), (0.34, 0.34**0.5)):
        now, _, keep = make("posterior").laws(NADB(T=1, alpha=0.5, k=0.1), 0.9, s)
        assert_close(keep / now.noise, share / 0.9 ** (1 if s < 1 / 3 else 0.5), 1e-12)


def test_nadb_never_needs_more_noise_than_it_has():
    """Its border is where the kept std of the upper stage stays below the std of the target: both
    stages are proper."""
    bridge = NADB()
    for t in (1000, 900, 600, 400, 376):
        for s in range(1, t, 7):
            now, then, keep = bridge.posterior(t, s)
            share = then.degraded / now.degraded if s >= 375 else torch.tensor(s / t)
            assert_close(keep, share * now.noise, 1e-12)


@pytest.mark.parametrize(
    "bridge,t,s", [(b, share * b.T, 0.4 * share * b.T) for b in SHIFTED for share in (0.3, 0.9)]
)
def test_shifting_posterior_is_that_of_the_random_walk(bridge, t, s):
    """c^2 grows by independent increments, whatever the means do: the law of x_s given x_t, x0, y
    keeps c_s^2 / c_t and leaves c_s^2 (1 - c_s^2 / c_t^2)."""
    now, then, keep = bridge.posterior(t, s)
    cs, ct = then.noise**2, now.noise**2
    assert_close(keep, cs / now.noise, 1e-12)
    assert_close(then.noise**2 - keep**2, cs * (1 - cs / ct), 1e-12)


@pytest.mark.parametrize("bridge", SHIFTED, ids=lambda b: type(b).__name__)
def test_shifting_posteriors_compose(bridge):
    """Two steps leave the same law as one: the kept shares multiply and the variances add up."""
    t, s, u = bridge.T, 0.6 * bridge.T, 0.2 * bridge.T
    (first, fresh1), (second, fresh2), (both, fresh) = (
        (float(keep / now.noise), float(then.noise**2 - keep**2))
        for now, then, keep in (
            bridge.posterior(t, s),
            bridge.posterior(s, u),
            bridge.posterior(t, u),
        )
    )
    assert first * second == pytest.approx(both, rel=1e-9)
    assert fresh2 + second**2 * fresh1 == pytest.approx(fresh, rel=1e-9)


def test_nadbs_label():
    """What its network is trained on, (x_t - x0) / t^alpha, is what our readout turns back into
    x0."""
    table = load("nadb")
    _, x0, _, _ = inputs(table)
    for row in table["targets"]:
        form = readout("velocity", NADB(), torch.tensor(row["t"], dtype=torch.float64))
        assert_close(form.state * tensor(row["x_t"]) + form.output * tensor(row["label"]), x0, 1e-9)


@pytest.mark.parametrize("kind", (ResShift, RDDM, DiffUIR))
def test_a_table_of_steps_needs_whole_ones(kind):
    with pytest.raises(UserError, match="whole number of steps"):
        kind(T=10.5)
    with pytest.raises(UserError, match="start='end'"):
        kind(start="end")
    if kind is not DiffUIR:
        with pytest.raises(UserError, match="choose one of marginal, y."):
            kind(start="published")


@pytest.mark.parametrize("name,bridge", [("rddm", RDDM(sum_scale=1.0)), ("diffuir", DiffUIR())])
def test_states_of_the_training(name, bridge):
    table = load(name)
    _, x0, y, eps = inputs(table)
    for row in table["training"]:
        assert_close(draw(bridge.marginal(row["t"] + 1), x0, y, eps), row["x_t"], 2e-6)


@pytest.mark.parametrize(
    "bridge", [ResShift(), ResShift(T=4, min_noise=0.2)], ids=["15 steps", "4 steps"]
)
def test_resshift_scales_what_its_network_sees(bridge):
    """GaussianDiffusion._scale_input divides x_t by sqrt(kappa^2 eta_t + 1), y as it is."""
    name = "resshift_15step" if bridge.T == 15 else "resshift_4step"
    for row in load(name)["coefficients"]:
        t = torch.tensor([row["t"] + 1.0], dtype=torch.float64)
        scale = (4 * row["b"] + 1) ** -0.5
        assert_close(bridge.input_scale(t), scale, 1e-7)
        for target in ("x0", "residual", "noise"):
            assert_close(readout(target, bridge, t).scale, scale, 1e-7)
    assert_close(bridge.input_scale(bridge.T), 0.4507, 1e-4)
    unscaled = ResShift(T=bridge.T, min_noise=bridge.min_noise, scaled=False)
    assert torch.equal(readout("x0", unscaled, t).scale, torch.ones(1, dtype=torch.float64))
    for other in (RDDM(), DiffUIR(), NADB()):  # published without
        assert torch.equal(readout("x0", other, t).scale, torch.ones(1, dtype=torch.float64))


def test_resshift_of_an_older_config_sees_x_t_as_it_was_trained():
    """A config without the field is of a network that saw x_t itself."""
    old = {"T": 15, "kappa": 2.0, "min_noise": 0.04, "end": 0.99, "power": 0.3}
    for name in ("irbridge.interpolants.ResShift", "irbridge.bridges.ResShift"):
        assert not instantiate({"_target_": name, **old}, of="bridge").scaled
        assert instantiate({"_target_": name, **old, "scaled": True}, of="bridge").scaled
    run, again = (
        {"bridge": {"_target_": "irbridge.bridges.ResShift", **old, **more}}
        for more in ({}, {"scaled": True})
    )
    assert "bridge.scaled was False and is now True" in contradiction(run, again)
    assert contradiction(run, run | {"bridge": run["bridge"] | {"scaled": False}}) is None
