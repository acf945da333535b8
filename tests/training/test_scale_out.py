"""Several processes, on one machine or on two, train as one does; jobs of a sweep go on."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
import torch
from conftest import ROOT
from forked import Forked
from runs_alike import QUICK, assert_same, state_of

from irbridge.training.checkpoint import Checkpoints

SCRIPT = """
import atexit, os, sys
from pathlib import Path
import accelerate
from irbridge import cli
from irbridge.errors import UserError
from irbridge.evaluation.share import check_shared

out, *words = sys.argv[1:]
place = f"{os.environ['GROUP_RANK']}-{os.environ['RANK']}-{os.environ['WORLD_SIZE']}"

def threads():
    names = sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
    with open(Path(out, f"threads-{place}"), "a") as file:
        print(*names, file=file)

atexit.register(threads)
for more in (["name=parts", "trainer.stop=2"], ["name=parts"], ["name=whole"]):
    sys.argv[1:] = ["train", *words, *more]
    cli.main()
state = accelerate.PartialState()
share = state.process_index, state.num_processes
own = Path(out, f"disk-of-{state.process_index}")
own.mkdir()
check_shared(Path(out), share)
try:
    check_shared(own, share, seconds=0.2)
except UserError as error:
    threads()
    place = f"{os.environ['GROUP_RANK']}-{state.process_index}-{state.num_processes}"
    Path(out, f"process-{place}").write_text(str(error))
"""


def torchrun(folder, *words):
    """Start processes of a script as torchrun does, on one machine or on one of several."""
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *map(str, words)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def ended(processes):
    """Wait for processes, and end those that are left where one takes too long."""
    try:
        told = [process.communicate(timeout=500)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, text in zip(processes, told, strict=True):
        assert process.returncode == 0, text[-3000:]


@pytest.fixture
def training(small):
    """The words of a training of a few thousand weights, with four images a step."""
    return [*small, *QUICK, "trainer.batch_size=4", "trainer.steps=4", "trainer.save_every=1"]


@pytest.mark.slow
def test_one_process_two_and_two_machines_train_alike(command, training, tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)

    def words(name):
        out = tmp_path / name
        out.mkdir()
        return [tmp_path / "train.py", out, *training, f"run_root={out}"]

    nodes, port = words("nodes"), free_port()
    ended([torchrun(tmp_path, "--standalone", "--nproc_per_node=2", *words("two"))])
    meet = ["--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={port}"]
    ended([torchrun(tmp_path, *meet, f"--node_rank={rank}", *nodes) for rank in (0, 1)])
    status, _, err = command("train", *training, "name=whole")
    assert status == 0, err

    # there were two processes, on as many machines as were asked for
    told = {p.name: p.read_text() for p in tmp_path.glob("*/process-*")}
    assert told.keys() == {"process-0-0-2", "process-0-1-2", "process-1-1-2"}
    # each of which had a disk of its own for a moment, and said so
    assert all("is another folder for process 1" in text for text in told.values())
    assert not [*tmp_path.rglob("*.tmp")]
    # and ended without threads that serve the group, which may abort Python at its end
    for path in tmp_path.glob("*/threads-*"):
        before, after = path.read_text().splitlines()
        assert "gloo" in before and "gloo" not in after

    # where the processes are changes no bit, nor does a stop of all of them
    two = tmp_path / "two/derain-whole"
    for other in ("two/derain-parts", "nodes/derain-whole", "nodes/derain-parts"):
        assert_same(two, tmp_path / other)

    # one process adds the same gradients up in another order
    one = tmp_path / "runs/derain-whole"
    lines = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (one, two)
    ]
    for a, b in zip(*lines, strict=True):
        assert (a["step"], a["images"], a["lr"]) == (b["step"], b["images"], b["lr"])
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
    a, b = state_of(one), state_of(two)
    apart = torch.cat([(a[k] - b[k]).abs().flatten() for k in a if k.startswith("model")])
    # Adam divides by the gradient's size, so that a weight whose gradient is rounding alone may go
    # anywhere within the rates of the steps
    assert apart.quantile(0.9) < 1e-6 and apart.max() < 1e-4
    averages = [k for k in a if k.endswith("exp_avg")]
    assert all((a[k] - b[k]).abs().max() <= 1e-5 * a[k].abs().max() for k in averages)


def signalled(sweep, runs):
    """Take the machines of a sweep's jobs away, as a cluster does, once all of them train."""
    until = time.monotonic() + 400
    logs = [run / "metrics.jsonl" for run in runs]
    while not all(log.exists() and log.read_text().count("\n") > 2 for log in logs):
        assert sweep.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    jobs = [
        process
        for process in psutil.Process(sweep.pid).children(recursive=True)
        if "submitit.core._submit" in process.cmdline()
    ]
    for job in jobs:
        job.send_signal(signal.SIGUSR2)
    return len(jobs)


@pytest.mark.slow
def test_a_sweep_by_submitit_goes_on_after_preemption(command, training, tmp_path):
    reason = 'submitit\'s launcher is not installed; pip install -e ".[sweep]"'
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason=reason)
    words = [*training, "trainer.steps=40", "trainer.log_every=1", "name=r${seed}"]
    sweep = Forked(
        *(ROOT / "scripts/train.py", "-m", *words, "seed=0,1"),
        *("hydra/launcher=submitit_local", f"run_root={tmp_path / 'sweep'}"),
        cwd=tmp_path,
    )
    try:
        runs = [tmp_path / f"sweep/derain-r{seed}" for seed in (0, 1)]
        assert signalled(sweep, runs) > 0
        told = "".join(sweep.communicate(500))
        assert sweep.returncode == 0, told[-3000:]
    finally:
        sweep.send_signal(signal.SIGTERM)
    logs = [path.read_text() for path in (tmp_path / "sweep/.submitit").rglob("*_log.*")]
    assert any("Requeued job" in text for text in logs)
    for seed, run in enumerate(runs):
        assert command("train", *words, f"seed={seed}")[0] == 0
        assert_same(run, tmp_path / f"runs/derain-r{seed}")


@pytest.mark.slow
@pytest.mark.parametrize("everywhere", [False, True])
def test_a_stop_of_torchrun_saves(training, tmp_path, everywhere):
    run, endless = tmp_path / "derain-r", ["trainer.steps=100000", "trainer.save_every=100000"]
    words = [*training, *endless, "trainer.save_seconds=1e9", "name=r", f"run_root={tmp_path}"]
    words += ["trainer.workers=2"] if everywhere else []
    process = torchrun(
        tmp_path, "--standalone", "--nproc_per_node=2", "-m", "irbridge", "train", *words
    )
    log, until = run / "metrics.jsonl", time.monotonic() + 400
    try:
        while not (log.exists() and log.read_text().count("\n") > 2):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        if everywhere:  # as clusters send it: to the processes and the workers of their loaders
            ranks = psutil.Process(process.pid).children()
            workers = [worker for rank in ranks for worker in rank.children()]
            assert len(ranks) == 2 and len(workers) == 4
            for one in workers + ranks:
                one.send_signal(signal.SIGTERM)
        else:
            process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=100)
    finally:
        process.kill()
    assert "Stopped and saved" in told, told[-3000:]
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert int(Checkpoints(run).latest().name[5:]) == steps[-1] > 2


def test_the_computed_times_of_the_page():
    """Bytes and seconds of its table follow from the weights, the processes and the links."""
    lines = (ROOT / "docs/scale.md").read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("| trained | million"))
    rows = [line.strip("| ").split(" | ")[1:] for line in lines[start + 2 : start + 5]]
    assert len(rows) == 3
    for millions, megabytes, *milliseconds in ([float(cell) for cell in row] for row in rows):
        assert megabytes == pytest.approx(4 * millions, abs=0.05)
        for told, processes, gigabytes in zip(
            milliseconds, (8, 16, 16), (450, 12.5, 1.25), strict=True
        ):
            seconds = 2 * (processes - 1) / processes * 4e6 * millions / (1e9 * gigabytes)
            assert told == pytest.approx(1000 * seconds, rel=0.02, abs=0.005)
    text = " ".join(lines)
    for told, megabits in ((15.6, 100), (12.9, 10)):
        added = 2 * 15 / 16 * 4e6 * 3.42 / (megabits / 8 * 1e9) * 1000
        assert 84 / (84 + added) * 16 == pytest.approx(told, abs=0.06) and str(told) in text
    # numbers of noise of an image, at 4 ns each
    most = 1 / (3 * 128 * 128 * 4e-9)
    assert f"= {round(most, -1):,.0f} images a second" in text
    assert f"That is {most / 760:.1f} of the GPUs" in text
    latents = 1 / (4 * 64 * 64 * 4e-9)
    assert f"it is {round(latents, -3):,.0f} images of 512 px" in text
