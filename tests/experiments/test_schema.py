"""The classes of settings say what the YAML files say, and check what a user writes."""

from dataclasses import fields

import pytest
from conftest import ROOT, configured
from omegaconf import OmegaConf

from irbridge.errors import UserError
from irbridge.experiments.config import composed, plain
from irbridge.experiments.schema import COMMANDS, check_added, checked, free_keys
from irbridge.models.loss_options import LossOptions
from irbridge.training.options import TrainerOptions

WORDS = {
    "evaluate": ["run=x", "method=ddim"],
    "compare": ["run=x"],
    "restore": ["input=x"],
    "export": ["run=x", "output=y"],
    "train": ["name=x"],
    "benchmark": ["name=x"],
}
# what the train and evaluate commands have for interpolations and for Hydra alone
UNREAD = {"name", "endpoint", "baseline"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_of_a_command_has_a_field(command):
    config = configured(command, *WORDS.get(command, []))
    config = OmegaConf.to_container(config, resolve=False)
    known = {at.name for at in fields(COMMANDS[command])}
    assert config.keys() - UNREAD <= known | UNREAD
    assert known - config.keys() <= {"ship", "paper", "refine"}


@pytest.mark.parametrize(
    "kind, file", [(TrainerOptions, "trainer/cpu"), (LossOptions, "loss/default")]
)
def test_defaults_are_those_of_the_default_file(kind, file):
    assert vars(kind()) == plain(OmegaConf.load(ROOT / f"configs/{file}.yaml"))


def test_the_settings_are_typed():
    experiment = checked("train", composed("train", "name=x", "trainer.lr=1", "sampler.nfe=5"))
    assert experiment.trainer.lr == 1 and experiment.sampler.nfe == 5
    assert experiment.data.train == "data/samples/train" and experiment.evaluate.size == 160


@pytest.mark.parametrize(
    "word, said",
    [
        ("trainer.lr=fast", "trainer.lr='fast' must be of type float, such as 0.002."),
        ("trainer.lr=null", "trainer.lr=null must be a value, such as 0.002."),
        ("trainer.stop=soon", "trainer.stop='soon' must be of type int or null."),
        ("trainer.betas=3", "trainer.betas=3 must be a list, such as [0.9, 0.99]."),
        ("evaluate.size=0", "evaluate.size=0 must be a whole number from 1 to 65500, or null."),
        ("bridge.sigma=x", "bridge.sigma='x' must be of type float, such as 1.4142135623730951."),
        ("adapter.layers=1.5", "adapter.layers=1.5 must be of type int, such as 1."),
        ("loss.norm=l3", "loss.norm=l3 must be one of l1, l2."),
        ("baseline=1", "baseline=1 must be of type bool, such as True."),
    ],
)
def test_sentences(word, said):
    with pytest.raises(UserError) as refused:
        checked("train", composed("train", "name=x", word))
    assert str(refused.value) == said


def test_what_a_resumed_run_may_change():
    assert {"trainer.steps", "evaluate", "backbone.pretrained", "data.folder"} <= free_keys()
    assert not {"trainer.lr", "seed", "data.train", "bridge", "trainer"} & free_keys()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("+trainer.stepz=3", "trainer has no stepz; did you mean steps"),
        ("++trainer.foo=3", "trainer has no foo"),
        ("+foo=3", "The command has no foo"),
        ("+data.trian=x", "data has no trian; did you mean train"),
        ("+evaluate.protocol.crop=3", "evaluate has no protocol"),
    ],
)
def test_a_key_that_nothing_reads_is_refused(word, said):
    with pytest.raises(UserError, match=said):
        check_added("train", ["task=derain", word])


@pytest.mark.parametrize(
    "word",
    [
        "+sampler.strength=3",
        "+bridge.sigma=1",
        "+adapter.width=8",
        "+trainer.optimizer=adamw",
        "+mine.key=1",
        "+task.degradation.amount=2",
        "+logger.project=x",
        "~seed",
        "trainer.steps=3",
    ],
)
def test_a_key_that_something_may_read_is_taken(word):
    check_added("train", [word])
