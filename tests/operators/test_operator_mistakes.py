"""What does not fit is one sentence, before any work."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from cases import seeded
from conftest import ROOT
from PIL import Image

from irbridge.errors import UserError
from irbridge.operators.catalog import accepted, operator

SIZE = (3, 16, 24)


def refused(name, size=SIZE, **settings):
    with pytest.raises(UserError) as caught:
        operator(name, size, **settings)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


def test_without_deepinv_it_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepinv", None)
    monkeypatch.setitem(sys.modules, "deepinv.physics", None)
    given = {"blur": {}, "sr": {}, "cs": {}, "ct": {}}
    for name, settings in given.items():
        told = refused(name, **settings)
        assert told == f'operator={name} needs deepinv; pip install -e ".[inverse]".'
    # these are a line of mathematics each
    operator("sr", SIZE, kernel="average")
    operator("inpaint", SIZE, holes=np.ones((16, 24), bool))
    for name in ("colour", "denoise", "jpeg", "hdr"):
        operator(name, SIZE)


def test_deepinv_is_imported_where_an_operator_is_made_and_not_before():
    program = (
        "import sys, irbridge, irbridge.operators.catalog, irbridge.solvers.base\n"
        "import irbridge.operators.from_physics, irbridge.backbones.deepinv_denoiser\n"
        "assert 'deepinv' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=100)


def test_unknown_words_and_settings():
    assert "did you mean inpaint?" in refused("inpain")
    assert "choose one of inpaint, sr, blur" in refused("unheard")
    assert "did you mean factor?" in refused("sr", factr=2)
    assert refused("denoise", factor=2) == ("operator=denoise has no setting factor; leave it out.")
    assert "needs holes; give mask=FILE" in refused("inpaint")
    assert accepted("cs") == (["rate", "seed"], [])
    assert "std" in accepted("blur")[0]


def test_sizes():
    for size in ((16, 24), (3, 0, 24), (3, 16.5, 24), "large", None):
        assert "size" in refused("denoise", size)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("sr", {"factor": 0}, "factor=0 must be"),
        ("sr", {"factor": 2.5}, "factor=2.5 must be"),
        ("sr", {"factor": 1}, "factor=1 must be"),
        ("sr", {"kernel": "lanczos"}, "kernel=lanczos must be one of bicubic, average"),
        ("sr", {"factor": 5}, "24 x 16"),
        ("sr", {"factor": 8}, "filter of 32 pixels"),
        ("cs", {"rate": 0}, "rate=0 must be"),
        ("cs", {"rate": 1.5}, "rate=1.5 must be"),
        ("cs", {"rate": float("nan")}, "rate=nan must be"),
        ("cs", {"seed": -1}, "seed=-1 must be"),
        ("ct", {"angles": 0}, "angles=0 must be"),
        ("ct", {"angles": []}, "angles=[] must be"),
        ("ct", {"angles": "many"}, "angles=many must be"),
        ("ct", {"angles": [0.0, float("inf")]}, "must be"),
        ("jpeg", {"quality": 0}, "quality=0 must be"),
        ("jpeg", {"quality": 101}, "quality=101 must be"),
        ("jpeg", {"quality": 9.5}, "quality=9.5 must be"),
        ("blur", {"padding": "zero"}, "padding=zero must be one of"),
        ("blur", {"threshold": -0.1}, "threshold=-0.1 must be"),
        ("blur", {"kernel": torch.ones(17, 3)}, "3 x 17 pixels, larger than the image of 24 x 16"),
        ("blur", {"kernel": torch.ones(3, 25)}, "larger than the image"),
        ("blur", {"kernel": torch.ones(3)}, "shape (3,)"),
        ("blur", {"kernel": torch.ones(0, 3)}, "shape (0, 3)"),
        ("blur", {"kernel": [[1.0, float("nan")]]}, "no numbers"),
        ("blur", {"kernel": [["a"]]}, "no table of numbers"),
        ("blur", {"kernel": np.ones((3, 3), complex)}, "no table of numbers"),
        ("blur", {"kernel": torch.zeros(3, 3)}, "the sum 0"),
        ("blur", {"kernel": [[-1.0, 1.0]]}, "the sum 0"),
        ("blur", {"kernel": [[-1.0, 0.5]]}, "the sum -0.5"),
        ("blur", {"kernel": "gausian"}, "did you mean gaussian?"),
        ("blur", {"kernel": "gaussian", "std": 0}, "std=0 must be"),
        ("blur", {"kernel": "gaussian", "width": 0}, "width=0 must be"),
        ("blur", {"kernel": "gaussian", "std": 9}, "larger than the image"),
        ("blur", {"kernel": "gaussian", "extent": 5}, "kernel=gaussian has no setting extent"),
        ("blur", {"kernel": "motion", "extent": 0}, "extent=0 must be"),
        ("blur", {"kernel": "line", "angle": 400}, "angle=400 must be"),
        ("blur", {"kernel": torch.ones(3, 3), "std": 2}, "std= belongs to a kernel"),
        ("blur", {"kernel": "missing.png"}, "missing.png"),
        ("inpaint", {"holes": np.ones((24, 16), bool)}, "16 x 24 pixels, but the image is 24 x 16"),
        ("inpaint", {"holes": np.full((16, 24), 0.5)}, "truth values"),
        ("inpaint", {"holes": [[True]]}, "truth values"),
        ("inpaint", {"holes": "missing.png"}, "missing.png"),
    ],
)
def test_values_that_do_not_fit(name, settings, says):
    if name in ("blur", "ct", "cs", "sr"):
        pytest.importorskip("deepinv", reason="deepinv, of the extra inverse, is missing")
    assert says in refused(name, **settings)


def test_words_stand_for_files(tmp_path):
    pytest.importorskip("deepinv", reason="deepinv, of the extra inverse, is missing")
    mask = np.zeros((16, 24), np.uint8)
    mask[4:9, 3:20] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    A = operator("inpaint", SIZE, holes=str(tmp_path / "m.png"))
    assert np.array_equal(~A.known.numpy(), mask > 0)
    np.savetxt(tmp_path / "k.txt", np.ones((3, 3)))
    assert operator("blur", SIZE, kernel=tmp_path / "k.txt").kernel.shape == (3, 3)
    x = seeded(1, *SIZE)
    one = operator("blur", SIZE, kernel="gaussian", std=1, width=5)(x)
    assert not torch.allclose(one, operator("blur", SIZE, kernel="motion", extent=5)(x))
