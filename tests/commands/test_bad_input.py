"""Every mistake ends with one sentence that names the thing and says what to do, and with status 2
(1 for faults)."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, configured, save_backbone, save_images, small_unet
from diffusers import DDPMScheduler
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from irbridge import weights
from irbridge.adapters.trunk import make_trunk
from irbridge.commands.train import train_run
from irbridge.errors import UserError
from irbridge.experiments.config import plain, run_cli
from irbridge.experiments.instantiate import instantiate
from irbridge.experiments.schema import checked


def assert_one_sentence(result, *words, status=2, bar=False):
    """``bar``: what only training can find comes after a progress bar."""
    code, _, err = result
    *before, last = [line for line in err.split("\n") if line]
    assert code == status and last.startswith("Error: "), err
    assert all(bar and "training:" in line for line in before), err
    for word in words:
        assert str(word) in last, last


TRAIN = {
    # misspelt keys
    "trainer.lrr=3": ["trainer.lrr"],
    "trianer.lr=3": ["trianer"],
    "bridge.lamb=1": ["lamb"],
    "sede=1": ["sede"],
    # misspelt choices list the right ones
    "task=derian": ["derian", "derain", "paired"],
    "bridge=goubb": ["goubb", "goub", "brownian"],
    "adapter=controll": ["controll", "control", "static"],
    "timesteps=papper": ["papper", "paper"],
    "sampler=fast": ["fast", "default"],
    "trainer=tpu": ["tpu", "gpu"],
    "loss=nothing": ["nothing", "published"],
    "recipe=gobu": ["gobu", "goub", "regression"],
    "logger=tensorboard": ["tensorboard", "wandb"],
    "endpoint=x": ["endpoint", "'x'", "anchor"],
    "sampler.rule=foo": ["sampler.rule", "foo", "reverse"],
    "loss.states=foo": ["loss.states", "foo", "prior"],
    "loss.weight=foo": ["loss.weight", "foo", "eps"],
    "loss.norm=foo": ["loss.norm", "foo", "l1"],
    "trainer.schedule=foo": ["trainer.schedule", "foo", "cosine"],
    "trainer.precision=fp8": ["trainer.precision", "fp8", "bf16"],
    "trainer.device=tpu": ["trainer.device", "tpu", "auto"],
    "timesteps=paper timesteps.name=S9": ["S9", "S8"],
    "task.protocol.space=yuv": ["protocol.space", "yuv", "rgb"],
    # wrong types
    "trainer.lr=fast": ["trainer.lr", "float"],
    "trainer.steps=1.5": ["trainer.steps", "1.5", "whole number"],
    "seed=x": ["seed", "int"],
    "trainer.batch_size=[1]": ["trainer.batch_size", "int"],
    "baseline=1": ["baseline", "bool"],
    "trainer.lr=null": ["trainer.lr"],
    "trainer.crop=null": ["trainer.crop"],
    "trainer.stop=soon": ["trainer.stop"],
    "evaluate.limit=few": ["evaluate.limit"],
    "adapter.channels=[]": ["adapter.channels"],
    "trainer=5": ["group"],
    "adapter.channels=[8,x]": ["adapter.channels"],
    "trainer.betas=[0.9]": ["trainer.betas"],
    # nonsense values
    "trainer.steps=-5": ["trainer.steps=-5"],
    "trainer.batch_size=0": ["trainer.batch_size=0"],
    "trainer.lr=nan": ["trainer.lr=nan"],
    "trainer.crop=17": ["trainer.crop=17", "4"],
    "bridge.T=0": ["bridge.T=0"],
    "bridge=goub bridge.lam=-1": ["bridge.lam=-1"],
    "adapter.channels=[8,0]": ["adapter.channels"],
    "adapter.anchor=false": ["endpoint=anchor", "adapter.anchor=true"],
    "trainer.batch_size=3 trainer.accumulate=2": ["trainer.batch_size=3", "trainer.accumulate"],
    "trainer.grow=[{step:9}]": ["trainer.grow", "{step: 20000, crop: 160, batch_size: 40}"],
    "trainer.grow=[{step:9,crop:8000,batch_size:65000}]": ["trainer.grow.crop=8000", "takes"],
    "task=universal trainer.grow=[{step:9,crop:64,batch_size:8}]": ["trainer.grow.batch_size=8"],
    "task=universal trainer.batch_size=8": ["batch_size=8", "5 tasks", "trainer.batch_size=10"],
    "data.each_step=true": ["data.each_step=true", "data.mix"],
    # bridges, samplers and objectives that do not go together
    "bridge=goub sampler.steps=1000": ["sampler.nfe=1000", "100 steps", "bridge.T"],
    "bridge=goub recipe=bridge sampler.nfe=1000": ["sampler.nfe=1000", "100 steps", "bridge.T"],
    "bridge=rdbm sampler=odes3": ["sampler.rule=odes3", "residual-modulated", "bridge.pi=one"],
    "bridge=goub sampler=heun sampler.boot=0": ["sampler.rule=heun", "GOUB", "sampler.boot"],
    "recipe=bridge objective.target=foo": ["objective.target='foo'", "noise", "product", "edm"],
    "recipe=bridge objective.loss=foo": ["objective.loss='foo'", "l1", "likelihood"],
    "recipe=bridge bridge=rdbm objective.target=noise": [
        "objective.target=noise",
        "objective.target=product",
    ],
    "recipe=bridge bridge=rdbm objective.loss=likelihood": [
        "objective.loss=likelihood",
        "objective.loss=l1",
    ],
    "recipe=bridge bridge=rdbm bridge.pi=zero objective.target=product": [
        "objective.target=product",
        "target=x0",
    ],
    "sampler.spacing=foo": ["sampler.spacing='foo'", "logsnr", "karras"],
    "bridge=rdbm bridge.pi=two": ["bridge.pi='two'", "residual", "one", "zero"],
    "bridge=i2sb bridge.start=there": ["bridge.start='there'", "marginal", "y"],
    "sampler.nfe=0": ["sampler.nfe=0", "loss.anchor_first=1"],
    "sampler.times=[0,100]": ["sampler.times", "falling"],
    # keys that stand elsewhere
    "samples=2": ["samples", "Did you mean refine.samples?"],
    "recipe=refine refine.samples=2.5": ["refine.samples=2.5 must be a whole number from 1 to"],
    # words of earlier versions
    "contender=goub": ["contender=goub", "Did you mean recipe=goub?"],
    "method=bridge": ["method=bridge", "Did you mean recipe=bridge?"],
    "method=diffusion": ["method=diffusion", "recipe=NAME", "regression"],
    "experiment=published": ["experiment=published", "Did you mean recipe=published?"],
    "hydra.launcher=joblib": ["hydra.launcher", "did you mean hydra/launcher=joblib?"],
    "experiment=all": ["all", "efficiency"],
    # data and weights that are not there
    "data.train=nowhere": ["nowhere"],
    "data.test=nowhere": ["nowhere"],
    "data.train=nowhere.tar": ["nowhere.tar"],
    "backbone.pretrained=nowhere": ["nowhere", "hub"],
    "task=paired": ["data.clean"],
    "task=paired data.clean=a data.degraded=b": ["folder a"],
    "task=paired data.clean=a data.degraded=null": ["data.degraded"],
}


@pytest.mark.parametrize("words", TRAIN)
def test_train(command, small, words):
    if "task=paired" in words:
        small = [w for w in small if not w.startswith("data.")]
    result = command("train", *small, "debug=default", *words.split())
    assert_one_sentence(result, *TRAIN[words], bar=words == "adapter.anchor=false")


NONSENSE = [
    "trainer.crop=0",
    "trainer.lr=-1",
    "trainer.lr=inf",
    "trainer.steps=0",
    "trainer.stop=0",
    "trainer.stop=-1",
    "sampler.steps=-1",
    "sampler.eta=-1",
    "sampler.eta=nan",
    "bridge.eps=0",
    "sampler.nfe=-3",
    "sampler.nfe=2.5",
    "sampler.eta=1.5",
    "sampler.boot=1",
    "sampler.boot=-0.1",
    "sampler.churn=1",
    "sampler.churn=-1",
    "sampler.rho=0",
    "sampler.noise=loud",
    "sampler.times=[50]",
    "sampler.times=[100,100,0]",
    "sampler.times=5",
    "sampler.times=[1,-1]",
    "bridge.eps=2",
    "bridge.lam=0",
    "evaluate.size=0",
    "evaluate.limit=-1",
    "seed=-1",
    "trainer.accumulate=0",
    "trainer.ema_decay=1.5",
    "trainer.ema_decay=1",
    "trainer.clip=0",
    "trainer.save_every=0",
    "trainer.log_every=0",
    "trainer.sample_every=-1",
    "trainer.save_seconds=0",
    "trainer.workers=-1",
    "trainer.warmup=-1",
    "trainer.weight_decay=-1",
    "trainer.betas=[0.9,1.0]",
    "trainer.betas=[]",
    "loss.anchor=-1",
    "loss.anchor_first=2",
    "trainer.minutes=0",
    "trainer.minutes=-1",
    "trainer.schedule=step",
    "trainer.device=gpu",
]


@pytest.fixture(scope="module")
def config():
    cfg = configured("train", "name=t", "bridge=goub")
    checked("train", plain(cfg))
    return cfg


@pytest.mark.parametrize("word", NONSENSE)
def test_values(config, word):
    with pytest.raises(UserError) as failure:
        checked("train", plain(OmegaConf.merge(config, OmegaConf.from_dotlist([word]))))
    assert re.fullmatch(rf"{re.escape(word.split('=')[0])}=.* must be .*\.", str(failure.value))


@pytest.mark.parametrize(
    "bridge, word",
    [
        ("UniDB", "gamma=0"),
        ("I2SB", "beta_max=-1"),
        ("DDBMVP", "beta_d=-1"),
        ("OUBridge", "mean=2"),
        ("ResShift", "end=1"),
        ("NADB", "alpha=0"),
        ("ResShift", "kappa=0"),
        ("NADB", "k=nan"),
    ],
)
def test_values_of_other_bridges(bridge, word):
    key, value = word.split("=")
    with pytest.raises(UserError, match=f"bridge.{key}=.* must be a number"):
        instantiate({"_target_": f"irbridge.bridges.{bridge}", key: float(value)})


@pytest.mark.parametrize("word", ["layers=0", "channels=[8,0]", "width=0", "encoder=[]"])
def test_values_of_the_trunk(word):
    key, value = word.split("=")
    with pytest.raises(UserError, match=f"adapter.{key}=.* must be a "):
        make_trunk("unet", **{"channels": [8], key: json.loads(value)})


@pytest.mark.parametrize(
    "word",
    ["trainer.betas=[0.9", "trainer.lr='", 'timesteps.start="', "data.resize=a=b", "trainer.lr=~"],
)
def test_syntax_of_the_command_line(command, word):
    """The sentence is about what was typed, and in no parser's words."""
    result = command("train", word)
    assert_one_sentence(result, f"{word} has a value that cannot be read", "quotes")
    assert not re.search("Lexer|mismatched|viable|hydra", result[2])


@pytest.mark.parametrize(
    "words",
    [["--config-dir", "nowhere"], ["--config-dir=nowhere"], ["-cd", "nowhere"], ["--config-dir="]],
    ids=" ".join,
)
@pytest.mark.parametrize("script", ["train", "restore", "evaluate"])
def test_a_folder_of_configs_that_is_not_there(command, script, words):
    if script == "restore":
        if words[0] == "-cd":
            pytest.skip("a flag of Hydra")
        words = [*words, "task=derain", "input=a.png"]
    result = command(script, *words)
    assert_one_sentence(result, "config", *["nowhere"] * ("nowhere" in str(words)))


@pytest.mark.parametrize("words", [["--cfg", "foo"], ["-c=foo"], ["--info=foo"], ["-i", "foo"]])
def test_flags_of_hydra_with_a_choice_that_there_is_not(command, words):
    assert_one_sentence(command("train", *words), "=foo is unknown; choose one of")


def test_a_pickled_job_is_not_run_again(command, tmp_path):
    """Hydra would unpickle the file."""
    (tmp_path / "config.pickle").write_bytes(b"cos\nmkdir\n(S'opened'\ntR.")
    for words in (
        ["--experimental-rerun", "config.pickle"],
        ["--experimental-rerun=config.pickle"],
    ):
        assert_one_sentence(command("train", *words), "is not a flag of this command")
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("value", ["fp8", "-.inf", "16", "[bfloat16]", "true"])
def test_a_type_of_numbers_that_there_is_not(command, small, value):
    result = command("train", *small, "debug=default", f"backbone.dtype={value}")
    assert_one_sentence(result, "backbone.dtype=", "float32, bfloat16, float16")


@pytest.fixture
def folders(tmp_path):
    return save_images(tmp_path / "clean"), save_images(tmp_path / "degraded", seed=1)


BROKEN = {
    "a corrupt image": (lambda c, d: (d / "1.png").write_bytes(b"no image"), ["1.png"]),
    "a truncated image": (
        lambda c, d: (d / "1.png").write_bytes((d / "1.png").read_bytes()[:30]),
        ["1.png"],
    ),
    "sizes differ": (lambda c, d: save_images(d, 1, (40, 46)), ["0.png", "differ"]),
    "a missing partner": (lambda c, d: (c / "2.png").unlink(), ["2.png", "partner"]),
    "no images": (lambda c, d: [p.unlink() for p in c.iterdir()], ["clean", "no images"]),
    "too few": (
        lambda c, d: [p.unlink() for f in (c, d) for p in f.iterdir() if p.stem != "0"],
        ["too few"],
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_pairs(command, small, folders, fault):
    change, words = BROKEN[fault]
    change(*folders)
    small = [w for w in small if not w.startswith("data.")]
    result = command(
        "train",
        *small,
        "debug=default",
        "task=paired",
        f"data.clean={folders[0]}",
        f"data.degraded={folders[1]}",
    )
    assert_one_sentence(result, *words)


def test_a_corrupt_training_image(command, small, tmp_path):
    broken = save_images(tmp_path / "broken", 1)
    path = broken / "0.png"
    path.write_bytes(path.read_bytes()[:-300])
    assert_one_sentence(
        command("train", *small, "debug=default", f"data.train={broken}", "data.validation=null"),
        "0.png",
        bar=True,
    )


WEIGHTS = {
    "config.json": ["config.json"],
    "scheduler_config.json": ["scheduler_config.json"],
    "diffusion_pytorch_model.safetensors": ["save_pretrained"],
}


@pytest.mark.parametrize("file", WEIGHTS)
def test_a_corrupt_backbone(command, small, tmp_path, file):
    folder = save_backbone(tmp_path / "broken")
    (folder / file).write_text("{")
    assert_one_sentence(
        command("train", *small, f"backbone.pretrained={folder}"), folder, *WEIGHTS[file]
    )


def test_a_mistake_does_not_occupy_the_folder(command, small, tmp_path):
    """The corrected command must work in the same folder, whatever the mistake was."""
    quick = [*small, "debug=default", "recipe=regression", "evaluate.enabled=false"]
    for mistake in (
        "data.train=nowhere",
        "trainer.crop=17",
        "trainer.batch_size=3 trainer.accumulate=2",
    ):
        assert command("train", *quick, *mistake.split())[0] == 2
    status, _, err = command("train", *quick)
    assert status == 0, err


@pytest.fixture(scope="module")
def trained(tmp_path_factory, backbone_folder, images):
    """A finished run's folder and the words that made it."""
    root = tmp_path_factory.mktemp("trained")
    words = [
        f"backbone.pretrained={backbone_folder}",
        "adapter.channels=[8,8]",
        f"data.train={images}",
        f"data.test={images}",
        "debug=default",
        "sampler.steps=2",
        "evaluate.enabled=false",
        "baseline=false",
        "trainer.device=cpu",
    ]
    before, sys.argv = sys.argv, ["train.py", *words, f"run_root={root}"]
    GlobalHydra.instance().clear()
    try:
        run_cli(train_run, "train")
    finally:
        sys.argv = before
    return root / "derain-debug", words


@pytest.fixture
def run(trained, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(trained[0], tmp_path / "runs/derain-debug")


CONTRADICTIONS = {
    "trainer.lr=0.5": ["trainer.lr was 0.002 and is now 0.5"],
    "seed=4": ["seed was 0 and is now 4"],
    "bridge.T=50": ["bridge.T was 100 and is now 50"],
    "trainer.batch_size=4": ["trainer.batch_size was 2 and is now 4"],
    "loss.weight=v": ["loss.weight was 'x0' and is now 'v'"],
}


@pytest.mark.parametrize("words", CONTRADICTIONS)
def test_a_run_that_contradicts(command, trained, run, words):
    assert_one_sentence(
        command("train", *trained[1], words, "overwrite=false"),
        run,
        "name=",
        *CONTRADICTIONS[words],
    )


def test_a_backbone_with_other_weights_contradicts(command, trained, run, tmp_path):
    other = small_unet()
    other.conv_out.bias.data += 1
    folder = save_backbone(tmp_path / "other", other, DDPMScheduler(prediction_type="v_prediction"))
    result = command("train", *trained[1], f"backbone.pretrained={folder}", "overwrite=false")
    assert_one_sentence(result, run, "backbone")


def test_a_corrupt_record_of_the_run(command, trained, run):
    (run / "run.json").write_text("{")
    assert_one_sentence(command("train", *trained[1]), "run.json")


@pytest.mark.parametrize("word", ["run=", "run=.", "run=..", "run=~"])
def test_a_folder_that_is_not_the_runs_own(command, tmp_path, word):
    word = word.replace("~", os.path.expanduser("~"))
    (tmp_path / "thesis").mkdir()
    for seed in (0, 1):
        result = command("train", "debug=default", f"seed={seed}", word)
        assert_one_sentence(result, "run=", "folder of its own")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis"]


def test_a_folder_of_something_else(command, trained, tmp_path):
    (tmp_path / "runs/derain-debug/results").mkdir(parents=True)
    (tmp_path / "runs/derain-debug/results/thesis.tex").write_text("x")
    for _ in range(2):
        assert_one_sentence(command("train", *trained[1]), "derain-debug", "holds results")
    assert (tmp_path / "runs/derain-debug/results/thesis.tex").exists()


def test_overwriting_leaves_what_is_not_the_runs(command, trained, run):
    (run / "notes").mkdir()
    (run / "notes/a.txt").write_text("mine")
    (run / "results/row").mkdir(parents=True, exist_ok=True)
    (run / "results/row/old.png").write_text("")
    (run / "results/mine.png").write_text("mine")
    status, _, err = command("train", *trained[1], "seed=1")
    assert status == 0, err
    assert (run / "notes/a.txt").read_text() == (run / "results/mine.png").read_text() == "mine"
    assert not (run / "results/row/old.png").exists()


def test_a_run_that_is_a_file(command, trained, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/derain-debug").write_text("")
    assert_one_sentence(command("train", *trained[1]), "derain-debug")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


SPOILT = {
    "config.json is missing": (lambda r: (r / "config.json").unlink(), ["config.json", "missing"]),
    "config.json is cut short": (lambda r: (r / "config.json").write_text("{"), ["config.json"]),
    "config.json is a list": (lambda r: (r / "config.json").write_text("[]"), ["config.json"]),
    "config.json lacks a key": (
        lambda r: (r / "config.json").write_text('{"method": "irbridge"}'),
        ["config.json", "lacks"],
    ),
    "config.json has another method": (
        lambda r: edit(r / "config.json", method="magic"),
        ["magic", "regression"],
    ),
    "config.json has another bridge": (
        lambda r: edit(r / "config.json", bridge={"_target_": "irbridge.bridges.No"}),
        ["No"],
    ),
    "weights are missing": (
        lambda r: (r / "model.safetensors").unlink(),
        ["model.safetensors", "missing"],
    ),
    "weights are nonsense": (
        lambda r: (r / "model.safetensors").write_text("x"),
        ["model.safetensors"],
    ),
    "weights are cut short": (
        lambda r: os.truncate(r / "model.safetensors", 500),
        ["model.safetensors"],
    ),
    "weights are of another adapter": (
        lambda r: edit(
            r / "config.json",
            adapter={"_target_": "irbridge.adapters.static.StaticAdapter", "channels": [8, 16]},
        ),
        ["does not fit", "trunk"],
    ),
    "the backbone is gone": (
        lambda r: edit(r / "config.json", backbone={"pretrained": "nowhere"}),
        ["nowhere", "hub"],
    ),
    "the backbone differs": (
        lambda r: edit(r / "config.json", backbone={"pretrained": None, "digest": "0" * 64}),
        ["other weights", "backbone.pretrained"],
    ),
    "run.json is missing": (lambda r: (r / "run.json").unlink(), ["run.json"]),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_evaluate_a_spoilt_run(command, run, fault):
    change, words = SPOILT[fault]
    change(run)
    assert_one_sentence(command("evaluate", f"run={run}", "size=32", "limit=1"), *words)


EVALUATE = {
    "": ["run", "run="],
    "run=missing": ["missing"],
    "run=RUN sampler.steps=-1": ["sampler.steps=-1"],
    "run=RUN sampler.steps=few": ["sampler.steps"],
    "run=RUN sampler.rule=foo": ["sampler.rule", "foo", "reverse"],
    "run=RUN size=0": ["size=0"],
    "run=RUN limit=0": ["limit=0"],
    "run=RUN device=tpu": ["device", "tpu"],
    "run=RUN protocol.space=yuv": ["protocol.space", "yuv"],
    "run=RUN protocol.crop=-1": ["protocol.crop=-1"],
    "run=RUN data.clean=nowhere data.degraded=nowhere": ["nowhere"],
    "run=RUN data.clean=nowhere": ["data.degraded"],
    "run=RUN sampler.nfe=-1": ["sampler.nfe=-1"],
    "run=RUN sampler.spacing=foo": ["sampler.spacing='foo'"],
    "run=RUN sampler.boot=2": ["sampler.boot=2"],
    "run=RUN sampler=heun sampler.boot=0": ["sampler.rule=heun", "sampler.boot"],
    "run=RUN sampler.eta=-1": ["sampler.eta=-1"],
    "run=RUN seed=-1": ["seed=-1"],
    "run=FILE": ["file.txt"],
}


@pytest.mark.parametrize("words", EVALUATE)
def test_evaluate(command, trained, tmp_path, words):
    (tmp_path / "file.txt").write_text("")
    words_given = (
        words.replace("RUN", str(trained[0])).replace("FILE", str(tmp_path / "file.txt")).split()
    )
    assert_one_sentence(command("evaluate", *words_given), *EVALUATE[words])


PRETRAIN = {
    "data.train=[nowhere]": ["nowhere"],
    "data.train=[]": ["data.train"],
    "trainer.crop=30": ["trainer.crop=30", "8"],
    "start=nowhere": ["nowhere"],
    "trainer.steps=0": ["trainer.steps=0"],
    "levels.median=0": ["levels.median=0"],
    "levels.wide=2": ["levels.wide=2"],
    "scheduler.beta_schedule=foo": ["foo", "linear"],
    "unet.block_out_channels=[30,64,96,128]": ["unet"],
    "unet.nothing=1": ["unet.nothing"],
}


@pytest.mark.parametrize("words", PRETRAIN)
def test_pretrain(command, words):
    assert_one_sentence(command("pretrain", *words.split()), *PRETRAIN[words])


PRIOR = {
    "images=nowhere": ["nowhere"],
    "stds=[0]": ["stds"],
    "stds=[]": ["stds"],
    "backbone.pretrained=nowhere": ["nowhere"],
}


@pytest.mark.parametrize("words", PRIOR)
def test_evaluate_prior(command, words):
    assert_one_sentence(command("evaluate_prior", *words.split()), *PRIOR[words])


def test_a_fault_has_status_1(command, small, monkeypatch):
    def fails(tensors, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "save_file", fails)
    result = command(
        "train", *small, "debug=default", "recipe=regression", "evaluate.enabled=false"
    )
    assert_one_sentence(result, "could not be written", "No space left", status=1, bar=True)


def test_the_traceback_is_there_on_request(command, small, monkeypatch):
    monkeypatch.setenv("IRBRIDGE_DEBUG", "1")
    with pytest.raises(Exception, match="must be of type float"):
        command("train", *small, "trainer.lr=fast")


@pytest.mark.parametrize(
    "script, words", [("train", ["task=derian"]), ("pretrain", ["trainer.steps=0"])]
)
def test_as_a_real_command(script, words, tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / f"scripts/{script}.py"), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("Error: ") and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
