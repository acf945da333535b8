"""The restore command: what it writes, skips, refuses and reports, through the real command and the
shipped adapter."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import defaultdict, namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import RNG, ROOT
from PIL import Image
from safetensors.torch import load_file, save_file

from irbridge import cli, environment
from irbridge.commands import restore as restore_command
from irbridge.commands.flags import parse
from irbridge.commands.options import RestoreOptions, SamplerOptions
from irbridge.environment import set_threads
from irbridge.errors import UserError
from irbridge.files import locked
from irbridge.gaussian.noise import image_seed
from irbridge.images.photo import Photo, read_photo, write_photo
from irbridge.images.png import png16
from irbridge.models.restorer import Restorer
from irbridge.restoration import memory
from irbridge.restoration import restore as restoring
from irbridge.restoration.jobs import passed_over, plan, sources


def photograph(path, size=(24, 20), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(RNG.integers(0, 256, (4, 5, len(mode)), dtype=np.uint8).squeeze())
    coarse.resize(size, Image.BICUBIC).save(path, **options)
    return path


def files(folder):
    """The records of a folder's one report, by the input's name."""
    (report,) = folder.glob("restored-*.json")
    return {os.path.basename(r["input"]): r for r in json.loads(report.read_text())["files"]}


def planned(*inputs, **changes):
    return plan([str(given) for given in inputs], "derain", **changes)


@pytest.fixture
def restore(command):
    return lambda *words: command("restore", "device=cpu", "precision=float32", "steps=1", *words)


def stand_in(monkeypatch, restored):
    """Have the command restore by ``restored(y, seeds)`` instead of a network."""

    class StandIn(Restorer):
        stride = 8

        def __init__(self):
            super().__init__()
            self.weight = restoring.torch.nn.Parameter(restoring.torch.zeros(1))

        def trainable(self):
            return self

        def passes(self, **options):
            return 1

        def trajectory(self, y, tiles=None, seeds=None, **options):
            yield SimpleNamespace(x0=restored(y, seeds))

    monkeypatch.setattr(
        restore_command, "from_pretrained", lambda folder, device, **options: StandIn()
    )


@pytest.fixture
def fast(monkeypatch):
    """A network that inverts the image at once, where the network is not what is tested."""
    calls = []

    def inverted(y, seeds):
        if seeds is not None:  # else its memory is measured, once on a machine
            calls.append(seeds)
        return -y

    stand_in(monkeypatch, inverted)
    return calls


def test_one_photograph(restore, tmp_path):
    photo = photograph(tmp_path / "in" / "my photo (1), [b].jpg", (37, 50))
    status, out, _ = restore("task=derain", f"input={photo}", "--compare", "--save-path", "steps=2")
    stem = "my photo (1), [b]-derain"
    assert status == 0 and f"{stem}.png" in out
    assert {p.name for p in photo.parent.iterdir() if p.name[0] != "."} == {
        photo.name,
        "restored-derain.json",
        f"{stem}.png",
        f"{stem}-compare.png",
        f"{stem}-path.png",
    }
    record = files(photo.parent)[photo.name]
    assert (
        record["status"] == "done" and record["size"] == [37, 50] and record["sampler"]["nfe"] == 2
    )
    assert (
        record["seed"] == 0
        and len(record["weights"]) == 64
        and record["seconds"] > 0
        and record["machine"]
    )
    sizes = [
        Image.open(photo.parent / f"{stem}{end}.png").size for end in ("", "-compare", "-path")
    ]
    assert sizes[0] == (37, 50) and all(w >= 2 * 37 and h >= 50 for w, h in sizes[1:])

    # the command is the API with the file's seed
    model = Restorer.from_pretrained(ROOT / "data/adapters/derain")
    wanted = model.restore(read_photo(photo).pixels, seeds=[image_seed(0, photo.stem)], steps=2)
    np.testing.assert_allclose(read_photo(record["output"]).pixels, wanted, atol=1.01 / 510)


def test_alone_in_a_folder_and_with_tiles_batched_the_bytes_are_the_same(restore, tmp_path):
    for k in (3, 1, 2):
        photograph(tmp_path / "in" / f"{k}.png", (40, 24))
    words = "task=derain", "tile=24", "overlap=8"
    assert restore(*words, f"input={tmp_path / 'in'}", f"output={tmp_path / 'all'}")[0] == 0
    assert (
        restore(
            *words, f"input={tmp_path / 'in' / '2.png'}", f"output={tmp_path / 'x.png'}", "batch=3"
        )[0]
        == 0
    )
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "all" / "2-derain.png").read_bytes()


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (700, 5)])
def test_any_size(restore, tmp_path, size):
    photo = photograph(tmp_path / "p.png", size)
    assert restore("task=derain", f"input={photo}")[0] == 0
    assert Image.open(tmp_path / "p-derain.png").size == size


def test_what_a_file_keeps(fast, restore, tmp_path):
    photograph(tmp_path / "grey.png", mode="L")
    photograph(tmp_path / "alpha.png", mode="RGBA")
    values = RNG.integers(0, 65536, (12, 9, 4), dtype=np.uint16)
    (tmp_path / "deep.png").write_bytes(png16(values))
    assert restore("task=derain", f"input={tmp_path}", "suffix=new", "compare=true")[0] == 0
    with Image.open(tmp_path / "grey.png") as given, Image.open(tmp_path / "grey-new.png") as out:
        assert (
            out.mode == "L"
            and np.abs(np.asarray(out).astype(int) + np.asarray(given) - 255).max() <= 1
        )
    with Image.open(tmp_path / "alpha.png") as given, Image.open(tmp_path / "alpha-new.png") as out:
        np.testing.assert_array_equal(np.asarray(out)[..., 3], np.asarray(given)[..., 3])
        seen = np.asarray(given)[..., 3] > 0
        sums = np.asarray(out)[..., :3].astype(int) + np.asarray(given)[..., :3]
        assert np.abs(sums - 255)[seen].max() <= 1
    deep = read_photo(tmp_path / "deep-new.png")
    assert deep.bits == 16 and (deep.alpha == values[..., 3]).all()
    np.testing.assert_allclose(deep.pixels, 1 - values[..., :3] / 65535, atol=2e-5)


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    """An image (H, W, C) of 8 bits by Pillow's bicubic filter, in [0, 1]."""
    size = image.shape[1] * factor, image.shape[0] * factor
    planes = (Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(image, 2, 0))
    large = np.dstack([plane.resize(size, Image.Resampling.BICUBIC) for plane in planes])
    return large.clip(0, 255) / 255


def test_photographs_are_made_larger_first_where_asked(fast, restore, tmp_path):
    photo = photograph(tmp_path / "a.png", (37, 21), "RGBA")
    small = np.asarray(Image.open(photo)).clip(1)  # no alpha of 0, which hides colours
    Image.fromarray(small).save(photo)
    words = "task=derain", f"input={photo}", "compare=true"
    status, _, error = restore(*words, "enlarge=3")
    assert status == 0, error
    large = np.asarray(Image.open(tmp_path / "a-derain.png"))
    assert large.shape == (63, 111, 4)
    # the network of the fixture inverts
    assert np.abs(1 - enlarged(small[..., :3], 3) - large[..., :3] / 255).max() < 0.6 / 255
    record = files(tmp_path)["a.png"]
    assert record["enlarge"] == 3 and record["size"] == [111, 63]
    # the same again is finished, and another factor is not
    calls = len(fast)
    assert restore(*words, "enlarge=3")[0] == 0 and len(fast) == calls
    assert restore(*words, "enlarge=2")[0] == 0 and len(fast) == calls + 1
    assert Image.open(tmp_path / "a-derain.png").size == (74, 42)
    assert restore(*words)[0] == 0 and files(tmp_path)["a.png"]["enlarge"] is None
    assert len(fast) == calls + 2


@pytest.mark.parametrize(
    "degradation, factor",
    [
        ({"_target_": "irbridge.data.degradations.Downsample", "scale": 2.0}, 2),
        ({"_target_": "irbridge.data.degradations.Downsample"}, 4),
        ({"_target_": "irbridge.data.degradations.Downsample", "scale": 2.5}, 1),
        ({"_target_": "irbridge.data.degradations.Noise"}, 1),
        (None, 1),
    ],
)
def test_a_model_of_super_resolution_enlarges(fast, restore, tmp_path, degradation, factor):
    run, photo = tmp_path / "run", photograph(tmp_path / "a.png", (12, 16))
    shutil.copytree(ROOT / "data/adapters/derain", run)
    config = json.loads((run / "config.json").read_text())
    config["task"] |= {"name": "sr", "degradation": degradation}
    (run / "config.json").write_text(json.dumps(config))
    assert restore(f"run={run}", f"input={photo}")[0] == 0
    assert Image.open(tmp_path / "a-sr.png").size == (12 * factor, 16 * factor)
    assert restore(f"run={run}", f"input={photo}", "enlarge=1")[0] == 0
    assert Image.open(tmp_path / "a-sr.png").size == (12, 16)


def test_what_cannot_be_made_larger_is_told(fast, restore, command, tmp_path, monkeypatch):
    photo = photograph(tmp_path / "a.png", (37, 24))
    monkeypatch.setenv("IRBRIDGE_MAX_PIXELS", "4000")
    status, _, error = restore("task=derain", f"input={photo}", "enlarge=4")
    assert status == 1 and "a.png would become 148 x 96 pixels" in error
    assert "give a smaller enlarge than 4" in error and not fast
    for words, said in (
        (["task=inpaint", "enlarge=2"], "enlarge=2 is not for inpaint"),
        (["task=derain", "enlarge=0"], "enlarge=0 must be"),
        (
            ["method=zeroshot", "solver=ddrm", "operator=sr", "enlarge=2"],
            "give operator=sr operator.factor=2 instead",
        ),
    ):
        status, _, error = command("restore", f"input={photo}", *words)
        assert status == 2 and said in error, error


def test_again_only_what_changed(fast, restore, tmp_path):
    for name in "abc":
        photograph(tmp_path / f"{name}.png")
    words = "task=derain", f"input={tmp_path}"
    assert restore(*words)[0] == 0 and len(fast) == 3
    first = {k: r["output_sha256"] for k, r in files(tmp_path).items()}
    status, out, _ = restore(*words)
    assert status == 0 and len(fast) == 3 and "3 were finished before" in out
    photograph(tmp_path / "a.png")  # another photograph of the same name
    (tmp_path / "b-derain.png").write_bytes(b"of the user's own")
    status, _, err = restore(*words)
    assert status == 2 and "b-derain.png is there and is not what irbridge wrote" in err
    assert (tmp_path / "b-derain.png").read_bytes() == b"of the user's own" and len(fast) == 3
    (tmp_path / "b-derain.png").unlink()
    assert restore(*words)[0] == 0 and len(fast) == 5
    again = {k: r["output_sha256"] for k, r in files(tmp_path).items()}
    assert again["b.png"] == first["b.png"] and again["a.png"] != first["a.png"] and len(again) == 3
    assert restore(*words, "seed=1")[0] == 0 and len(fast) == 8
    assert restore(*words, "seed=1", "--compare")[0] == 0 and len(fast) == 11
    (tmp_path / "restored-derain.json").write_text("{")  # nothing is known: all again
    assert restore(*words, "seed=1")[0] == 0 and len(fast) == 14
    assert restore("task=derain", f"input={tmp_path}/*.png", "seed=1")[0] == 0 and len(fast) == 14


def test_fewer_draws_are_not_finished_by_more(restore, tmp_path):
    words = "task=derain", f"input={photograph(tmp_path / 'a.png')}", "sampler=posterior", "steps=2"
    assert restore(*words, "samples=2")[0] == 0
    mean = files(tmp_path)["a.png"]
    assert restore(*words)[0] == 0
    single = files(tmp_path)["a.png"]
    assert (mean["samples"], single["samples"]) == (2, None)
    assert mean["output_sha256"] != single["output_sha256"]


def test_results_of_two_models(fast, restore, tmp_path):
    """Of one task they would have one name; the second command keeps the first one's."""
    photograph(tmp_path / "a.png")
    other = shutil.copytree(ROOT / "data/adapters/derain", tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file({name: tensor / 2 for name, tensor in weights.items()}, other / "model.safetensors")
    assert restore("task=derain", f"input={tmp_path / 'a.png'}")[0] == 0
    first = (tmp_path / "a-derain.png").read_bytes()
    words = f"run={other}", f"input={tmp_path / 'a.png'}"
    status, _, err = restore(*words)
    assert status == 2 and "a-derain.png was restored by another model" in err and "suffix=" in err
    assert (tmp_path / "a-derain.png").read_bytes() == first
    assert restore(*words, "suffix=other")[0] == 0 and (tmp_path / "a-other.png").exists()


@pytest.mark.parametrize("name", ["a-derain.png", "a-derain-compare.png", "a-derain-path.png"])
def test_a_file_of_the_users_own_is_never_replaced(fast, restore, tmp_path, name):
    photograph(tmp_path / "a.png")
    (tmp_path / name).write_bytes(b"mine")
    words = "task=derain", f"input={tmp_path / 'a.png'}", "compare=true", "save_path=true"
    for _ in range(2):
        status, _, err = restore(*words)
        assert status == 2 and f"{name} is there and is not what irbridge wrote" in err
    assert (tmp_path / name).read_bytes() == b"mine" and not len(fast)
    assert not list(tmp_path.glob("restored-*.json"))


def test_unreadable_files_are_reported_and_the_rest_go_on(fast, restore, tmp_path):
    good = photograph(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-60])
    (tmp_path / "text.png").write_text("hello")
    head = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(good.read_bytes()[:16] + head[:13] + good.read_bytes()[29:])
    photograph(tmp_path / "named.png", format="JPEG")  # what it holds counts, not its name
    status, _, err = restore("task=derain", f"input={tmp_path}")
    records = files(tmp_path)
    assert status == 1 and "Error: 3 of 5" in err
    assert [n for n, r in records.items() if r["status"] == "done"] == ["good.png", "named.png"]
    for name in ("cut.png", "text.png", "bomb.png"):
        assert (
            name in records[name]["error"]
            and "\n" not in records[name]["error"]
            and records[name]["error"] in err
        )
    assert len(list(tmp_path.glob("*-derain.png"))) == 2 and not list(tmp_path.glob(".*.tmp"))
    status, _, err = restore(
        "task=derain", f"input={tmp_path / 'text.png'}", f"output={tmp_path / 'o'}"
    )
    assert status == 1 and err.strip().splitlines()[-1].startswith("Error: ") and "text.png" in err


@pytest.mark.parametrize(
    "words, said",
    [
        (["task=derian", "input={}"], ["derian", "task=derain"]),
        (["input={}"], ["task=derain", "run=FOLDER"]),
        (["task=derain"], ["input"]),
        (["task=derain", "input="], ["input= must be a path that is not empty"]),
        (["task=derain", "input=/dev/zero"], ["input=/dev/zero is a pipe or a device"]),
        (["task=derain", "input={}", "threads=9999"], ["threads=9999", "from 1 to"]),
        (["task=derain", "run=x", "input={}"], ["task=derain", "run=x"]),
        (["run=nowhere", "input={}"], ["nowhere"]),
        (["task=derain", "input=nope.png"], ["nope.png", "does not exist"]),
        (["task=derain", "input={}/*.gif"], ["*.gif", "no photographs"]),
        (["task=derain", "input={}", "tile=64"], ["tile=64", "overlap=64"]),
        (["task=derain", "input={}", "steps=-1"], ["steps=-1"]),
        (["task=derain", "input={}", "batch=0"], ["batch=0"]),
        (["task=derain", "input={}", "overlap=-1"], ["overlap=-1"]),
        (["task=derain", "input={}", "tile=x"], ["tile"]),
        (["task=derain", "input={}", "sampler=quick"], ["quick"]),
        (["task=derain", "input={}", "device=abacus"], ["abacus"]),
        (["task=derain", "input={}", "suffix=a/b"], ["suffix"]),
        (["task=derain", "input={}", "sampler.rule=x"], ["rule"]),
        (["task=derain", "input={}/a.png", "output={}/x.jpg"], ["x.jpg", ".png"]),
        (["task=derain", "input={}", "output={}/x.png"], ["x.png", "folder"]),
        (["task=derain", "input={}/a.png", "output={}/a.png"], ["a.png", "never overwritten"]),
        (["task=derain", "input={}/a.png", "output={}/a.png/out"], ["cannot be written"]),
    ],
)
def test_wrong_usage_is_one_sentence_and_status_2(command, tmp_path, words, said):
    for name in "ab":
        photograph(tmp_path / "in" / f"{name}.png")
    before = (tmp_path / "in" / "a.png").read_bytes()
    status, _, err = command("restore", *(w.format(tmp_path / "in") for w in words))
    last = err.strip().splitlines()[-1]
    assert status == 2 and last.startswith("Error: ") and all(word in last for word in said), err
    assert before == (tmp_path / "in" / "a.png").read_bytes() and not list(
        (tmp_path / "in").glob("*-derain.png")
    )


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match="pipe.png is a pipe or a device; give a file"):
        sources(str(tmp_path / "pipe.png"), "derain")


def test_a_file_name_of_another_encoding_is_one_like_others(tmp_path):
    """In Latin-1, as a real command, whose output is strict."""
    photograph(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    words = ["task=derain", f"input={tmp_path}", "steps=0", "device=cpu", "precision=float32"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/restore.py"), *words],
        cwd=tmp_path,
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
        check=False,
    )
    assert done.returncode == 0 and b"caf\xe9-derain.png" in b" ".join(
        os.listdir(os.fsencode(tmp_path))
    ), done.stderr
    assert image_seed(3, "caf\udce9") != image_seed(3, "caf") and image_seed(
        3, "café"
    ) == zlib.crc32("3/café".encode())


def test_a_folder_in_use_is_refused(fast, restore, tmp_path):
    photograph(tmp_path / "a.png")
    with locked(tmp_path):
        status, _, err = restore("task=derain", f"input={tmp_path}")
    assert status == 2 and "in use" in err and not fast


def test_a_disk_without_room_is_told_before_the_network(fast, restore, tmp_path, monkeypatch):
    photograph(tmp_path / "a.png")
    monkeypatch.setattr(restoring.shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    status, _, err = restore("task=derain", f"input={tmp_path}")
    assert status == 1 and "make room" in err and not fast


def test_an_interruption_keeps_what_is_finished(fast, restore, tmp_path, monkeypatch):
    for name in "abc":
        photograph(tmp_path / f"{name}.png")
    real = restoring.read_photo
    monkeypatch.setattr(
        restoring,
        "read_photo",
        lambda p: (
            os.kill(os.getpid(), signal.SIGTERM) or time.sleep(60) if p.stem == "c" else real(p)
        ),
    )
    # of a: it is being written when b, which the networks have, is interrupted
    slow = restoring.write_photo
    monkeypatch.setattr(restoring, "write_photo", lambda *args: time.sleep(0.5) or slow(*args))
    monkeypatch.setattr(restoring, "image_seed", lambda seed, stem: time.sleep(20 * (stem == "b")))
    status, _, err = restore("task=derain", f"input={tmp_path}")
    assert status == 1 and "Interrupted; 1 of 3" in err and list(files(tmp_path)) == ["a.png"]


def test_a_fault_waits_for_what_is_being_written(fast, restore, tmp_path, monkeypatch):
    """The folder is not released, nor the process ended, in the middle of a file."""
    for name in "ab":
        photograph(tmp_path / f"{name}.png")
    slow = restoring.write_photo
    monkeypatch.setattr(restoring, "write_photo", lambda *args: time.sleep(0.5) or slow(*args))
    # what no photograph is to blame for
    monkeypatch.setattr(
        restoring, "image_seed", lambda seed, stem: 1 if stem == "a" else sys.exit(3)
    )
    status, _, _ = restore("task=derain", f"input={tmp_path}")
    assert status == 3 and list(files(tmp_path)) == ["a.png"]


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("y"), struct.error("z")])
def test_any_fault_of_one_photograph_is_its_own(fast, restore, tmp_path, monkeypatch, error):
    for name in "abc":
        photograph(tmp_path / f"{name}.png")

    def seed(seed, stem):
        if stem == "b":
            raise error
        return 1

    monkeypatch.setattr(restoring, "image_seed", seed)
    status, out, err = restore("task=derain", f"input={tmp_path}")
    records = files(tmp_path)
    assert status == 1 and "Restored 2 of 3 photographs" in out and "1 failed" in out
    assert [name for name, r in records.items() if r["status"] == "done"] == ["a.png", "c.png"]
    assert type(error).__name__ in records["b.png"]["error"] and "b.png" in err
    assert "Traceback" not in err


def test_names_that_clash(tmp_path):
    for name in ("a.jpg", "a.png", "b.png"):
        photograph(tmp_path / "in" / name)
    photograph(tmp_path / "other" / "b.png")
    names = {job.source.name: job.output.name for job in planned(tmp_path / "in")}
    assert names == {
        "a.jpg": "a-jpg-derain.png",
        "a.png": "a-png-derain.png",
        "b.png": "b-derain.png",
    }
    # also alone
    assert planned(tmp_path / "in" / "a.jpg")[0].output.name == "a-jpg-derain.png"
    with pytest.raises(UserError, match="both be written"):
        planned(tmp_path / "*" / "b.png", output=str(tmp_path / "out"))


def test_another_photographs_result_is_not_overwritten(fast, restore, tmp_path):
    for folder in "xy":
        photograph(tmp_path / folder / "a.png")
        result = restore("task=derain", f"input={tmp_path / folder}", f"output={tmp_path / 'out'}")
    assert result[0] == 2 and "a-derain.png is the restored" in result[2] and len(fast) == 1


def test_outputs_are_no_inputs_of_a_folder(fast, restore, tmp_path):
    photograph(tmp_path / "a.png")
    assert (
        restore("task=derain", f"input={tmp_path}/a.png", f"output={tmp_path}/b.png", "--compare")[
            0
        ]
        == 0
    )
    photograph(tmp_path / "old-derain-path.png")  # its report is lost, its name tells
    assert [p.name for p in sources(str(tmp_path), "derain")] == ["a.png"]
    assert [p.name for p in sources(str(tmp_path / "*"), "dehaze")] == [
        "a.png",
        "old-derain-path.png",
    ]
    # named outright
    assert [p.name for p in sources(str(tmp_path / "b.png"), "derain")] == ["b.png"]
    assert restore("task=derain", f"input={tmp_path}/a.png", f"output={tmp_path}/out")[0] == 0
    # one task after another
    assert [p.name for p in sources(str(tmp_path / "out"), "dehaze")] == ["a-derain.png"]
    with pytest.raises(UserError, match="but restored ones"):
        sources(str(tmp_path / "out"), "derain")


def test_whole_images_and_a_run_of_ones_own(fast, tmp_path):
    photograph(tmp_path / "a.png")
    restore_command.restore_run(
        RestoreOptions(input=(str(tmp_path),), run="data/adapters/derain", tile=None)
    )
    assert files(tmp_path)["a.png"]["tile"] is None and (tmp_path / "a-derain.png").exists()


NAMES = [
    "a.jpg",
    "a b (1).jpg",
    "[1]*.jpg",
    "a,b=c.jpg",
    "q\"uo'te.jpg",
    "back\\slash",
    "end\\",
    'both\\".png',
    "{x}: y",
    "${seed}",
    "123",
    "true",
    "-x=y.jpg",
    "--",
    "steps=3",
    "null.jpg",
    "caf\udce9.png",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_needs_no_quoting(name):
    """As key=value, as a flag and behind a double dash; alone where it is no flag and no key."""
    given = [[f"input={name}"], ["--", name]]
    if name != "--":  # what click takes for the end of flags
        given.append(["--input", name])
    if not name.startswith("-") and name != "steps=3" and "=" not in name:
        given.append([name])
    for words in given:
        assert parse("restore", RestoreOptions, words).input == (name,), words


def test_a_name_with_an_equals_sign_alone_is_a_file_that_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sedes=1.jpg").write_text("")
    assert parse("restore", RestoreOptions, ["sedes=1.jpg"]).input == ("sedes=1.jpg",)
    with pytest.raises(UserError, match="'sede' is not a key of irbridge restore; did you mean se"):
        parse("restore", RestoreOptions, ["sede=1"])


def test_flags_and_words_mean_the_same():
    given = parse(
        "restore",
        RestoreOptions,
        ["task=derain", "--compare", "--save-path", "seed=1", "output=null", "input=a", "steps=3"]
        + ["sampler=heun", "sampler.boot=0", "memory=0.5", "sampler.times=[100,50.5,0]"],
    )
    assert given == parse(
        "restore",
        RestoreOptions,
        ["--task", "derain", "compare=true", "--save_path", "--seed=1", "a", "--steps", "3"]
        + ["--sampler", "heun", "--sampler.boot", "0", "--memory=0.5"]
        + ["--sampler.times", "[100,50.5,0]"],
    )
    assert given.sampler == SamplerOptions(
        rule="heun", churn=0.33, spacing="karras", boot=0, times=[100, 50.5, 0]
    )
    assert given.compare and given.save_path and given.output is None and given.input == ("a",)


@pytest.mark.parametrize(
    "words, said",
    [
        (["--taks", "derain", "a"], "'--taks' is not a flag .* did you mean --task?"),
        (["stps=3", "a"], "'stps' is not a key .* did you mean steps?"),
        (["sampler.rle=ddim", "a"], "did you mean sampler.rule?"),
        (["sampler=posterio", "a"], "sampler='posterio' is unknown; did you mean posterior?"),
        (["--steps", "x", "a"], "steps=x must be a whole number from 0 to 10000, or null"),
        (["seed=null", "a"], "seed=null must be a value, such as 0"),
        (["compare=maybe", "a"], "compare=maybe must be true or false"),
        (["precision=fp8", "a"], "precision=fp8 must be one of auto, float32, bf16"),
        (["memory=nan", "a"], "memory=nan must be a number of GB above 0, or null"),
        (["sampler.times=[1,x]", "a"], "sampler.times=.* must be a list of numbers"),
        (["--steps", "3", "steps=3", "a"], "steps is given as a flag and as steps=3"),
        (["input=a", "b"], "input and b both name one"),
        (["--input"], "requires an argument"),
        ([], "input has no value; give input=... on the command line"),
    ],
)
def test_wrong_words_are_told_with_what_was_meant(words, said):
    with pytest.raises(UserError, match=said):
        parse("restore", RestoreOptions, words)


def test_a_sampler_of_ones_own(tmp_path):
    (tmp_path / "sampler").mkdir()
    (tmp_path / "sampler/mine.yaml").write_text("defaults: [default]\nrule: share\nshare: 0.5\n")
    words = ["a", "--sampler", "mine", "--config-dir", str(tmp_path), "sampler.nfe=2"]
    options = parse("restore", RestoreOptions, words)
    assert options.sampler == SamplerOptions(rule="share", nfe=2, more={"share": 0.5})
    fields = restore_command.sampling(options)
    assert (fields["rule"], fields["nfe"], fields["share"]) == ("share", 2, 0.5)
    assert parse("restore", RestoreOptions, ["a", "sampler=ddim"]).sampler.more == {}


def test_several_photographs(fast, restore, tmp_path):
    names = [photograph(tmp_path / f"{name}, 1.png") for name in "abc"]
    assert restore("--task", "derain", names[0], names[1], names[0])[0] == 0 and len(fast) == 2
    assert set(files(tmp_path)) == {"a, 1.png", "b, 1.png"}


@pytest.mark.parametrize(
    "words, status, said",
    [
        ([], 0, ["restore", "train", "evaluate", "table", "demo"]),
        (["--help"], 0, ["input=photo.jpg"]),
        (["restore", "--help"], 0, ["--save-path", "default: 64", "Examples:", "photo.jpg"]),
        (["restor"], 2, ["'restor'", "did you mean restore?", "restore, train"]),
        (["benchmark"], 2, ["did you mean profile?"]),
        (["restore", "task=derian", "input=nope.png"], 2, ["did you mean derain?"]),
        (["restore", "task=derain", "input=nope.png"], 2, ["nope.png"]),
    ],
)
def test_the_command(words, status, said, monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["irbridge", *words])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code
    out, err = capfd.readouterr()
    assert code == status and all(word in out + err for word in said)


def test_help_does_not_wait_for_torch():
    code = (
        "import sys, irbridge.cli as c; sys.argv = ['irbridge']; c.main(); sys.exit('torch' in"
        " sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True
        ).returncode
        == 0
    )


def test_the_report_says_precision_and_tiles_and_precision_is_a_setting(command, tmp_path):
    photo = photograph(tmp_path / "a.png", (600, 64))
    words = "restore", "device=cpu", "task=derain", "steps=0", f"input={photo}"
    status, out, _ = command(*words, "precision=float32", "tile=128", "overlap=32")
    assert status == 0 and out.strip().splitlines()[-1] == "Restored 1 of 1 photographs in float32."
    record = files(tmp_path)["a.png"]
    assert record["precision"] == "float32" and record["tile"] == 128
    assert record["tiles"] == [352, 352]  # what the reach of its trunk takes
    assert (
        "1 was finished before" in command(*words, "precision=float32", "tile=128", "overlap=32")[1]
    )
    assert (
        command(*words, "precision=bf16")[1].strip().splitlines()[-1]
        == "Restored 1 of 1 photographs in bf16."
    )
    record = files(tmp_path)["a.png"]
    assert (
        record["precision"] == "bf16"
        and record["tile"] is record["memory"] is record["tiles"] is None
    )


def test_another_amount_of_free_memory_does_nothing_again(fast, restore, tmp_path, monkeypatch):
    photograph(tmp_path / "a.png")
    assert restore("task=derain", f"input={tmp_path}")[0] == 0
    fast.clear()
    monkeypatch.setattr(memory, "free", lambda device: 10**9)
    assert "1 was finished before" in restore("task=derain", f"input={tmp_path}")[1]
    assert not fast
    assert restore("task=derain", f"input={tmp_path}", "memory=2")[0] == 0 and len(fast) == 1


def test_too_little_memory_is_told_before_any_call(fast, restore, tmp_path):
    for name in "ab":
        photograph(tmp_path / f"{name}.png")
    status, _, err = restore("task=derain", f"input={tmp_path}", "memory=0.3")
    assert status == 2 and "memory=0.3 is too little" in err and "GB" in err and not fast


def test_reading_and_writing_go_on_beside_the_networks(fast, restore, tmp_path, monkeypatch):
    """While b is in the networks, c is read and a is written; never more than one ahead, nor more
    than one behind."""
    for name in "abcd":
        photograph(tmp_path / f"{name}.png")
    events, begun = [], defaultdict(threading.Event)
    read, write, seeds = restoring.read_photo, restoring.write_photo, restoring.image_seed
    # what ends only once the other has begun, however busy the machine is
    waits = {("write", "a"): ("network", "b"), ("network", "b"): ("read", "c")}

    def watched(kind, function, name):
        def run(*args):
            work = kind, name(args)
            events.append((*work, "starts"))
            begun[work].set()
            if work in waits:
                assert begun[waits[work]].wait(60), f"{waits[work]} does not begin during {work}"
            time.sleep(0.05)
            try:
                return function(*args)
            finally:
                events.append((*work, "ends"))

        return run

    monkeypatch.setattr(restoring, "read_photo", watched("read", read, lambda args: args[0].stem))
    monkeypatch.setattr(
        restoring, "write_photo", watched("write", write, lambda args: args[0].stem[0])
    )
    monkeypatch.setattr(restoring, "image_seed", watched("network", seeds, lambda args: args[1]))
    assert restore("task=derain", f"input={tmp_path}")[0] == 0
    at = {event: k for k, event in enumerate(events)}
    for one, other in zip("abc", "bcd"):
        assert at["write", one, "ends"] < at["write", other, "starts"]
        assert at["read", one, "ends"] < at["read", other, "starts"]
    assert at["network", "b", "starts"] < at["read", "d", "starts"] and list(files(tmp_path)) == [
        f"{n}.png" for n in "abcd"
    ]


def test_a_large_photograph_is_alone_in_memory(fast, restore, tmp_path, monkeypatch):
    """All that is done of others is done before it is read or after it is written."""
    sizes = {"a": (24, 20), "b": (32, 40), "c": (24, 20), "d": (40, 32)}
    for name, size in sizes.items():
        photograph(tmp_path / f"{name}.png", size)
    monkeypatch.setattr(restoring, "TOGETHER", 24 * 20)
    events = []
    for kind in "read_photo", "image_seed", "write_photo":
        function = getattr(restoring, kind)

        def noted(*args, kind=kind, function=function):
            path = args[1] if kind == "image_seed" else args[0].stem
            events.append((kind, path[0]))
            time.sleep(0.05)
            result = function(*args)
            events.append((kind, path[0]))
            return result

        monkeypatch.setattr(restoring, kind, noted)
    assert restore("task=derain", f"input={tmp_path}")[0] == 0
    names = [name for _, name in events]
    assert names == sorted(names) and len(names) == 6 * 4
    assert [name for name in files(tmp_path)] == [f"{name}.png" for name in sizes]


def test_a_failure_to_write_one_leaves_the_others_and_the_order(
    fast, restore, tmp_path, monkeypatch
):
    for name in "abc":
        photograph(tmp_path / f"{name}.png")
    real = restoring.write_photo

    def write(path, *args):
        if path.name.startswith("b"):
            raise OSError(28, "No space left on device", str(path))
        time.sleep(0.1)
        real(path, *args)

    monkeypatch.setattr(restoring, "write_photo", write)
    status, _, err = restore("task=derain", f"input={tmp_path}")
    records = files(tmp_path)
    assert (
        status == 1
        and "b.png cannot be restored (No space left on device)" in err
        and "1 of 3" in err
    )
    assert [(n, r["status"]) for n, r in records.items()] == [
        ("a.png", "done"),
        ("b.png", "failed"),
        ("c.png", "done"),
    ]


def test_a_report_that_cannot_be_written_ends_the_command(fast, restore, tmp_path, monkeypatch):
    for name in "abc":
        photograph(tmp_path / f"{name}.png")

    def full(path, value):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("irbridge.restoration.jobs.write_json", full)
    status, _, err = restore("task=derain", f"input={tmp_path}")
    assert status == 1 and "The report" in err and "make room" in err and len(fast) < 3


@pytest.mark.parametrize(
    "given, load, requested, wanted",
    [
        (None, 0.4, None, 4),
        (None, 1.6, None, 2),
        (None, 9.0, None, 1),
        ("3", 0.0, None, "same"),
        ("3", 0.0, 2, 2),
    ],
)
def test_threads_are_the_free_cores(monkeypatch, given, load, requested, wanted):
    before = restoring.torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    monkeypatch.setattr(environment, "busy_cores", lambda: load)
    try:
        assert (
            set_threads(requested)
            == (before if wanted == "same" else wanted)
            == restoring.torch.get_num_threads()
        )
    finally:
        restoring.torch.set_num_threads(before)


def test_cores_are_busy_with_what_others_do_not_yield(monkeypatch):
    """Half of a second's processor time in each kind: only that of others without ``nice`` counts,
    on the cores that this process may use."""
    kinds = ("user", "system", "idle", "nice")
    nothing, elsewhere = (
        dict.fromkeys(kinds, 0.0),
        {"user": 9.0, "system": 9.0, "idle": 0.0, "nice": 0.0},
    )
    times = iter(
        [
            [nothing] * 3,
            [
                {"user": 0.5, "system": 0.0, "idle": 1.0, "nice": 2.0},
                elsewhere,
                {"user": 0.0, "system": 0.25, "idle": 2.0, "nice": 0.0},
            ],
        ]
    )
    own, clock = iter([0.0, 0.25]), iter([0.0, 0.5])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2}, raising=False)
    monkeypatch.setattr(
        environment.psutil,
        "cpu_times",
        lambda percpu=False: [namedtuple("Times", kinds)(**t) for t in next(times)],
    )
    monkeypatch.setattr(
        environment,
        "time",
        SimpleNamespace(
            perf_counter=lambda: next(clock),
            process_time=lambda: next(own),
            sleep=lambda seconds: None,
        ),
    )
    # 0.75 s in user and system, 0.25 of them its own, in half a second
    assert environment.busy_cores() == 1.0


def test_pngs_are_packed_fast_and_keep_every_pixel(tmp_path):
    values = RNG.random((40, 50, 3), dtype=np.float32)
    for bits in (8, 16):
        write_photo(tmp_path / "a.png", Photo(values, bits=bits), values)
        np.testing.assert_allclose(
            read_photo(tmp_path / "a.png").pixels, values, atol=0.51 / (2**bits - 1)
        )


def test_what_is_passed_over_is_said(fast, restore, tmp_path):
    for name in ("a.jpg", "b.jfif", "c.jpe"):
        photograph(tmp_path / "in" / name, format="JPEG")
    photograph(tmp_path / "in" / "storm-derain.png")
    photograph(tmp_path / "in" / "sub" / "d.png")
    for name in ("e.heic", "f.gif", "notes.txt", ".hidden"):
        (tmp_path / "in" / name).write_bytes(b"\0\0\0\x18ftypheic")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    for again in (False, True):
        status, out, _ = restore("task=derain", f"input={tmp_path / 'in'}")
        last = out.strip().splitlines()
        assert status == 0 and last[-1].startswith("Passed over 6 files: ")
        for word in ("storm-derain.png", "sub", "e.heic", "f.gif", "notes.txt", "pipe.png"):
            assert word in last[-1]
        assert "hidden" not in out and ("Wrote: " in out) != again
        assert last[-2] == (
            "Restored 0 of 3 photographs in float32; 3 were finished before."
            if again
            else "Restored 3 of 3 photographs in float32."
        )
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "e.heic").write_bytes(b"x")
    status, _, err = restore("task=derain", f"input={tmp_path / 'none'}")
    assert status == 2 and "holds no photographs; passed over e.heic (read are JPEG" in err


def test_every_mixture_is_counted(fast, restore, tmp_path):
    for name in "abc":
        photograph(tmp_path / f"{name}.png")
    (tmp_path / "d.png").write_text("no picture")
    assert (
        "Restored 3 of 4 photographs in float32; 1 failed."
        in restore("task=derain", f"input={tmp_path}")[1]
    )
    photograph(tmp_path / "a.png")
    photograph(tmp_path / "e.png")
    status, out, err = restore("task=derain", f"input={tmp_path}")
    said = "Restored 2 of 5 photographs in float32; 2 were finished before; 1 failed."
    assert status == 1 and said in out and "Error: 1 of 5" in err


def test_globs_in_folders_with_signs_of_globs(tmp_path):
    for folder in ("trip [2020]", "what?", "trip 2"):
        for name in ("p.png", "p[1].png"):
            photograph(tmp_path / folder / name)
    found = sources(f"{tmp_path}/trip [2020]/*.png", "derain")
    assert [p.name for p in found] == ["p.png", "p[1].png"]
    assert {p.parent.name for p in found} == {"trip [2020]"}
    assert [p.name for p in sources(f"{tmp_path}/what?/p[1]*", "derain")] == ["p[1].png"]
    assert {p.parent.name for p in sources(f"{tmp_path}/trip*/p.png", "derain")} == {
        "trip [2020]",
        "trip 2",
    }


@pytest.mark.parametrize(
    "record",
    [
        {"input": 1, "output": 2},
        {"input": "a.png", "output": None},
        {"input": "a.png", "output": "a-derain.png", "compare": [1]},
        {"input": "", "output": ""},
        [1],
        None,
    ],
)
def test_a_report_of_another_kind_is_no_report(fast, restore, tmp_path, record):
    photograph(tmp_path / "a.png")
    (tmp_path / "restored-derain.json").write_text(json.dumps({"files": [record]}))
    assert restore("task=derain", f"input={tmp_path}")[0] == 0 and len(fast) == 1


@pytest.mark.parametrize("letter, count", [("a", 240), ("я", 120), ("a", 248), ("a", 300)])
def test_long_names(fast, restore, tmp_path, letter, count):
    name = letter * count + ".png"
    photograph(tmp_path / "b.png")
    if count > 250:
        status, _, err = restore("task=derain", f"input={name}")
        assert status == 2 and "does not exist" in err
        return
    photograph(tmp_path / name)
    status, _, err = restore("task=derain", f"input={tmp_path}")
    assert (tmp_path / "b-derain.png").exists()
    assert status == (count == 248) and ("rename the photograph" in err) == (count == 248)


def test_results_that_are_no_numbers_are_refused_and_not_black(restore, tmp_path, monkeypatch):
    photo = photograph(tmp_path / "a.png")
    stand_in(monkeypatch, lambda y, seeds: y * float("nan"))
    status, out, err = restore("task=derain", f"input={photo}")
    assert status == 1 and "values that are no numbers" in err and "0 of 1" in out
    assert not (tmp_path / "a-derain.png").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1j])
def test_weights_that_are_no_numbers_are_refused(restore, tmp_path, value):
    from safetensors.torch import load_file, save_file

    photo = photograph(tmp_path / "a.png")
    run = tmp_path / "run"
    run.mkdir()
    source = ROOT / "data/adapters/derain"
    (run / "config.json").write_bytes((source / "config.json").read_bytes())
    weights = load_file(source / "model.safetensors")
    name = sorted(weights)[0]
    tensor = weights[name].float()
    weights[name] = tensor * value if value == 1j else tensor + value
    save_file(weights, run / "model.safetensors")
    status, _, err = restore(f"run={run}", f"input={photo}")
    assert status == 2 and name in err and "no real numbers" in err
    assert not list(tmp_path.glob("a-*.png"))


def test_a_folder_named_like_a_photograph_is_told(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "x.png").mkdir()
    (tmp_path / "empty").mkdir()
    jobs = plan([str(tmp_path)], "derain")
    told = passed_over([str(tmp_path)], "derain", jobs)
    assert told == {tmp_path / "x.png": "folders are not entered"}


def test_what_cannot_be_reached_is_not_called_missing(tmp_path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    for name, said in (("loop.png", "cannot be read"), ("none.png", "does not exist")):
        with pytest.raises(UserError, match=said):
            sources(str(tmp_path / name), "derain")
