"""Real commands, killed with SIGKILL at seeded random moments and started again until they finish.

``python tests/kill_commands.py KILLS SEED [COMMAND...]`` kills each command so often; a moment is a
change of a file, or a time. What is left in the end must be that of a run that nobody killed.
"""

import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from forked import Forked

ROOT = Path(__file__).resolve().parents[1]
TINY = [
    "task=derain",
    "recipe=regression",
    "trainer.batch_size=2",
    "trainer.crop=16",
    "trainer.steps=6",
    "trainer.save_every=2",
    "trainer.sample_every=3",
    "trainer.log_every=1",
    "trainer.device=cpu",
    "trainer.workers=0",
    "trainer.precision=no",
    "adapter.trunk=unet",
    "adapter.channels=[8,8]",
    "evaluate.limit=2",
    "evaluate.size=32",
    "evaluate.save_images=true",
]
ADAPTER = "run=data/adapters/derain"
COMMANDS = {
    "train": ["train", *TINY, "run=runs/a"],
    "evaluate": ["evaluate", ADAPTER, "method=ddim", "limit=3", "size=32", "results=results"]
    + ["save_images=true", "device=cpu"],
    "restore": ["restore", ADAPTER, "input=photos", "output=restored", "precision=float32"]
    + ["compare=true", "save_path=true", "device=cpu", "steps=1"],
    "table": ["table", "scored", "output=table.md"],
    "export": ["export", "run=trained", "output=adapter", "size=32"],
    "pretrain": [
        "pretrain",
        "trainer.steps=4",
        "trainer.save_every=2",
        "trainer.sample_every=2",
        "trainer.log_every=1",
        "trainer.batch_size=2",
        "trainer.crop=32",
        "trainer.device=cpu",
        "trainer.workers=0",
        "trainer.precision=no",
        "unet.block_out_channels=[8,8,8,8]",
        "run=runs/p",
    ],
}
CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}
LEFT = ".*tmp*", ".tmp*", ".lock"
# of a record or a log: they differ between two runs of one command
TIMES = {
    "seconds",
    "cpu_seconds",
    "images_per_second",
    "machine",
    "commit",
    "input",
    "output",
    "compare",
    "path",
    "run",
}


def child(count: int, folder: str, words: list[str]) -> None:
    """Run a command that kills itself at its count-th change of a file below the folder."""
    changes = itertools.count(1)

    def die_in_time(event, args):
        writes = event != "open" or (args[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        place = os.path.abspath(args[0]) if event in CHANGES and isinstance(args[0], str) else ""
        if writes and place.startswith(folder):
            number = next(changes)
            if number == count:
                os.kill(os.getpid(), signal.SIGKILL)
            if not count:
                Path(os.environ["COUNTED"]).write_text(str(number))

    os.chdir(folder)
    sys.argv = ["irbridge", *words]
    from irbridge.cli import main

    sys.addaudithook(die_in_time)
    main()


def run(folder: Path, words: list[str], count: int = 0, seconds: float = 300) -> int:
    """The status of a command that is killed at a change, where one is given, or after a time."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "IRBRIDGE_CACHE": str(folder.parent / f"cache-{folder.name}"),
        "COUNTED": str(folder.parent / "counted"),
    }
    done = Forked(__file__, "--child", count, folder, *words, env=env)
    _, said = done.communicate(seconds)
    assert done.returncode in (0, -signal.SIGKILL), said[-2000:]
    return done.returncode


def prepare(folder: Path, command: str) -> None:
    """Lay out what a command needs."""
    folder.mkdir(parents=True)
    photos = sorted((ROOT / "data/samples/test").glob("*.jpg"))[:2]
    if command == "restore":
        from PIL import Image

        (folder / "photos").mkdir()
        for index, photo in enumerate(photos):
            Image.open(photo).crop((0, 0, 40, 32)).save(folder / f"photos/{index}.png")
    if command == "table":
        (folder / "scored").mkdir()
        assert (
            run(
                folder,
                ["evaluate", ADAPTER, "method=identity", "limit=2", "size=32"] + ["results=scored"],
            )
            == 0
        )
    if command == "export":
        assert run(folder, ["train", *TINY, "evaluate.enabled=false", "run=trained"]) == 0


def state(folder: Path) -> dict[str, object]:
    """What a command has left: of every file its hash, of records what does not tell the time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or name.startswith(("scored", "trained", "photos")):
            continue
        if path.suffix in (".json", ".jsonl"):
            text = path.read_text()
            lines = text.splitlines() if path.suffix == ".jsonl" else [text]
            found[name] = [_timeless(json.loads(line)) for line in lines]
        elif path.suffix == ".md" and path.parent != folder:  # they tell times
            found[name] = len(path.read_text().splitlines())
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _timeless(value):
    if isinstance(value, list):
        return [_timeless(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _timeless(item) for key, item in value.items() if key not in TIMES}


def killed(folder: Path, command: str, kills: int, seed: int) -> int:
    """Kill a command so often, let it finish, and compare; returns how often it was killed."""
    words, draw = COMMANDS[command], random.Random(f"{command} {seed}")
    prepare(folder / "whole", command)
    shutil.copytree(folder / "whole", folder / "killed")
    for name in ("whole", "killed"):
        cache = folder / f"cache-{name}"
        shutil.rmtree(cache, ignore_errors=True)
    counted, started = folder / "counted", time.monotonic()
    counted.write_text("0")
    assert run(folder / "whole", words) == 0
    took, changes = time.monotonic() - started, int(counted.read_text())
    assert changes > 3, f"{command} changed {changes} files"
    struck = 0
    for _ in range(kills):
        if draw.random() < 0.25:
            status = run(folder / "killed", words, seconds=draw.uniform(0.3, 1) * took)
        else:
            count = draw.randint(1, max(3, 2 * changes // kills))
            status = run(folder / "killed", words, count)
        struck += status != 0
    assert run(folder / "killed", words) == 0
    whole, again = state(folder / "whole"), state(folder / "killed")
    differs = [name for name in whole.keys() | again.keys() if whole.get(name) != again.get(name)]
    assert not differs, f"{command}: {differs}"
    left = [path for pattern in LEFT for path in (folder / "killed").rglob(pattern)]
    assert not left, f"{command}: {left}"
    return struck


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        child(int(sys.argv[2]), sys.argv[3], sys.argv[4:])
    else:
        for name in sys.argv[3:] or COMMANDS:
            with tempfile.TemporaryDirectory() as place:
                times = killed(Path(place), name, int(sys.argv[1]), int(sys.argv[2]))
            print(f"{name}: killed {times} times, and then as if never killed", flush=True)
