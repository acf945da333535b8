"""The wheel holds all that a user needs: it works in an empty folder, without the clone or the
network."""

import json
import os
import subprocess
import sys

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


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """The folder that the built wheel is installed into."""
    pytest.importorskip("hatchling")
    built, target = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("target")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", built, ROOT]
    subprocess.run(build, check=True, timeout=100)
    (wheel,) = built.glob("*.whl")
    install = [*pip, "install", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run(install, check=True, timeout=100)
    return target


@pytest.fixture
def run(target, tmp_path, monkeypatch):
    """Run a program in an empty folder with the wheel alone on the path: its output."""
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

    def program(*words):
        done = subprocess.run(
            [sys.executable, *words],
            cwd=work,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

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
    out = program(target / "bin/irbridge", "train", "debug=default", "task=derain")
    assert "PSNR" in out
    folder = work / "runs/derain-debug"
    assert json.loads((folder / "config.json").read_text())["commit"] == "unknown"
    # what is relative to the project was found in the wheel, and nothing was written there
    assert not list(target.glob("irbridge/_assets/**/runs"))


def test_the_wheel_holds_no_more_than_it_should(target):
    inside = {path.name for path in (target / "irbridge/_assets/data").iterdir()}
    assert inside == {"README.md", "adapters", "metrics", "prior", "samples"}
    assert not (target / "tests").exists() and not (target / "configs").exists()


def test_the_citation_names_this_version():
    from irbridge import __version__

    cited = OmegaConf.load(ROOT / "CITATION.cff")
    assert cited.version == __version__
    assert [len(reference.authors) for reference in cited.references] == [7, 7]
