"""The page in a headless browser, as a person uses it, on a desk and on a phone.

The browser is the one that IRBRIDGE_BROWSER names, else playwright's own, else an installed one.
"""

import os
import re
import shutil
from urllib.parse import urlparse

import numpy as np
import pytest
from PIL import Image
from served import served

from irbridge.commands.demo import build_demo
from irbridge.commands.demo.uploads import samples
from irbridge.experiments.build import from_pretrained
from irbridge.gaussian.noise import image_seed
from irbridge.images.arrays import to_bytes
from irbridge.images.io import read_image

# the mask is painted by WebGL, here without a graphics card
FLAGS = ["--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader"]
DESK = {"viewport": {"width": 900, "height": 700}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
INSTALLED = "chromium", "chromium-browser", "google-chrome"
WIDE = "() => document.documentElement.scrollWidth <= document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with sync.sync_playwright() as play:
        yield opened(play)


def opened(play):
    """A browser; skips where none can be started."""
    own = os.environ.get("IRBRIDGE_BROWSER")
    paths = [own] if own else [None, *filter(None, map(shutil.which, INSTALLED))]
    for path in paths:
        try:
            return play.chromium.launch(executable_path=path, args=FLAGS)
        except Exception as error:
            fault = str(error).strip().splitlines()[0]
    pytest.skip(
        "needs a browser: run `playwright install chromium`, or name one by IRBRIDGE_BROWSER"
        f" ({fault})"
    )


@pytest.fixture(scope="module")
def address():
    """Where the page is served."""
    pytest.importorskip("gradio")
    with served(build_demo(device="cpu", precision="float32")) as blocks:
        yield blocks.local_url


@pytest.fixture
def visit(browser, address):
    """Opens the page in a window of a size; asserts at the end what it asked for and complained."""
    faults, foreign, contexts = [], [], []

    def go(**window):
        context = browser.new_context(**window)
        contexts.append(context)
        context.set_default_timeout(120_000)  # of busy machines

        def ask(route):
            url = urlparse(route.request.url)
            if url.scheme in ("http", "https", "ws", "wss") and url.hostname != "127.0.0.1":
                foreign.append(route.request.url)
                return route.abort()
            return route.continue_()

        context.route("**/*", ask)
        view = context.new_page()
        view.on("console", lambda said: said.type == "error" and faults.append(said.text))
        view.on("pageerror", lambda error: faults.append(str(error)))
        view.goto(address)
        view.locator("#samples button").first.wait_for()
        return view

    yield go
    for context in contexts:
        context.close()
    assert faults == [] and foreign == []


def sample(view, task):
    """Click a sample photograph, and wait until it is there."""
    view.locator("#samples button").filter(has_text=task).click()
    view.locator("#photo img").wait_for()


def restored(view, folder):
    """Press the button and wait; gives the downloaded PNG."""
    before = view.locator("#status").inner_text()
    view.get_by_role("button", name="Restore").click()
    view.wait_for_function("was => document.querySelector('#status').innerText != was", arg=before)
    view.locator("#status").get_by_text(re.compile("^Done in")).wait_for()
    view.locator("#result img").first.wait_for()
    with view.expect_download() as download:
        view.locator("#download").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def painted(view):
    """Paint a stroke over the middle of the photograph."""
    canvas = view.locator("#painted canvas").first
    canvas.wait_for()
    view.wait_for_timeout(1500)  # the picture is drawn after the canvas is there
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    view.mouse.move(x - 20, y)
    view.mouse.down()
    view.mouse.move(x + 20, y + 5, steps=2)
    view.mouse.up()
    view.wait_for_timeout(500)


def test_a_sample_is_clicked_restored_and_downloaded(visit, tmp_path):
    view = visit(**DESK)
    view.get_by_role("button", name="Restore").click()
    view.locator("#status [role=alert]").get_by_text("Choose a degraded photograph").wait_for()
    assert view.get_by_label("desnow (experimental)").count() == 1
    sample(view, "derain")
    assert view.get_by_label("derain").is_checked()
    path = restored(view, tmp_path)
    source = samples()["derain"]
    model = from_pretrained("derain")
    wanted = model.restore(read_image(source), seeds=[image_seed(0, "derain")], nfe=0)
    assert path.name == "derain-derain.png"
    assert np.array_equal(np.asarray(Image.open(path)), to_bytes(wanted))


def test_a_mask_is_painted_and_filled(visit, tmp_path):
    view = visit(**DESK)
    photo = np.full((120, 160, 3), (90, 120, 60), np.uint8)
    photo[::4] = 200
    Image.fromarray(photo).save(tmp_path / "wall.png")
    view.locator("#photo input[type=file]").set_input_files(tmp_path / "wall.png")
    view.locator("#photo img").wait_for()
    view.get_by_label("inpaint").check()
    view.locator("#steps input[type=number]").fill("1")
    view.locator("#steps input[type=number]").blur()
    painted(view)
    found = np.asarray(Image.open(restored(view, tmp_path)))
    changed = (found != photo).any(axis=2)
    # a stroke over the middle alone
    assert changed[60, 80] and 0 < changed.mean() < 0.6 and not changed[0].any()


def test_a_known_degradation_on_a_phone(visit, tmp_path):
    view = visit(**PHONE)
    assert view.evaluate(WIDE)
    rng = np.random.default_rng(0)
    photo = np.clip(128 + 25 * rng.standard_normal((48, 64, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "noisy.png")
    view.locator("#photo input[type=file]").set_input_files(tmp_path / "noisy.png")
    view.locator("#photo img").wait_for()
    view.get_by_label("A known degradation (zero-shot)").check()
    # what does not fit is said before anything is restored
    choose(view, "operator", "hdr")
    choose(view, "solver", "ddnm")
    view.locator("#remark").get_by_text("needs an operator that is linear").wait_for()
    choose(view, "operator", "denoise")
    choose(view, "solver", "ddrm")
    view.locator("#remark").get_by_text("must be true").wait_for()
    # the solver's own, which may come after the remark, and would replace what is filled in
    view.wait_for_function("document.querySelector('#calls input[type=number]').value == '20'")
    view.locator("#calls input[type=number]").fill("4")
    view.locator("#calls input[type=number]").blur()
    path = restored(view, tmp_path)
    assert path.name == "noisy-denoise-ddrm.png"
    assert np.asarray(Image.open(path)).std() < 0.5 * photo.std()
    view.get_by_text("The estimates on the way").click()
    view.locator("#path img").first.wait_for()
    assert view.locator("#path img").count() == 4 and view.evaluate(WIDE)
    for button in ("#restore", "#stop", "#download"):
        box = view.locator(button).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["height"] >= 40


def choose(view, field, word):
    """Choose a word of a list."""
    view.locator(f"#{field} input").click()
    view.get_by_role("option", name=word).first.click()
