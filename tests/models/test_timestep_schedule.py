"""Timestep schedules: the critical timesteps exactly, and the paper's figures as far as they can be
read."""

import numpy as np
import pytest
from golden import load
from hypothesis import given, settings
from hypothesis import strategies as st

from irbridge.bridges.brownian import I2SB, Brownian
from irbridge.bridges.ddbm import DDBMVE, DDBMVP
from irbridge.bridges.nadb import NADB
from irbridge.bridges.ornstein_uhlenbeck import GOUB, IRSDE, RDBM, OUBridge, UniDB
from irbridge.errors import UserError
from irbridge.models.timestep_schedule import PAPER, Timesteps, critical, linear, paper
from irbridge.priors.flow import Flow
from irbridge.priors.ve import VE
from irbridge.priors.vp import VP, vp_alphas_cumprod

SD15 = VP(
    vp_alphas_cumprod({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})
)
DDPM = VP(vp_alphas_cumprod({}))
TABLE = load("irbridge_derived")
TASKS = {
    "deraining": "derain",
    "dehazing": "dehaze",
    "desnowing": "desnow",
    "raindrop": "raindrop",
    "lowlight": "lowlight",
    "inpainting": "inpaint",
}


@pytest.mark.parametrize("lam", (1, 2, 3, 4, 5))
@pytest.mark.parametrize("name,kind", [("irsde", IRSDE), ("goub", GOUB)])
def test_critical_timesteps(name, kind, lam):
    """Exact integers for every step, and the fractional timestep between the integer and the one
    before."""
    rows = TABLE["critical_timesteps"][f"{name}_lambda{lam}"]
    m = kind(lam=lam / 255).marginal(np.arange(rows["i_from"], rows["i_to"] + 1))
    for prior, key in ((SD15, "sd15"), (DDPM, "ddpm_linear")):
        index, fractional = prior.critical_index(m).numpy(), prior.critical(m).numpy()
        np.testing.assert_array_equal(index, rows[key])
        assert ((fractional <= index) & (fractional > index - 1)).all()
    np.testing.assert_allclose(Flow().critical(m), rows["rectified_flow"], atol=6e-7)


@pytest.mark.parametrize(
    "figure,kind,prior,i,tolerance",
    [
        ("fig2_irsde_sd15_i100", IRSDE, SD15, 100, 6),
        ("fig10a_irsde_ddpm_i100", IRSDE, DDPM, 100, 7),
        ("fig10c_irsde_rf_i100", IRSDE, Flow(), 100, 0.01),
        ("fig10e_goub_sd15_i99", GOUB, SD15, 99, 6),
    ],
)
def test_figures_2_and_10(figure, kind, prior, i, tolerance):
    """The paper's lambda is in units of 1 / 255. Fig. 10a is read 7 off at lambda = 4."""
    for lam, reading in TABLE["paper_figure_readings"][figure].items():
        m = kind(lam=int(lam) / 255).marginal(i)
        got = prior.critical_index(m) if isinstance(prior, VP) else prior.critical(m)
        assert abs(float(got) - reading) <= tolerance


@pytest.mark.parametrize("task", TASKS)
def test_figure_4(task):
    """The schedules by task, for IR-SDE with lambda = 2 / 255, as printed: even below the critical
    timestep."""
    ours, readings = PAPER[TASKS[task]], TABLE["task_timestep_schedules"]["readings"][task]
    schedule = Timesteps(ours.offset, ours.absolute, at_least_critical=False)
    got = schedule(IRSDE(lam=2 / 255), SD15, np.array([float(i) for i in readings])).numpy()
    assert np.abs(got - list(readings.values())).max() <= 20


def test_figure_11():
    """S1 to S8 at their corners, by the paper's description."""
    bridge, t = IRSDE(lam=2 / 255), np.array([100.0, 50.0, 1.0])
    crit = SD15.critical(bridge.marginal(t)).numpy()
    expected = {
        "S1": [550, 272.7, 1],
        "S2": [850, 421.2, 1],
        "S3": [550, 550, 1],
        "S4": [550, 850, 1],
        "S5": [850, 850, 1],
        "S6": crit + 100,
        "S7": crit + 300,
        "S8": crit + [300, 150, 3],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(paper(name)(bridge, SD15, t), values, atol=0.2)


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(list(PAPER)),
    st.sampled_from([SD15, DDPM, VE(), Flow(), Flow(3.0)]),
    st.sampled_from([IRSDE(lam=2 / 255), GOUB(), Brownian(T=7)]),
    st.floats(0, 1),
)
def test_at_least_critical_and_within_the_range(name, prior, bridge, u):
    """A pinned bridge's very end has no noise to preserve, and takes the timestep of beside it."""
    t = u * bridge.T
    tau = float(paper(name)(bridge, prior, t))
    assert prior.lowest <= tau <= prior.highest
    last = min(t, Timesteps.last(bridge))
    assert float(prior.critical(bridge.marginal(last))) <= tau


def test_a_pinned_end_takes_the_critical_timestep_of_a_hundredth_before():
    assert Timesteps.last(IRSDE()) == 100 and Timesteps.last(GOUB(T=50)) == 49.5
    assert critical()(GOUB(lam=2 / 255), SD15, 100) == critical()(GOUB(lam=2 / 255), SD15, 99)
    assert linear(550)(GOUB(lam=2 / 255), SD15, 100) == critical()(GOUB(lam=2 / 255), SD15, 99)
    assert linear(550).from_anchor()(GOUB(lam=2 / 255), SD15, 100) == 550


PINNED = {
    "goub": GOUB(lam=2 / 255),
    "goub 50": GOUB(T=50, lam=5 / 255),
    "goub published": GOUB(),
    "unidb": UniDB(lam=2 / 255),
    "rdbm": RDBM(),
    "brownian": Brownian(sigma=0.07),
    "oubridge": OUBridge(lam=2 / 255),
    "i2sb exact": I2SB(official=False),
    "ddbm_ve": DDBMVE(),
    "ddbm_vp": DDBMVP(),
    "nadb": NADB(),
}


@pytest.mark.parametrize("prior", [SD15, DDPM, Flow(3.0), VE()], ids=["sd15", "ddpm", "flow", "ve"])
@pytest.mark.parametrize("name", PINNED)
def test_no_schedule_rises_after_the_first_call_of_a_pinned_bridge(name, prior):
    """Every schedule of the paper, but for the printed rise of S4, at any number of calls."""
    bridge = PINNED[name]
    assert bridge.pinned
    for key, schedule in PAPER.items():
        for calls in (2, 10, 25, 100):
            tau = schedule(bridge, prior, np.linspace(bridge.T, 0, calls + 1)[:-1]).numpy()
            assert key == "S4" or tau[0] >= tau[1] - 1e-9, (key, calls)
        end, beside = schedule(bridge, prior, np.array([1, 0.99]) * bridge.T)
        # S4 is printed to rise by 6 from there
        assert end >= beside - (6.1 / 999 * prior.highest if key == "S4" else 1e-9), key
        printed = Timesteps(schedule.offset, schedule.absolute, at_least_critical=False)
        if not schedule.offset:
            assert float(printed(bridge, prior, bridge.T)) == pytest.approx(
                prior.lowest + schedule.absolute[100] * (prior.highest - prior.lowest) / 999
            )


def test_goubs_first_calls_on_stable_diffusion():
    """100 calls: as printed 550, 544.5, 539; from the critical timesteps up 694, 694, 587."""
    tau = paper("S1")(GOUB(lam=2 / 255), SD15, np.array([100, 99, 98]))
    np.testing.assert_allclose(tau, [694.4, 694.4, 587], atol=0.6)


def test_schedules_stretch_to_the_priors_range_and_take_batches():
    assert float(linear(999)(IRSDE(), Flow(), 100)) == pytest.approx(1)
    bridge = IRSDE(lam=2 / 255)
    # 0.55 is below it
    assert linear(550)(bridge, Flow(), 100) == critical()(bridge, Flow(), 100) > 0.6
    tau = linear(550)(IRSDE(T=50, lam=2 / 255), SD15, np.array([50.0, 0.5]))
    np.testing.assert_allclose(tau, [550, 1], atol=1e-9)


def test_critical_offset():
    bridge = IRSDE(lam=2 / 255)
    difference = critical(100)(bridge, SD15, 90) - critical()(bridge, SD15, 90)
    assert float(difference) == pytest.approx(100)
    assert float(critical(5000)(bridge, SD15, 90)) == 999


def test_bad_schedules():
    with pytest.raises(UserError, match="knots"):
        Timesteps()
    with pytest.raises(UserError, match="derain"):
        paper("fog")
