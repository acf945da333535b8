"""The web page: its words, its pixels, its mistakes, and a real browser where one is installed."""

import shutil
import socket
import sys
from urllib.parse import urlparse

import numpy as np
import pytest
from PIL import Image

from irbridge import cli
from irbridge.commands import demo
from irbridge.commands.flags import parse
from irbridge.commands.options import DemoOptions
from irbridge.errors import UserError
from irbridge.experiments.build import from_pretrained
from irbridge.gaussian.noise import image_seed
from irbridge.images.arrays import to_bytes
from irbridge.images.io import read_image
from irbridge.images.png import png16
from irbridge.models.irbridge import IRBridge

NAME = "wet $day (1)"  # signs that an upload drops from the name, and so from the noise seed


@pytest.fixture(scope="module")
def model():
    return IRBridge.from_pretrained(demo.models()["derain"])


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((44, 40), Image.BICUBIC)
    path = tmp_path_factory.mktemp("photo") / f"{NAME}.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    image.save(path, exif=exif)
    return path


@pytest.fixture
def page():
    """The page, served on a free port."""
    pytest.importorskip("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    blocks = demo.build_demo(precision="float32")  # as the model that it is compared with
    demo.launch(blocks, server_port=port, prevent_thread_lock=True)
    yield blocks
    blocks.close()


def expected(model, photo, steps, seed):
    return to_bytes(
        model.restore(read_image(photo), seeds=[image_seed(seed, photo.stem)], steps=steps)
    )


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def test_words():
    assert parse("demo", DemoOptions, []) == DemoOptions()
    words = ["port=8000", "share=true", "run=a=b", "task=dehaze"]
    assert parse("demo", DemoOptions, words) == DemoOptions(
        port=8000, share=True, run="a=b", task="dehaze"
    )
    assert parse("demo", DemoOptions, ["--port", "8000", "--share", "--run", "a=b"]).run == "a=b"


@pytest.mark.parametrize(
    "word, said",
    [
        ("prt=1", "'prt'"),
        ("port=x", "port=x"),
        ("port=0", "port=0"),
        ("port", "port="),
        ("share=maybe", "share=maybe"),
        ("run=", "run=FOLDER"),
        ("run=nowhere", "nowhere"),
    ],
)
def test_mistakes_end_with_a_sentence(word, said, command):
    status, _, error = command("demo", word)
    assert (
        status == 2
        and error.startswith("Error: ")
        and said in error
        and len(error.splitlines()) == 1
    )


def test_mistakes_that_only_the_page_can_see(page):
    for word, said in (
        ("task=cook", "derain"),
        ("device=abacus", "abacus"),
        (f"port={page.server_port}", "another port"),
        ("port=70000", "another port"),
    ):
        with pytest.raises(UserError, match=said):
            cli.run("demo", [word])


def test_without_gradio(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[demo\]"'):
        cli.run("demo", [])


def test_a_run_of_ones_own_joins_the_adapters(tmp_path):
    shipped = demo.models()
    folder = shutil.copytree(shipped["derain"], tmp_path / "mine")
    assert demo.models(str(folder)) == shipped | {"mine": folder}
    namesake = shutil.copytree(folder, tmp_path / "derain")
    assert demo.models(str(namesake)) == shipped | {str(namesake): namesake}


@pytest.mark.parametrize("steps, seed", [(1, 0), (2, 7)])
def test_restores_as_the_model_does(model, photo, tmp_path, steps, seed):
    parts = []
    (before, after), path = demo.restore(
        model, photo, photo.name, "derain", steps, seed, tmp_path, parts.append
    )
    assert np.array_equal(before, to_bytes(read_image(photo))) and before.shape == (44, 40, 3)
    assert np.array_equal(after, expected(model, photo, steps, seed)) and np.array_equal(
        pixels(path), after
    )
    assert path.name == f"{NAME}-derain.png" and parts == [
        (k + 1, steps + 1) for k in range(steps + 1)
    ]


def test_the_precision_is_the_commands_whatever_the_slider_says(monkeypatch):
    """A trial that finds half precision faster of the anchor alone."""
    folders = demo.models()
    monkeypatch.setattr(
        "irbridge.models.precision.remembered",
        lambda key, measure: {"bf16": not key["sampler"]["nfe"], "deviation": 0.0},
    )
    model, found = demo.loader(folders, "cpu", "auto"), {}
    for calls in (0, 3, 20, 0):
        found[calls] = model("derain", calls).precision
        assert (
            found[calls]
            == from_pretrained(folders["derain"], precision="auto", nfe=calls).precision
        )
    assert found == {0: "bf16", 3: "float32", 20: "float32"} and model("derain", 0) is model(
        "derain", 3
    )


def test_a_photograph_without_holes_gets_the_pages_own_remedy(model, photo, tmp_path, monkeypatch):
    # so that what a call takes is known before the model is said to take masks
    demo.restore(model, photo, photo.name, "derain", 1, 0, tmp_path, print)
    monkeypatch.setattr(model, "masked", True)
    with pytest.raises(
        UserError,
        match="does not say what to fill; give a photograph that is more than half transparent",
    ):
        demo.restore(model, photo, photo.name, "derain", 1, 0, tmp_path, print)


def test_large_photographs_go_in_tiles(model, tmp_path, monkeypatch):
    monkeypatch.setitem(demo.CUTS, "tile", 512)
    Image.new("RGB", (530, 24), (90, 120, 60)).save(tmp_path / "wide.png")
    parts = []
    (_, after), _ = demo.restore(
        model, tmp_path / "wide.png", "wide.png", "derain", 1, 0, tmp_path, parts.append
    )
    # two tiles, through the anchor and one call
    assert after.shape == (24, 530, 3) and parts[-1] == (4, 4)


def test_what_a_photograph_has_besides_colours_is_kept(model, tmp_path):
    deep = np.linspace(0, 65535, 12 * 16).astype(np.uint16).reshape(12, 16)
    alpha = Image.linear_gradient("L").resize((16, 12))
    Image.fromarray(deep).save(tmp_path / "deep.png")
    clear = Image.new("RGB", (16, 12), (90, 120, 60))
    clear.putalpha(alpha)
    clear.save(tmp_path / "clear.png", icc_profile=b"profile")
    for name, mode in (("deep", "I;16"), ("clear", "RGBA")):
        _, path = demo.restore(
            model, tmp_path / f"{name}.png", f"{name}.png", "derain", 1, 0, tmp_path, print
        )
        with Image.open(path) as image:
            assert image.mode == mode and image.size == (16, 12)
            if name == "clear":
                assert image.info["icc_profile"] == b"profile" and np.array_equal(
                    image.getchannel("A"), alpha
                )


def test_unreadable_files_are_called_by_their_own_name(model, tmp_path):
    (tmp_path / "upload").write_text("no picture")
    with pytest.raises(UserError, match="^letter.png is not a readable image"):
        demo.restore(model, tmp_path / "upload", "letter.png", "derain", 1, 0, tmp_path, print)


@pytest.mark.parametrize(
    "given, plain",
    [
        ("wet day.jpg", "wet day.jpg"),
        ("nul\0name.png", "nulname.png"),
        ("../../x.png", "x.png"),
        ("c:\\\\photos\\\\x.png", "x.png"),
        (".png", "png"),
        ("..", "photo"),
        ("", "photo"),
        ("a\nb\ud800.png", "ab.png"),
        ("a" * 300 + ".png", "a" * 150 + ".png"),
        ("я" * 100 + ".png", "я" * 75 + ".png"),
    ],
)
def test_any_name_of_an_upload_becomes_a_plain_one(given, plain):
    assert demo.plain_name(given) == plain


@pytest.mark.parametrize(
    "host, own",
    [
        ("127.0.0.1:7860", True),
        ("localhost:7860", True),
        ("LOCALHOST", True),
        ("[::1]:7860", True),
        ("192.168.0.7", True),
        ("studio:80", True),
        ("evil.example", False),
        ("evil.example:7860", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_only_hosts_of_this_machine_are_answered(host, own):
    assert demo.OwnHosts(None, ["studio"]).own(host) == own


def test_the_page_refuses_other_hosts_and_large_files(page):
    import http.client

    address = urlparse(page.local_url)
    for host, status in (("evil.example", 403), (address.netloc, 200)):
        asked = http.client.HTTPConnection(address.hostname, address.port)
        asked.request("GET", "/config", headers={"Host": host})
        assert asked.getresponse().status == status
    assert page.max_file_size == 200 * 2**20


def test_a_damaged_upload_or_any_fault_is_a_sentence(page, tmp_path, monkeypatch):
    from gradio_client import Client, exceptions, handle_file

    client = Client(page.local_url, verbose=False, download_files=tmp_path, analytics_enabled=False)
    data = png16(np.random.default_rng(0).integers(0, 65536, (24, 32, 3), dtype=np.uint16))
    (tmp_path / "b.png").write_bytes(data[:-13] + bytes([data[-13] ^ 1]) + data[-12:])
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(exceptions.AppError, match="b.png is not a readable image"):
        client.predict(handle_file(tmp_path / "b.png"), "derain", 1, 3, api_name="/restore")
    monkeypatch.setattr(demo, "write_photo", lambda *args: {}["x"])
    with pytest.raises(exceptions.AppError, match="a.png cannot be restored .KeyError"):
        client.predict(handle_file(tmp_path / "a.png"), "derain", 0, 3, api_name="/restore")


def test_the_page_by_its_interface(model, photo, page, tmp_path):
    from gradio_client import Client, exceptions, handle_file

    client = Client(page.local_url, verbose=False, download_files=tmp_path, analytics_enabled=False)
    # this client, unlike a browser, hides what signs were dropped
    photo = shutil.copy(photo, tmp_path / "plain.jpg")
    _, path = client.predict(handle_file(photo), "derain", 1, 3, api_name="/restore")
    assert np.array_equal(pixels(path), expected(model, photo, 1, 3))
    with pytest.raises(exceptions.AppError, match="Choose a degraded photograph"):
        client.predict(None, "derain", 1, 3, api_name="/restore")


def test_the_page_in_a_browser(model, photo, page, tmp_path):
    sync = pytest.importorskip("playwright.sync_api")
    if not (chromium := shutil.which("chromium")):
        pytest.skip("needs the browser chromium")
    with sync.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view, asked = browser.new_page(), []
        view.on("request", lambda request: asked.append(urlparse(request.url)))
        view.goto(page.local_url)
        view.get_by_role("button", name="Restore").click()
        view.get_by_text("Choose a degraded photograph first.").wait_for()
        view.locator("#photo input[type=file]").set_input_files(photo)
        view.locator("#photo img").wait_for()
        view.get_by_label("Network calls").first.fill("2")
        view.get_by_label("Seed").fill("5")
        view.get_by_label("Seed").blur()
        view.get_by_role("button", name="Restore").click()
        view.locator("#result img").first.wait_for(timeout=120_000)
        with view.expect_download() as download:
            view.locator("#download").click()
        assert download.value.suggested_filename == f"{NAME}-derain.png"
        download.value.save_as(tmp_path / "restored.png")
        browser.close()
    assert np.array_equal(pixels(tmp_path / "restored.png"), expected(model, photo, 2, 5))
    assert {url.hostname for url in asked if url.scheme.startswith(("http", "ws"))} == {"127.0.0.1"}
