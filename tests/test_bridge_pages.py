"""Every bridge has its page, which says what it takes, how it is run, and shows its law."""

import re
import shlex
from dataclasses import fields

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from irbridge import cli
from irbridge.commands import options
from irbridge.commands.bridges import bridge_named, known_bridges
from irbridge.commands.flags import parse
from irbridge.experiments.build import build_model
from irbridge.experiments.config import composed

PAGES = ROOT / "docs/bridges"
PICTURES = ROOT / "docs/images/bridges"
FAMILIES = sorted(path.stem for path in PAGES.glob("*.md") if path.stem != "index")
KIB = 1024


def text_of(name):
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def drawn_on(name):
    """The bridges whose pictures a page shows."""
    return re.findall(r"\]\(\.\./images/bridges/(\w+)\.png\)", text_of(name))


def commands_of(name):
    blocks = re.findall(r"^```bash\n(.*?)^```$", text_of(name), re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line, comments=True) for line in "".join(blocks).splitlines()]
    return [words for words in commands if words]


def test_every_bridge_is_drawn_on_one_page_and_in_the_list():
    drawn = [bridge for family in FAMILIES for bridge in drawn_on(family)]
    assert sorted(drawn) == known_bridges()
    listed = text_of("index")
    for family in FAMILIES:
        row = next(line for line in listed.splitlines() if f"({family}.md)" in line)
        assert set(re.findall(r"`(\w+)`", row)) == set(drawn_on(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_keys_of_a_page_are_fields_of_its_bridges(family):
    known = {
        entry.name
        for name in drawn_on(family)
        for entry in fields(bridge_named(name, []))
        if entry.init
    }
    named = set(re.findall(r"\bbridge\.(\w+)", text_of(family)))
    assert named and named <= known
    # every field of its own is explained; start is, where it is not the usual one
    assert known - named <= {"start"}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_commands_of_a_page_give_models(family):
    """Each training is composed and built; the last command restores by one that was named."""
    *trainings, last = commands_of(family)
    runs = set()
    for _, command, *words in trainings:
        assert command == "train"
        task = next(word for word in words if word.startswith("task="))[5:]
        chosen = dict(word.split("=", 1) for word in words)
        name = chosen.get("name") or {
            None: chosen.get("bridge", "brownian"),
            "bridge": f"scratch-{chosen.get('bridge')}",
            "refine": "refine",
        }.get(chosen.get("recipe"), f"scratch-{chosen.get('recipe')}")
        config = composed("train", *words, f"name={name}", "adapter.width=4")
        assert build_model(config, lazy=True)
        runs.add(f"runs/{task}-{name}")
    assert last[:2] == ["irbridge", "restore"]
    given = parse("restore", getattr(options, cli.COMMANDS["restore"].options), last[2:])
    assert given.run in runs


def test_the_command_draws_what_the_pages_show(tmp_path):
    """The picture in the documentation is the one that the command of the index draws."""
    drawing = next(words for words in commands_of("index") if "recipe=bridge" in words)
    assert drawing[:3] == ["irbridge", "bridges", "recipe=bridge"]
    for name in ("goub", "rdbm"):  # plain and modulated noise
        cli.run("bridges", [name, "recipe=bridge", f"output={tmp_path}"])
        new, shown = (Image.open(folder / f"{name}.png") for folder in (tmp_path, PICTURES))
        assert new.size == shown.size
        # fonts and lines may differ by the version of matplotlib
        differs = np.abs(np.asarray(new.convert("RGB"), float) - np.asarray(shown.convert("RGB")))
        assert differs.mean() < 3
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["goub", "rdbm"]


def test_every_picture_is_there_and_small():
    files = sorted(PICTURES.iterdir())
    assert [path.name for path in files] == [f"{name}.png" for name in known_bridges()]
    sizes = [path.stat().st_size for path in files]
    assert max(sizes) < 120 * KIB and sum(sizes) < 1536 * KIB
