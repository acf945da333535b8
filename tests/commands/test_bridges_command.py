"""``irbridge bridges``: any bridge of a config, any constant, drawn with the same noise."""

import pytest
import torch

from irbridge import cli
from irbridge.commands.bridges import bridge_named, known_bridges
from irbridge.errors import UserError
from irbridge.reports.bridge_picture import SHARES, constants, ends, shown, states


@pytest.mark.parametrize("name", known_bridges())
def test_states_lead_from_the_clean_photograph_to_the_degraded_end(name):
    bridge = bridge_named(name, [])
    x0, y = ends()
    drawn = states(bridge)
    assert len(drawn) == len(SHARES)
    assert torch.equal(drawn[0], x0)
    end = bridge.marginal(bridge.T)
    if bridge.pinned:
        assert torch.allclose(drawn[-1], y, atol=1e-5)
    for share, state in zip(SHARES, drawn):
        image, divisor = shown(state, bridge.marginal(share * bridge.T))
        assert image.min() >= 0 and image.max() <= 1 and divisor >= 1
    assert float(end.clean) < 0.03


def test_noise_is_the_seeds(tmp_path):
    bridge = bridge_named("bbdm", [])
    first, again, other = states(bridge), states(bridge), states(bridge, seed=1)
    assert all(map(torch.equal, first, again)) and not torch.equal(first[3], other[3])


def test_words_of_the_training_and_the_title():
    assert bridge_named("goub", ["recipe=bridge"]).lam == 0.2353
    assert bridge_named("goub", ["bridge.lam=0.5", "bridge.T=50"]).T == 50
    assert constants(bridge_named("i2sb", [])) == (
        "I2SB, T 1000, start y, beta_max 0.3, official True, convention i2sb"
    )


def test_it_draws_and_says_where(tmp_path, capsys):
    cli.run("bridges", ["nadb", f"output={tmp_path}", "seed=1"])
    assert capsys.readouterr().out.strip() == str(tmp_path / "nadb.png")
    cli.run("bridges", ["nadb", f"output={tmp_path}"])  # its own picture is replaced
    (tmp_path / "nadb.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="is not what irbridge wrote"):
        cli.run("bridges", ["nadb", f"output={tmp_path}"])


@pytest.mark.parametrize(
    "words, said",
    [
        (["gaub"], "did you mean goub"),
        (["goub", "bridge.lamm=1"], "no key of irbridge train"),
        (["goub", "bridge.lam=-1"], "bridge.lam=-1 must be"),
    ],
)
def test_mistakes_are_told_before_anything_is_drawn(words, said, tmp_path):
    with pytest.raises(UserError, match=said):
        cli.run("bridges", [*words, f"output={tmp_path}"])
    assert not list(tmp_path.iterdir())
