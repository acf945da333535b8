"""The wheel holds all that a user needs: it works in an empty folder, without the clone or the
network."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from omegaconf import OmegaConf
from PIL import Image

pytestmark = pytest.mark.slow
# Python runs a module of this name at its start. From then on the clone's files cannot be opened,
# and no other machine can be reached.
GUARD = """
import sys

def forbid(event, args):
    where = str(args[0]) if args else ""
    if event == "open" and where.startswith({forbidden!r}):
        raise RuntimeError(f"{{where}} of the clone was opened")
    if event == "socket.connect" and isinstance(args[1], tuple):
        raise RuntimeError(f"{{args[1]}} was called")

sys.addaudithook(forbid)
"""
PYTHON = """
import irbridge, numpy as np
from irbridge import IRBridge, assets, read_image
assert assets.CHECKOUT is None and str(assets.ROOT).startswith({target!r}), assets.ROOT
assert irbridge.__version__ == {version!r}
model = IRBridge.from_pretrained("derain")
restored = model.restore(read_image("photo.png"), seed=0)
assert restored.shape == (40, 48, 3) and np.isfinite(restored).all()
from irbridge.environment import commit
assert commit() == "unknown"
from irbridge.evaluation.metrics import LPIPS
LPIPS()
from irbridge.errors import UserError
from irbridge.profiling.race import _checkouts
try:
    _checkouts(None)
except UserError as error:
    assert "clone of the repository" in str(error)
else:
    raise AssertionError("a race needs a clone")
"""


# What PyPI takes of a project that has not asked for more.
LIMIT = 100 * 2**20


def built_wheel(source, built):
    """The wheel of a checkout, in the folder ``built``."""
    pytest.importorskip("hatchling")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", built, source]
    subprocess.run(build, check=True, timeout=100)
    (wheel,) = built.glob("*.whl")
    return wheel


def installed(wheel, target):
    """The folder that the wheel is installed into."""
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    install = [*pip, "install", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run(install, check=True, timeout=100)
    return target


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return built_wheel(ROOT, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def target(wheel, tmp_path_factory):
    return installed(wheel, tmp_path_factory.mktemp("target"))


@pytest.fixture
def run(target, tmp_path):
    """Run a program in an empty folder with the wheel alone on the path: its output."""
    return runner(target, tmp_path)


def runner(target, tmp_path):
    forbidden = tuple(str(ROOT / part) + os.sep for part in ("irbridge", "configs", "data"))
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(GUARD.format(forbidden=forbidden))
    work = tmp_path / "work"
    work.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(work / "photo.png")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(guard), str(target)]),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hub"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def program(*words, status=0):
        done = subprocess.run(
            [sys.executable, *words],
            cwd=work,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stderr if status else done.stdout

    return program, work


def test_the_guard_sees_the_clone(run):
    program, _ = run
    opened = f"open({str(ROOT / 'configs/train.yaml')!r})"
    code = f"try: {opened}\nexcept RuntimeError as e: print(e)"
    assert "of the clone was opened" in program("-c", code)


def test_python_restores_from_the_wheel(run, target):
    from irbridge import __version__

    program, _ = run
    program("-c", PYTHON.format(target=str(target), version=__version__))


def test_the_command_restores_from_the_wheel(run, target):
    program, work = run
    out = program(target / "bin/irbridge", "restore", "task=derain", "input=photo.png")
    assert "Restored 1 of 1" in out
    assert Image.open(work / "photo-derain.png").size == (48, 40)


def test_the_command_trains_from_the_wheel(run, target):
    program, work = run
    tiny = ["adapter.width=4", "adapter.encoder=[1,1]", "adapter.decoder=[1,1]"]
    out = program(target / "bin/irbridge", "train", "debug=default", "task=derain", *tiny)
    assert "PSNR" in out
    folder = work / "runs/derain-debug"
    assert json.loads((folder / "config.json").read_text())["commit"] == "unknown"
    # what is relative to the project was found in the wheel, and nothing was written there
    assert not list(target.glob("irbridge/_assets/**/runs"))


def test_the_wheel_holds_no_more_than_it_should(target):
    inside = {path.name for path in (target / "irbridge/_assets/data").iterdir()}
    assert inside == {"README.md", "adapters", "metrics", "prior", "samples"}
    assert not (target / "tests").exists() and not (target / "configs").exists()


def test_an_index_takes_the_wheel(wheel):
    assert wheel.stat().st_size < LIMIT, "CONTRIBUTING.md, Releasing, says what may stay outside"


def test_a_wheel_without_adapters_restores_with_a_folder(tmp_path):
    # as CONTRIBUTING.md builds it
    out = {"adapters": ROOT / "data", "train": ROOT / "data/samples"}
    out |= {"prior_faces": ROOT / "data", "__pycache__": None}

    def left_out(folder, names):
        return [n for n in names if n in out and out[n] in (None, Path(folder))]

    slim = tmp_path / "slim"
    for part in ("irbridge", "configs", "data"):
        shutil.copytree(ROOT / part, slim / part, ignore=left_out)
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, slim / part)
    wheel = built_wheel(slim, tmp_path / "built")
    assert wheel.stat().st_size < 25 * 10**6
    target = installed(wheel, tmp_path / "target")
    program, work = runner(target, tmp_path)
    command = target / "bin/irbridge"
    told = program(command, "restore", "task=derain", "input=photo.png", status=2)
    assert "task='derain' has no shipped adapter; give run=FOLDER" in told
    shutil.copytree(ROOT / "data/adapters/derain", work / "mine")
    assert "Restored 1 of 1" in program(command, "restore", "run=mine", "input=photo.png")
    told = "try: irbridge.load('derain')\nexcept UserError as e: print(e)"
    said = program("-c", f"import irbridge\nfrom irbridge.errors import UserError\n{told}")
    assert "(none is installed)" in said


def test_all_name_this_version():
    from irbridge import __version__

    cited = OmegaConf.load(ROOT / "CITATION.cff")
    assert cited.version == __version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+) \((\S+)\)$", changes, re.MULTILINE)
    assert newest.groups() == (__version__, cited["date-released"])
    assert [len(reference.authors) for reference in cited.references] == [7, 7]
