"""Races of two checkouts: what is measured of the restore command and of a training."""

import json
import shutil
import sys
import types
from pathlib import Path

import pytest
from conftest import ROOT

from irbridge.experiments.schema import BenchmarkOptions
from irbridge.profiling import race, stopwatch
from irbridge.profiling.race import table


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IRBRIDGE_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
def test_the_command_beside_another_checkout(command, tmp_path):
    """The other checkout is this one with a command line that waits for 1.5 seconds."""
    other = tmp_path / "other"
    for part in ("irbridge", "configs"):
        shutil.copytree(ROOT / part, other / part, ignore=shutil.ignore_patterns("__pycache__"))
    (other / "data").symlink_to(ROOT / "data")
    late = "def main() -> None:\n    import time; time.sleep(1.5)"
    cli = (other / "irbridge/cli.py").read_text()
    (other / "irbridge/cli.py").write_text(cli.replace("def main() -> None:", late, 1))
    status, out, err = command(
        "profile_speed",
        "benchmark.restore=derain",
        "benchmark.sizes=[24]",
        "benchmark.calls=1",
        "benchmark.runs=1",
        f"benchmark.against={other}",
        f"output={tmp_path / 'numbers.json'}",
    )
    assert status == 0, err
    rows = {
        line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]]
        for line in out.splitlines()
        if "|" in line
    }
    assert rows[""] == [
        f"{size} px, {name}" for size in (24,) for name in ("here", "there", "ratio")
    ]
    found = json.loads((tmp_path / "numbers.json").read_text())["found"]
    for here, there in ((found[size]["here"], found[size]["there"]) for size in ("24",)):
        for lap in (here, there):
            assert (
                0 < lap["start"] < lap["whole"]
                and lap["adapter"] > 0 < lap["prior"]
                and lap["peak"] > 0.1
            )
            assert (
                lap["decode"] > 0 < lap["encode"]
                and lap["precision"] in ("float32", "bf16")
                and lap["tile"] is None
            )
            assert lap["start"] + lap["adapter"] + lap["prior"] < lap["whole"] + 0.2
        assert there["start"] > 1.5 and there["whole"] > there["start"]
    assert rows["tile"][:2] == ["whole", "whole"]


@pytest.mark.parametrize(
    "words, said",
    [
        (["benchmark.against=nowhere"], ["benchmark.against=nowhere", "no checkout"]),
        (["benchmark.restore=derian"], ["failed", "derian"]),
        (["benchmark.sizes=[0]"], ["benchmark.sizes"]),
        (["benchmark.runs=0"], ["benchmark.runs=0"]),
    ],
)
def test_mistakes_are_one_sentence(command, words, said):
    status, _, err = command(
        "profile_speed",
        "benchmark.restore=derain",
        "benchmark.sizes=[24]",
        "benchmark.runs=1",
        *words,
    )
    last = err.strip().splitlines()[-1]
    assert status == 2 and last.startswith("Error: ") and all(word in last for word in said), err


def test_runs_alternate_and_the_first_is_not_counted(monkeypatch, tmp_path, capsys):
    turns, seconds = [], iter([9, 9, 3, 8, 2, 6])
    monkeypatch.setattr(
        race,
        "_run",
        lambda root, *rest: (
            turns.append(root)
            or {
                "whole": next(seconds),
                "start": 1.0,
                "peak": 1.0,
                "tile": [512, 512],
                "precision": "bf16",
            }
        ),
    )
    options = BenchmarkOptions(restore="derain", sizes=[16], runs=2, against=str(ROOT))
    race.race(options, None)
    assert turns == [ROOT, ROOT] * 3
    line = next(line for line in capsys.readouterr().out.splitlines() if "whole command" in line)
    assert line == "| whole command, s | 2.00 | 6.00 | 3.0 |"


@pytest.mark.parametrize("trunk, differ", [("nafnet", True), ("unet", False)])
def test_trainings_beside_an_older_checkout(command, tmp_path, monkeypatch, trunk, differ):
    """It gets the words that it knows; the heading names the others where they matter."""
    other, asked = tmp_path / "other", {}
    shutil.copytree(ROOT / "configs", other / "configs")
    (other / "irbridge").mkdir()
    (other / "irbridge/cli.py").touch()
    adapter = other / "configs/adapter/static.yaml"
    kept = [
        line
        for line in adapter.read_text().splitlines(True)
        if not line.startswith(("trunk:", "width:"))
    ]
    adapter.write_text("".join(kept))

    def ran(words, env, **options):
        asked[Path(words[1]).parents[1]] = words[2:-1], env["OMP_NUM_THREADS"]
        Path(words[-1].removeprefix("output=")).write_text(
            '{"training": {"laps": [{"rest": 1.0}]}}'
        )
        return types.SimpleNamespace(returncode=0)

    monkeypatch.setattr(race, "subprocess", types.SimpleNamespace(run=ran))
    monkeypatch.setattr("irbridge.commands.profile.set_threads", lambda requested: requested)
    own = ["adapter.width=16"] * differ
    status, out, err = command(
        "profile_speed",
        f"benchmark.against={other}",
        "threads=3",
        "trainer=ship",
        "trainer.precision=no",
        "loss.norm=l2",
        f"adapter.trunk={trunk}",
        *own,
        f"output={tmp_path / 'numbers.json'}",
    )
    assert status == 0, err
    (here, threads), (there, same) = asked[ROOT], asked[other]
    assert {"trainer=ship", "trainer.precision=no", "loss.norm=l2", "trainer.batch_size=16"} <= set(
        there
    )
    assert threads == same == "3"
    assert [word for word in here if word not in there] == [f"adapter.trunk={trunk}", *own]
    assert (
        ("does not know adapter.trunk=nafnet adapter.width=16, so the networks" in out)
        == differ
        == ("differ" in out)
    )
    assert "| ratio | 1.00 |" in out


def test_the_table_without_another_checkout():
    text = table(
        {
            512: {
                "here": {
                    "whole": 2.0,
                    "start": 1.0,
                    "peak": 1.2,
                    "tile": [256, 512],
                    "precision": "bf16",
                }
            }
        }
    )
    assert (
        "| tile | 256 x 512 |" in text
        and "ratio" not in text
        and "| frozen network, s | - |" in text
    )


def test_a_part_does_not_count_what_runs_inside_it(tmp_path, monkeypatch):
    """The frozen network asks the adapter for residuals, whose time is not the network's."""
    import time

    class Network:
        def predict(self):
            time.sleep(0.02)
            Adapter().residuals()

    class Adapter:
        def residuals(self):
            time.sleep(0.3)

    modules = {
        "adapters": types.ModuleType("irbridge.adapters"),
        "adapters.static": types.SimpleNamespace(StaticAdapter=Adapter),
        "backbones": types.ModuleType("irbridge.backbones"),
        "backbones.pixel": types.SimpleNamespace(PixelBackbone=Network),
        "restoration": types.ModuleType("irbridge.restoration"),
        "restoration.restore": types.SimpleNamespace(read_photo=print, write_photo=print),
    }
    cli = types.SimpleNamespace(import_module=lambda name: modules[name])
    cli.main = lambda: cli.import_module("restoration.restore") and Network().predict()
    modules["cli"] = cli
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, f"irbridge.{name}", module)
    monkeypatch.setattr(sys.modules["irbridge"], "cli", cli, raising=False)
    monkeypatch.setattr(sys, "argv", [])
    begun = time.time()
    stopwatch.main(begun, str(tmp_path / "clock.json"), [])
    found = json.loads((tmp_path / "clock.json").read_text())
    passed = time.time() - begun
    assert 0.02 <= found["prior"] < found["adapter"] and found["adapter"] >= 0.3
    assert (
        0 <= found["start"] and sum(found[key] for key in ("start", "prior", "adapter")) <= passed
    )
