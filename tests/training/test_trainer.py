"""Training that may stop at any moment: resuming is exact, and what can fail says so and harms
nothing."""

import errno
import json
import os
import resource
import signal
import time
from itertools import pairwise

import pytest
import torch
from conftest import ROOT, small_unet, trainer_options
from forked import Forked
from safetensors.torch import load_file

from irbridge import weights
from irbridge.adapters.static import StaticAdapter
from irbridge.adapters.trunk import Trunk
from irbridge.backbones.pixel import PixelBackbone
from irbridge.bridges.ornstein_uhlenbeck import GOUB
from irbridge.data.crops import CropStream
from irbridge.data.degradations import Noise
from irbridge.data.image_source import ImageSource
from irbridge.errors import UserError
from irbridge.gaussian.noise import StepNoises, step_noise
from irbridge.models.irbridge import IRBridge
from irbridge.models.loss_options import LossOptions
from irbridge.models.regression import Regression
from irbridge.models.timestep_schedule import critical
from irbridge.priors.vp import VP, vp_alphas_cumprod
from irbridge.training.checkpoint import Checkpoints
from irbridge.training.optimizer import averaged, learning_rate
from irbridge.training.signals import stop_signals, stops
from irbridge.training.trainer import Trainer
from irbridge.weights import load_weights


def bridge_model(states="visited"):
    torch.manual_seed(0)
    backbone = PixelBackbone(small_unet(), VP(vp_alphas_cumprod({}), "v_prediction"))
    return IRBridge(
        backbone,
        StaticAdapter(backbone, [8, 8]),
        GOUB(),
        critical(100),
        "anchor",
        {"steps": 2},
        LossOptions(states=states, anchor_first=0.6),
    )


def regression():
    torch.manual_seed(0)
    return Regression(Trunk([8, 8]))


@pytest.fixture
def stream(images):
    return CropStream(ImageSource(images), 16, 0, Noise())


def state_of(run):
    """Every tensor of the newest checkpoint, and its step."""
    folder = Checkpoints(run).latest()
    tensors = {
        f"{p.name}/{k}": v for p in folder.glob("*.safetensors") for k, v in load_file(p).items()
    }
    return tensors, json.loads((folder / "state.json").read_text())["step"]


def assert_same(run, other):
    (a, at), (b, at_other) = state_of(run), state_of(other)
    assert at == at_other and a.keys() == b.keys()
    assert {name.split("/")[0] for name in a} == {
        "model.safetensors",
        "ema.safetensors",
        "optimizer.safetensors",
    }
    assert [k for k in a if not torch.equal(a[k], b[k])] == []


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("make, workers", [(bridge_model, (0, 2)), (regression, (2, 0))])
def test_17_and_23_steps_are_40(tmp_path, stream, make, workers):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert Trainer(make(), stream, trainer_options(steps=40), 3, whole).run()
    assert not Trainer(
        make(), stream, trainer_options(steps=40, stop=17, workers=workers[0]), 3, parts
    ).run()
    assert state_of(parts)[1] == 17
    torch.manual_seed(77)  # what ran before must not matter
    assert Trainer(make(), stream, trainer_options(steps=40, workers=workers[1]), 3, parts).run()
    assert_same(whole, parts)
    assert [(m["step"], m["loss"], m["lr"]) for m in lines(whole)] == [
        (m["step"], m["loss"], m["lr"]) for m in lines(parts)
    ]
    assert [m["step"] for m in lines(parts)] == list(range(1, 41))
    assert len(list((parts / "checkpoints").iterdir())) == 1


def test_a_finished_run_stays_as_it_is(tmp_path, stream):
    for _ in range(2):
        assert Trainer(regression(), stream, trainer_options(), 0, tmp_path).run()
    assert [m["step"] for m in lines(tmp_path)] == list(range(1, 7))


def test_the_trained_module_ends_with_its_average(tmp_path, stream):
    model = regression()
    Trainer(model, stream, trainer_options(), 0, tmp_path).run()
    tensors, _ = state_of(tmp_path)
    own = model.trainable().state_dict()
    assert all(torch.equal(v, tensors[f"ema.safetensors/module.{k}"]) for k, v in own.items())
    assert any(not torch.equal(v, tensors[f"model.safetensors/{k}"]) for k, v in own.items())


def test_the_average_is_exponential_and_starts_fast(tmp_path, stream):
    model, weights = regression(), []
    Trainer(
        model,
        stream,
        trainer_options(steps=6, ema_decay=0.3),
        0,
        tmp_path,
        log=lambda m: weights.append(model.trainable().unet.conv_out.weight.clone()),
    ).run()
    average, *rest = weights
    for n, weight in enumerate(rest, start=1):
        decay = min(0.3, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * weight
    assert torch.allclose(model.trainable().unet.conv_out.weight, average, atol=1e-7)


def test_training_learns(tmp_path, stream):
    Trainer(
        regression(), stream, trainer_options(steps=40, lr=3e-3, batch_size=4), 0, tmp_path
    ).run()
    losses = [m["loss"] for m in lines(tmp_path)]
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])


@pytest.mark.parametrize("make", [regression, lambda: bridge_model("prior")])
def test_accumulation_changes_nothing(tmp_path, stream, make):
    for k in (1, 2, 4):
        Trainer(
            make(),
            stream,
            trainer_options(steps=3, batch_size=4, accumulate=k),
            0,
            tmp_path / str(k),
        ).run()
    one, *others = (state_of(tmp_path / str(k))[0] for k in (1, 2, 4))
    for other in others:
        # Adam divides by the gradient's size, so a weight whose gradient is rounding alone may go
        # anywhere within lr.
        moved = torch.cat(
            [(one[k] - other[k]).abs().flatten() for k in one if k.startswith("model")]
        )
        assert moved.quantile(0.99) < 1e-4 and moved.max() < 3e-3
        seconds = [k for k in one if k.endswith("exp_avg")]
        assert all(torch.allclose(one[k], other[k], rtol=1e-3, atol=1e-6) for k in seconds)


def test_batch_must_divide(tmp_path, stream):
    with pytest.raises(UserError, match="trainer.batch_size=3 .* = 2"):
        Trainer(
            regression(), stream, trainer_options(batch_size=3, accumulate=2), 0, tmp_path
        ).run()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(tmp_path, stream, number):
    before = signal.getsignal(number)
    assert not Trainer(
        regression(),
        stream,
        trainer_options(steps=12),
        0,
        tmp_path,
        log=lambda m: os.kill(os.getpid(), number) if m["step"] == 4 else None,
    ).run()
    assert state_of(tmp_path)[1] == 4 and signal.getsignal(number) == before
    assert Trainer(regression(), stream, trainer_options(steps=12), 0, tmp_path).run()
    Trainer(regression(), stream, trainer_options(steps=12), 0, tmp_path / "whole").run()
    assert_same(tmp_path, tmp_path / "whole")


class Explodes(CropStream):
    def __getitem__(self, draw):
        pair = super().__getitem__(draw)
        return pair | {"clean": pair["clean"] * float("nan")} if draw >= 10 else pair


def test_a_loss_that_is_not_finite_names_the_step(tmp_path, images):
    bad = Explodes(ImageSource(images), 16, 0, Noise())
    with pytest.raises(RuntimeError, match="nan at step 5.*step 4"):
        Trainer(regression(), bad, trainer_options(save_every=2), 0, tmp_path).run()
    tensors, step = state_of(tmp_path)
    assert step == 4 and all(v.isfinite().all() for v in tensors.values())
    Trainer(
        regression(),
        CropStream(ImageSource(images), 16, 0, Noise()),
        trainer_options(save_every=2),
        0,
        tmp_path,
    ).run()
    Trainer(
        regression(),
        CropStream(ImageSource(images), 16, 0, Noise()),
        trainer_options(),
        0,
        tmp_path / "whole",
    ).run()
    assert_same(tmp_path, tmp_path / "whole")


def full_disk(monkeypatch, after):
    written, save_file = [], weights.save_file

    def fails(tensors, path):
        written.append(path)
        if len(written) > after:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr(weights, "save_file", fails)


@pytest.mark.parametrize("files", [0, 1, 2])
def test_a_full_disk_keeps_the_old_checkpoint(tmp_path, stream, monkeypatch, files):
    with monkeypatch.context() as patched:
        full_disk(patched, after=3 + files)
        with pytest.raises(RuntimeError, match="step 4 .*No space left"):
            Trainer(regression(), stream, trainer_options(save_every=2), 0, tmp_path).run()
    assert state_of(tmp_path)[1] == 2 and len(list((tmp_path / "checkpoints").iterdir())) == 1
    assert Trainer(regression(), stream, trainer_options(save_every=2), 0, tmp_path).run()
    Trainer(regression(), stream, trainer_options(), 0, tmp_path / "whole").run()
    assert_same(tmp_path, tmp_path / "whole")


def test_a_write_that_the_system_cuts_short(tmp_path, stream):
    """The real thing: the system refuses bytes while safetensors, which has errors of its own, is
    writing."""
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(
            RuntimeError, match="could not be written.*previous checkpoint is intact"
        ):
            Trainer(regression(), stream, trainer_options(steps=1), 0, tmp_path).run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert not Checkpoints(tmp_path).latest() and not list((tmp_path / "checkpoints").iterdir())


def test_half_a_line_of_metrics_is_dropped(tmp_path, stream):
    Trainer(regression(), stream, trainer_options(stop=3), 0, tmp_path).run()
    with open(tmp_path / "metrics.jsonl", "a") as handle:
        handle.write(json.dumps({"step": 4, "loss": 1.0}) + '\n{"step": 5, "lo')
    Trainer(regression(), stream, trainer_options(), 0, tmp_path).run()
    assert [m["step"] for m in lines(tmp_path)] == list(range(1, 7))


def test_leftovers_of_a_kill_are_no_checkpoint(tmp_path, stream):
    Trainer(regression(), stream, trainer_options(stop=2), 0, tmp_path).run()
    (tmp_path / "checkpoints/.tmp-12345").mkdir()
    (tmp_path / "checkpoints/.tmp-12345/model.safetensors").write_bytes(b"half")
    assert state_of(tmp_path)[1] == 2
    assert Trainer(regression(), stream, trainer_options(), 0, tmp_path).run()


@pytest.mark.parametrize(
    "file", ["model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"]
)
def test_a_corrupt_checkpoint_is_named(tmp_path, stream, file):
    Trainer(regression(), stream, trainer_options(stop=2), 0, tmp_path).run()
    path = Checkpoints(tmp_path).latest() / file
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UserError, match=f"{file} is not .*readable"):
        Trainer(regression(), stream, trainer_options(), 0, tmp_path).run()


@pytest.mark.parametrize("value", ["x", None, [], float("nan"), 1e300, True], ids=repr)
@pytest.mark.parametrize("key", ["seconds", "cpu_seconds"])
def test_a_checkpoint_whose_counters_are_no_numbers_is_named(tmp_path, stream, key, value):
    Trainer(regression(), stream, trainer_options(stop=2), 0, tmp_path).run()
    path = Checkpoints(tmp_path).latest() / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UserError, match=f"state.json says {key}=.*delete the damaged checkpoint"):
        Trainer(regression(), stream, trainer_options(), 0, tmp_path).run()


def test_a_checkpoint_of_another_model_is_refused(tmp_path, stream):
    Trainer(regression(), stream, trainer_options(stop=2), 0, tmp_path).run()
    torch.manual_seed(0)
    with pytest.raises(UserError, match="does not fit the configured model"):
        Trainer(Regression(Trunk([8, 16])), stream, trainer_options(), 0, tmp_path).run()


def test_load_weights_names_missing_files(tmp_path):
    with pytest.raises(UserError, match="nothing.safetensors is missing"):
        load_weights(tmp_path / "nothing.safetensors")


def test_samples_and_saves_see_the_average(tmp_path, stream):
    seen, saved = [], []
    model = regression()
    Trainer(
        model,
        stream,
        trainer_options(steps=4, sample_every=2, save_every=2),
        0,
        tmp_path,
        lambda current, step: seen.append((step, current.trainable().unet.conv_out.weight.clone())),
        lambda weights: saved.append(weights["unet.conv_out.weight"].clone()),
    ).run()
    assert [s for s, _ in seen] == [2, 4] and len(saved) == 2
    assert all(torch.equal(a, b) for (_, a), b in zip(seen, saved))


def test_averaged_puts_the_weights_back_after_an_error():
    module = torch.nn.Linear(2, 2)
    ema = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(2, 2))
    before = module.weight.clone()
    with pytest.raises(ValueError), averaged(module, ema):
        assert not torch.equal(module.weight, before)
        raise ValueError
    assert torch.equal(module.weight, before)


def test_learning_rate():
    rates = [learning_rate(s, 1.0, 100, 10, "cosine") for s in range(101)]
    assert (
        rates[0] == pytest.approx(0.1, abs=0.01)
        and max(rates) < 1
        and rates[100] == pytest.approx(0.01)
    )
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert (
        learning_rate(50, 0.5, 100, 10, "constant") == 0.5
        and learning_rate(0, 1.0, 1, 0, "constant") == 1.0
    )
    flat = [learning_rate(s, 1.0, 300, 0, "cosine", 1 / 3) for s in range(301)]
    assert flat[:101] == [1.0] * 101 and flat[300] == pytest.approx(0.01)
    assert flat[200] == pytest.approx(0.505) and all(a > b for a, b in pairwise(flat[100:]))
    assert learning_rate(300, 1.0, 300, 0, "cosine", 1 / 3, last=0.25) == pytest.approx(0.25)
    assert learning_rate(9, 1.0, float("inf"), 0, "cosine", 0.5) == 1.0
    with pytest.raises(UserError, match="cosine or constant"):
        learning_rate(0, 1.0, 10, 1, "step")


def test_noise_of_a_step_is_a_function_of_seed_and_step():
    noise, uniform = step_noise(1, 2, (3, 3, 4, 4))
    assert torch.equal(noise, step_noise(1, 2, (3, 3, 4, 4))[0]) and uniform.shape == (3,)
    assert not torch.equal(noise, step_noise(1, 3, (3, 3, 4, 4))[0])
    assert not torch.equal(noise, step_noise(2, 2, (3, 3, 4, 4))[0])


@pytest.mark.parametrize("ahead", [False, True])
def test_noise_drawn_ahead_is_the_noise_of_its_step(ahead):
    noises, shape = StepNoises(1, ahead), (3, 3, 4, 4)
    for step in (0, 1, 1, 2, 7, 3):
        noise, uniform = noises(step, shape)
        expected = step_noise(1, step, shape)
        assert torch.equal(noise, expected[0]) and torch.equal(uniform, expected[1])
    assert noises(3, shape)[0] is noise  # drawn once for all passes of a step
    assert noises(3, (1, 3, 4, 4))[0].shape == (1, 3, 4, 4)


@pytest.mark.slow
def test_kill_and_term_of_the_command(tmp_path, small, command):
    """One command killed with SIGKILL, the same again ended with SIGTERM, the same again: as if
    never stopped."""
    words = [
        *small,
        "recipe=regression",
        "name=r",
        "evaluate.enabled=false",
        "trainer.steps=60",
        "trainer.batch_size=2",
        "trainer.crop=16",
        "trainer.log_every=1",
        "trainer.save_every=5",
        "trainer.sample_every=1000",
        "trainer.precision=no",
    ]
    run = tmp_path / "killed/derain-r"

    def start():
        return Forked(ROOT / "scripts/train.py", *words, f"run_root={run.parent}")

    def wait_for(process, step):
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            latest = Checkpoints(run).latest()
            if latest and int(latest.name.split("-")[1]) >= step:
                return
            time.sleep(0.02)
        raise AssertionError(process.communicate()[1])

    first = start()
    wait_for(first, 5)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    at = state_of(run)[1]
    second = start()
    wait_for(second, at + 10)
    second.send_signal(signal.SIGTERM)
    out, err = second.communicate()
    assert second.returncode == 0 and "Stopped and saved" in out and "Traceback" not in err
    assert at < state_of(run)[1] < 60
    assert command("train", *words)[0] == 0
    whole = tmp_path / "runs/derain-r"
    status, out, err = command("train", *words, f"run={run}")
    assert status == 0, err
    assert_same(run, whole)
    assert [m["step"] for m in lines(run)] == list(range(1, 61))


def test_processes_stop_together_whenever_a_signal_comes():
    class Accelerator:
        """Of two processes: the other one has no signal, and ours comes while they agree."""

        def reduce(self, own, how):
            told = own.clone()
            stops.append(signal.SIGTERM)
            return told

    process = object.__new__(Trainer)
    process.world, process.device, process.accelerator = 2, torch.device("cpu"), Accelerator()
    with stop_signals():
        assert not process.stopping()  # the other one goes on with this step, and so must this
        assert process.stopping()
