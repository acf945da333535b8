"""Every recipe of the documentation is followed as it stands, in an empty folder."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from forked import Forked
from PIL import Image

RECIPES = ROOT / "docs/recipes"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
# a training of a network of a few thousand weights that scores one method on one image
TINY = [
    "adapter.width=4",
    "adapter.encoder=[1,1]",
    "adapter.decoder=[1,1]",
    "evaluate.size=32",
    "evaluate.limit=1",
    "evaluate.all_rows=false",
    "baseline=false",
    "trainer.device=cpu",
]
SHOWN = {  # what the last command prints or leaves
    "backbone": "IRBridge",
    "bridge": "Restored 1 of 1",
    "metric": "Error 99 %",
    "sampler": "share",
    "task": "PSNR",
}


def blocks(page):
    """(language, file, text) of every fenced block of a page."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def follow(page, folder):
    """Write a page's files and run its commands in a folder; what the last one prints."""
    files = [(name, text) for _, name, text in blocks(page) if name]
    for name, text in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    out = ""
    for command in "".join(text for kind, _, text in blocks(page) if kind == "bash").splitlines():
        words = shlex.split(command, comments=True)
        assert words[0] == "python", command
        tiny = TINY if "train" in words else []
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = Forked(*words[1:], *tiny, cwd=folder, env=environment)
        out = "".join(done.communicate())
        assert done.returncode == 0, f"{command}\n{out}"
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_recipe(name, tmp_path):
    assert SHOWN[name] in follow(RECIPES / f"{name}.md", tmp_path)


def test_every_recipe_is_here_and_in_the_list():
    pages = {path.stem for path in RECIPES.glob("*.md")} - {"index"}
    assert pages == set(SHOWN)
    listed = (RECIPES / "index.md").read_text()
    assert all(f"({name}.md)" in listed for name in pages)


def test_recipes_are_written_as_the_project_is(tmp_path):
    for page in RECIPES.glob("*.md"):
        for kind, name, text in blocks(page):
            if kind == "python":
                (tmp_path / f"{page.stem}_{name}").write_text(text)
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", str(tmp_path)]
    # the programs of three lines need no docstring, and their import is all that is asked of it
    check = [*ruff, "check", "--ignore", "D100,F401,D102,I001", *options]
    for command in (check, [*ruff, "format", "--check", *options]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_chapter_has_a_page_of_the_api():
    chapters = {path.parent.name for path in (ROOT / "irbridge").glob("*/__init__.py")}
    pages = {path.stem for path in (ROOT / "docs/api").glob("*.md")}
    assert chapters - {"commands"} <= pages
    nav = (ROOT / "mkdocs.yml").read_text()
    assert all(f"api/{page}.md" in nav for page in pages)
    for page in (ROOT / "docs/api").glob("*.md"):
        for name in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE):
            assert importlib.util.find_spec(name), name
