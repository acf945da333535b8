"""Whatever a run's files hold, loading them works or ends with one sentence, at once."""

import copy
import json
import shutil
import time

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irbridge.errors import UserError
from irbridge.experiments.build import build_protocol, from_pretrained
from irbridge.experiments.saved import read_settings
from irbridge.experiments.task_data import test_pairs as scored_pairs

SHIPPED = ROOT / "data/adapters/inpaint"
ABSENT = "absent"
VALUES = st.sampled_from(
    [None, 5, -1, 0, -0.0, 10**400, 2**64, 1.5, float("nan"), float("inf"), 1e300, True, "x", ""]
    + [[], [1], ["x"], [[1]], {}, {"a": 1}, {"_target_": "irbridge.bridges.GOUB"}, ABSENT]
)


def places(value, above=()):
    """The path of every value of plain data."""
    children = value.items() if isinstance(value, dict) else ()
    for key, child in children:
        yield (*above, key)
        yield from places(child, (*above, key))


def changed(config, path, value):
    config = copy.deepcopy(config)
    *above, last = path
    group = config
    for key in above:
        group = group[key]
    if value == ABSENT:
        del group[last]
    else:
        group[last] = value
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return shutil.copytree(SHIPPED, tmp_path_factory.mktemp("saved") / "inpaint")


def put(folder, file, path, value):
    config = json.loads((SHIPPED / file).read_text(encoding="utf-8"))
    (folder / file).write_text(json.dumps(changed(config, path, value)), encoding="utf-8")


CONFIG, RUN = (
    sorted(places(json.loads((SHIPPED / name).read_text(encoding="utf-8"))))
    for name in ("config.json", "run.json")
)
QUICK = {
    "max_examples": 120,
    "derandomize": True,
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


@settings(**QUICK)
@given(st.sampled_from(CONFIG), VALUES)
def test_any_config_loads_or_is_refused(folder, path, value):
    put(folder, "config.json", path, value)
    image, mask = np.full((16, 16, 3), 0.5, np.float32), np.zeros((16, 16), bool)
    mask[4:8] = True
    started = time.process_time()
    try:
        model = from_pretrained(folder)
        model.restore(image, mask=mask if model.masked else None, nfe=0)
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 1500
    assert time.process_time() - started < 5  # of which importing diffusers may take two


@settings(**QUICK)
@given(st.sampled_from(RUN), VALUES)
def test_any_run_is_read_or_refused(folder, path, value):
    put(folder, "run.json", path, value)
    try:
        config = read_settings(folder / "run.json")
        build_protocol(config)
        scored_pairs(config, 32)
    except UserError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    "path, value, said",
    [
        ("task", None, "task=None must be a group"),
        ("task.sampler", 5, "task.sampler=5"),
        ("backbone.digest", 5, "backbone.digest=5 must be of type str"),
        ("adapter.width", 2**32, "adapter.width=4294967296 must be a whole number from 1 to 16384"),
        ("adapter.middle", 10**9, "from 1 to 1024"),
        ("bridge.T", float("inf"), "bridge.T=inf"),
        ("bridge.T", 10**400, "bridge.T="),
        ("timesteps.start", -5, "timesteps.start=-5 must be a number from 0 to 999"),
        ("timesteps.start", 10**6, "timesteps.start=1000000"),
        ("sampler.nfe", 2**63 - 1, "sampler.nfe=9223372036854775807"),
        ("seed", 2**64, "seed=18446744073709551616"),
        ("loss", None, "loss=None must be a group"),
        ("trainer", [], "trainer=[] must be a group"),
        ("task.protocol.crop", -1, None),
    ],
)
def test_sentences_name_the_file_or_the_key(folder, path, value, said):
    put(folder, "config.json", path.split("."), value)
    if said is None:  # of scoring alone
        from_pretrained(folder)
        return
    with pytest.raises(UserError) as refused:
        from_pretrained(folder)
    assert said in str(refused.value)
