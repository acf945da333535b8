"""What wandb is told: a random id of the run's own, made once."""

import sys
from types import SimpleNamespace

import pytest

from irbridge.errors import UserError
from irbridge.experiments.run_folder import mirror, wandb_id

CONFIG = {"logger": {"name": "wandb", "project": "irbridge", "mode": "offline"}}


def test_two_runs_of_one_name_are_two_and_a_resumed_one_is_one(tmp_path, monkeypatch):
    begun, sent = [], []
    wandb = SimpleNamespace(
        init=lambda **words: begun.append(words), log=lambda line, step: sent.append((line, step))
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for folder in (
        "one/derain-a:b",
        "two/derain-a:b",
        "one/derain-a:b",
        "one/derain-a:b/regression",
    ):
        mirror(CONFIG, tmp_path / folder)({"step": 3})
    ids = [words["id"] for words in begun]
    assert ids[0] == ids[2] and len(set(ids)) == 3 and all(name.isalnum() for name in ids)
    assert [words["name"] for words in begun[2:]] == ["derain-a:b", "derain-a:b-regression"]
    assert sent[0] == ({"step": 3}, 3)
    assert mirror({"logger": {"name": "none"}}, tmp_path) is None


def test_a_damaged_id_is_told(tmp_path):
    (tmp_path / "wandb.json").write_text('{"id": 5}')
    with pytest.raises(UserError, match="wandb.json says id='5'"):
        wandb_id(tmp_path)
