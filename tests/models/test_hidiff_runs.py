"""HI-Diff's two stages as a user types them: trained, resumed, scored; and what is refused."""

import json

import numpy as np
import pytest
from runs_alike import assert_same

from irbridge.adapters.hidiff.network import HIDiffOptions
from irbridge.errors import UserError
from irbridge.experiments.build import from_pretrained, trainer_options
from irbridge.experiments.config import composed
from irbridge.experiments.schema import made
from irbridge.files import read_json, write_json
from irbridge.models.hidiff_weights import published
from irbridge.training.growth import phases
from irbridge.training.optimizer import learning_rate

TINY = (
    "recipe=hidiff",
    "task=deblur",
    "hidiff.width=4",
    "hidiff.blocks=[1,1]",
    "hidiff.tokens=2",
    "hidiff.encoder_blocks=1",
    "hidiff.denoiser_width=8",
    "debug=default",
    "overwrite=false",
    "trainer.crop=16",
    "evaluate.limit=1",
)
UNSCORED = "evaluate.enabled=false"


@pytest.fixture
def train(command, small):
    def run(*words):
        return command("train", *TINY, *small, *words)

    return run


@pytest.fixture
def first(train, tmp_path):
    status, out, err = train("name=first", "stage=1", "trainer.validate_every=1")
    assert status == 0, err
    assert "HI-Diff stage 1, oracle (sees the clean image)" in out
    return tmp_path / "runs/deblur-first"


def test_both_stages(train, first, tmp_path, command):
    lines = [json.loads(line) for line in (first / "metrics.jsonl").read_text().splitlines()]
    assert all("psnr_oracle" in line["validation"] for line in lines)
    records = [p for p in (first / "results").glob("*/records.jsonl") if "oracle" in p.parent.name]
    record = json.loads(records[0].read_text().splitlines()[0])
    assert record["oracle"] == "sees the clean image" and record["method"] == "hidiff_oracle"

    second = "name=second", "stage=2", f"stage1={first}"
    status, out, err = train(*second)
    assert status == 0 and "| HI-Diff |" in out.replace("**", ""), err
    run = tmp_path / "runs/deblur-second"
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"image", "tokens"} <= line.keys()
    model = from_pretrained(run)
    assert model.teacher is None and model.stage == 2
    image = np.random.default_rng(0).random((40, 56, 3), dtype=np.float32)
    assert np.array_equal(model.restore(image, seed=4), model.restore(image, seed=4))
    saved = read_json(run / "config.json")
    assert saved["hidiff"]["width"] == 4 and "stage1" not in saved

    # nothing of the first stage is needed any more
    first.rename(first.with_name("moved"))
    status, out, err = command(
        "evaluate", f"run={run}", "size=32", "limit=1", f"results={tmp_path / 'again'}"
    )
    assert status == 0 and "HI-Diff" in out, err


@pytest.mark.parametrize("stage", [1, 2])
def test_a_stopped_run_ends_with_the_same_bits(train, first, tmp_path, stage):
    words = [UNSCORED, f"stage={stage}", *[f"stage1={first}"] * (stage == 2)]
    assert train(*words, "name=whole")[0] == 0
    assert "Stopped and saved" in train(*words, "name=parts", "trainer.stop=2")[1]
    assert train(*words, "name=parts")[0] == 0
    assert_same(tmp_path / "runs/deblur-whole", tmp_path / "runs/deblur-parts")


def refused(train, said, *words):
    status, _, err = train(UNSCORED, "name=refused", *words)
    assert status == 2 and said in err and err.startswith("Error: "), err
    assert len(err.strip().splitlines()) == 1


def test_stages_that_do_not_fit(train, first, tmp_path):
    refused(train, "begins from a trained stage 1; give stage1=RUN", "stage=2")
    refused(train, "stage1=nowhere holds no trained stage 1", "stage=2", "stage1=nowhere")
    refused(train, "leave it out of stage=1", "stage=1", f"stage1={first}")
    from_first = "stage=2", f"stage1={first}"
    refused(train, "has hidiff.width=4, not 8", *from_first, "hidiff.width=8")
    refused(train, "has hidiff.variant=gopro, not realblur", *from_first, "hidiff.variant=realblur")
    refused(train, "was trained for another task; give task=deblur", *from_first, "task=derain")
    assert train(UNSCORED, "name=begun", "stage=1", "trainer.stop=1")[0] == 0
    begun = f"stage1={tmp_path / 'runs/deblur-begun'}"
    refused(train, "is not trained to its end", "stage=2", begun)
    refused(train, "from 1 to 2", "stage=3")
    refused(train, "takes no mask", "stage=1", "adapter.masked=true")
    assert train(UNSCORED, "name=second", *from_first)[0] == 0
    again = f"stage1={tmp_path / 'runs/deblur-second'}"
    refused(train, "is stage 2 of HI-Diff; give a finished run", "stage=2", again)


STRANGE = (
    {"hidiff": None},
    {"hidiff": {"blocks": "many"}},
    {"hidiff": {"width": 10**9}},
    {"hidiff": {"variant": ["gopro"]}},
    {"stage": "2"},
    {"stage": None},
    {"method": ["hidiff"]},
)


def test_a_config_of_anyone_is_refused_in_a_sentence(first):
    config = read_json(first / "config.json")
    for change in STRANGE:
        write_json(first / "config.json", config | change)
        with pytest.raises(UserError) as refused:
            from_pretrained(first)
        assert "describes no model" not in str(refused.value)


def test_a_finished_model_follows_no_stage_1(train, first, tmp_path):
    """Whatever its file says."""
    assert train(UNSCORED, "name=second", "stage=2", f"stage1={first}")[0] == 0
    path = tmp_path / "runs/deblur-second/config.json"
    write_json(path, read_json(path) | {"stage1": "/nowhere"})
    assert from_pretrained(path.parent).teacher is None


def test_its_words_are_for_it_alone(command, small):
    words = "task=derain", "recipe=regression", "debug=default", *small
    for word, said in (("stage=1", "stage is for"), ("stage1=x", "stage1 is for")):
        status, _, err = command("train", *words, word)
        assert status == 2 and f"{said} recipe=hidiff alone" in err


@pytest.mark.parametrize("variant", ["gopro", "realblur"])
def test_the_published_recipes(variant):
    config = composed("train", f"recipe=hidiff_{variant}", "task=deblur", "stage=2")
    assert made(HIDiffOptions, config["hidiff"]) == published(variant)
    trainer = trainer_options(config)
    assert (trainer.lr, trainer.weight_decay, trainer.clip) == (2e-4, 1e-4, 0.01)
    assert (trainer.steps, trainer.ema_decay, trainer.accumulate) == (300_000, 0.0, 1)
    sizes = phases(trainer.crop, trainer.batch_size, trainer.grow)
    assert [(size.step, size.crop, size.batch_size) for size in sizes] == [
        (0, 128, 64),
        (20_000, 160, 40),
        (40_000, 192, 32),
        (60_000, 256, 16),
        (80_000, 320, 8),
        (100_000, 384, 8),
    ]
    assert sizes[-1].images_before(trainer.steps) == 4_800_000
    shape = trainer.lr, trainer.steps, trainer.warmup, trainer.schedule, trainer.flat, trainer.last
    rates = [learning_rate(step, *shape) for step in (0, 99_999, 200_000, 300_000)]
    assert rates == pytest.approx([2e-4, 2e-4, (2e-4 + 1e-6) / 2, 1e-6], rel=1e-4)
