"""The web page: its words, its pixels and its mistakes; test_demo_browser opens it."""

import http.client
import json
import shutil
import socket
import sys
import threading
from types import SimpleNamespace
from urllib.parse import quote, urlparse

import numpy as np
import pytest
from PIL import Image
from served import served

from irbridge import cli
from irbridge.assets import called, experimental, shipped
from irbridge.commands import demo
from irbridge.commands.demo import page as demo_page
from irbridge.commands.demo import uploads, watching, ways
from irbridge.commands.demo.asked import ZERO_SHOT, Asked
from irbridge.commands.demo.serving import OwnHosts
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


class Told(watching.Watched):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__(print)
        self.parts = []

    def progress(self, done, total):
        self.parts.append((done, total))


def upload(path, name=None):
    """A file as gradio gives an upload."""
    return SimpleNamespace(path=str(path), orig_name=name or path.name)


def offered():
    """What the page restores with."""
    return ways.Ways(demo.models(), "cpu", "float32")


def restored(model, photo, folder, steps=1, seed=0, told=None, **fields):
    way = ways.Way("derain", {"nfe": steps}, lambda: model)
    asked = Asked(upload(photo), "derain", steps, seed, **fields)
    return demo_page.restore(way, asked, folder, told or Told())


@pytest.fixture(scope="module")
def page():
    """The page, served on a free port."""
    pytest.importorskip("gradio")
    # as the model that it is compared with
    with served(demo.build_demo(precision="float32")) as blocks:
        yield blocks


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
        ("port=70000", "from 1 to 65535"),
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
    told = Told()
    before, after, path = restored(model, photo, tmp_path, steps, seed, told)
    assert np.array_equal(before, to_bytes(read_image(photo))) and before.shape == (44, 40, 3)
    assert np.array_equal(after, expected(model, photo, steps, seed)) and np.array_equal(
        pixels(path), after
    )
    assert path.name == f"{NAME}-derain.png"
    assert told.parts == [(k + 1, steps + 1) for k in range(steps + 1)] and told.seen == steps
    # nothing of the upload is left, and nothing lies elsewhere
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_restores_by_a_known_degradation_as_the_command_does(photo, tmp_path, command):
    asked = Asked(
        upload(photo), "derain", 0, 3, ZERO_SHOT, "sr", "ddrm", 2, 0, factor=2, reduction="average"
    )
    way = offered().of(asked)
    told = Told()
    before, after, path = demo_page.restore(way, asked, tmp_path / "", told)
    assert before.shape == after.shape == (88, 80, 3) and told.seen == 2
    words = ["method=zeroshot", "solver=ddrm", "operator=sr", "operator.factor=2", "steps=2"]
    words += ["operator.kernel=average", "seed=3", "device=cpu", f"output={tmp_path / 'own.png'}"]
    status, _, error = command("restore", *words, f"input={photo}")
    assert status == 0, error
    assert path.read_bytes() == (tmp_path / "own.png").read_bytes()
    assert path.name == f"{NAME}-sr-ddrm.png"


def test_what_is_painted_or_uploaded_is_filled_and_nothing_else(tmp_path):
    """White is filled; the mask is painted on a smaller picture; what is uploaded counts more."""
    photo = tmp_path / "wall.png"
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(image).save(photo)
    layer, hole = np.zeros((12, 16, 4), np.uint8), np.zeros((24, 32), bool)
    layer[2:6, 4:10] = 255
    hole[4:12, 8:20] = True
    Image.fromarray(~hole).save(tmp_path / "rest.png")
    painted = {"layers": [np.zeros_like(layer), layer]}
    for mask, filled in ((None, hole), (upload(tmp_path / "rest.png"), ~hole)):
        asked = Asked(upload(photo), "inpaint", 0, 0, painted=painted, mask=mask)
        found = pixels(demo_page.restore(offered().of(asked), asked, tmp_path, Told()).path)
        assert np.array_equal(found[~filled], image[~filled])
        assert (found[filled] != image[filled]).any(axis=1).mean() > 0.9


@pytest.mark.parametrize(
    "painted, mask, said",
    [
        (None, None, "^wall.png does not say what to fill; paint over"),
        ({"layers": [np.zeros((12, 16, 4), np.uint8)]}, None, "^wall.png does not say what to"),
        (None, (24, 33), "^The mask m.png is 33 x 24 pixels, but wall.png is 32 x 24"),
        (None, "text", "^m.png is not a readable image"),
        (None, (24, 32), "^The mask m.png has one value everywhere"),
    ],
)
def test_masks_that_do_not_fit_are_a_sentence_without_folders(tmp_path, painted, mask, said):
    Image.new("RGB", (32, 24), (90, 120, 60)).save(tmp_path / "wall.png")
    if mask == "text":
        (tmp_path / "m.png").write_text("no picture")
    elif mask:
        values = np.zeros(mask, np.uint8)
        values[:2] = 255 * (mask[1] == 33)
        Image.fromarray(values).save(tmp_path / "m.png")
    mask = mask and upload(tmp_path / "m.png")
    asked = Asked(upload(tmp_path / "wall.png"), "inpaint", 0, 0, painted=painted, mask=mask)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=said) as error:
        demo_page.restore(offered().of(asked), asked, tmp_path / "out", Told())
    assert str(tmp_path) not in str(error.value)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"operator": "hdr", "solver": "ddrm"}, "use solver=dps or solver=reddiff"),
        ({"operator": "denoise", "solver": "ddrm"}, "without noise"),
        ({"operator": "colour", "solver": "ddrm", "noise": None}, "Noise is empty"),
        ({"operator": "sr", "solver": "ddrm", "factor": 2.5}, "Factor must be a whole number"),
        ({"operator": "blur", "solver": "ddrm", "kernel": "line"}, "Width of the blur is empty"),
        ({"operator": "denoise", "solver": "ddrm", "noise": 0.1, "calls": 0}, "steps"),
    ],
)
def test_what_does_not_fit_is_one_sentence(fields, said):
    asked = Asked(None, "derain", 0, 0, ZERO_SHOT, **{"calls": 20} | fields)
    with pytest.raises(UserError, match=said):
        offered().of(asked)


def test_two_restorations_take_turns_and_the_second_says_that_it_waits():
    inside, go = threading.Event(), threading.Event()

    def work(watched):
        watched.stage("Restoring", 3)
        inside.set()
        assert go.wait(20)
        return "first"

    first, second = watching.Watched(work), watching.Watched(lambda watched: "second")
    following = [first.follow(), second.follow()]
    next(following[0])
    assert inside.wait(20)
    next(following[1])
    assert second.words() == "Waiting for another photograph to be finished ..."
    go.set()
    assert list(following[0]) is not None and list(following[1]) is not None
    assert (first.result(), second.result()) == ("first", "second")


def test_a_restoration_that_nobody_follows_stops():
    ended = threading.Event()

    def work(watched):
        try:
            for step in range(10**6):
                watched.progress(step, 10**6)
                threading.Event().wait(0.01)
        finally:
            ended.set()

    following = watching.Watched(work).follow()
    next(following)
    following.close()
    assert ended.wait(20)


def test_progress_is_said_in_seconds(monkeypatch):
    watched, clock = watching.Watched(print), [0.0]
    monkeypatch.setattr(watching.time, "perf_counter", lambda: clock[0])
    watched.stage("Restoring", 100)
    for call in range(100):
        watched.shown(np.full((2, 2, 3), call / 100))
    watched.seen = 2
    watched.progress(2, 10)
    clock[0] = 1.0
    assert (
        watched.words() == "Call 3 of 100, 1 second so far, about 4 left" and watched.share == 0.2
    )
    calls = [call for call, _ in watched.kept]
    assert len(calls) <= watching.KEPT and len(set(np.diff(calls))) == 1
    assert watching.status("<b>", 0.5).count("<b>") == 0


def test_what_is_experimental_is_said_once_and_read_everywhere(command):
    reasons = {task: experimental(folder) for task, folder in shipped().items()}
    assert reasons["desnow"] and not reasons["derain"]
    page = demo_page.build_demo(precision="float32").config if _has_gradio() else None
    for task, reason in reasons.items():
        card = (shipped()[task] / "README.md").read_text("utf-8")
        assert (f"| Experimental | {reason} |" in card) == bool(reason)
        name = called(task, shipped()[task])
        assert name == (f"{task} (experimental)" if reason else task)
        assert name in " ".join(command("restore", "--help")[1].split())
        assert page is None or [name, task] in _choices(page)
    assert experimental(shipped()["desnow"] / "nowhere") == ""


def _has_gradio():
    return pytest.importorskip("gradio") is not None


def _choices(config):
    radio = next(c for c in config["components"] if c["props"].get("elem_id") == "task")
    return [list(choice) for choice in radio["props"]["choices"]]


def test_the_precision_is_the_commands_whatever_the_slider_says(tmp_path, monkeypatch):
    """A trial that finds half precision faster of the anchor alone."""
    folders = {"derain": tmp_path}
    shutil.copytree(demo.models()["derain"], tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["bf16_error"]  # that of the weights shipped today may rule it out
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(
        "irbridge.models.precision.remembered",
        lambda key, measure: {"bf16": not key["sampler"]["nfe"], "deviation": 0.0},
    )
    model, found = ways.loader(folders, "cpu", "auto"), {}
    for calls in (0, 3, 20, 0):
        found[calls] = model("derain", calls).precision
        assert (
            found[calls]
            == from_pretrained(folders["derain"], precision="auto", nfe=calls).precision
        )
    assert found == {0: "bf16", 3: "float32", 20: "float32"} and model("derain", 0) is model(
        "derain", 3
    )


def test_large_photographs_go_in_tiles(model, tmp_path, monkeypatch):
    monkeypatch.setitem(demo_page.CUTS, "tile", 512)
    Image.new("RGB", (530, 24), (90, 120, 60)).save(tmp_path / "wide.png")
    told = Told()
    _, after, _ = restored(model, tmp_path / "wide.png", tmp_path, told=told)
    # two tiles, through the anchor and one call
    assert after.shape == (24, 530, 3) and told.parts[-1] == (4, 4)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2)])
def test_tiny_photographs_come_back(model, tmp_path, size):
    Image.new("L", size, 90).save(tmp_path / "tiny.png")
    _, after, path = restored(model, tmp_path / "tiny.png", tmp_path)
    assert after.shape == (size[1], size[0], 3) and Image.open(path).mode == "L"


def test_what_a_photograph_has_besides_colours_is_kept(model, tmp_path):
    deep = np.linspace(0, 65535, 12 * 16).astype(np.uint16).reshape(12, 16)
    alpha = Image.linear_gradient("L").resize((16, 12))
    Image.fromarray(deep).save(tmp_path / "deep.png")
    clear = Image.new("RGB", (16, 12), (90, 120, 60))
    clear.putalpha(alpha)
    clear.save(tmp_path / "clear.png", icc_profile=b"profile")
    for name, mode in (("deep", "I;16"), ("clear", "RGBA")):
        _, _, path = restored(model, tmp_path / f"{name}.png", tmp_path)
        with Image.open(path) as image:
            assert image.mode == mode and image.size == (16, 12)
            if name == "clear":
                assert image.info["icc_profile"] == b"profile" and np.array_equal(
                    image.getchannel("A"), alpha
                )


def test_unreadable_files_are_called_by_their_own_name(model, tmp_path):
    (tmp_path / "letter.png").write_text("no picture")
    with pytest.raises(UserError, match="^letter.png is not a readable image"):
        restored(model, tmp_path / "letter.png", tmp_path)


def test_huge_photographs_are_refused_by_their_header(model, tmp_path, monkeypatch):
    monkeypatch.setenv("IRBRIDGE_MAX_PIXELS", "1000")
    Image.new("RGB", (40, 40)).save(tmp_path / "huge.png")
    with pytest.raises(UserError, match="^huge.png .*40 x 40"):
        restored(model, tmp_path / "huge.png", tmp_path)


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
    assert uploads.plain_name(given) == plain


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
    assert OwnHosts(None, ["studio"]).own(host) == own


def asking(page, path, query="GET", host=None, body=None):
    """(status, body) of a request."""
    address = urlparse(page.local_url)
    asked = http.client.HTTPConnection(address.hostname, address.port)
    headers = {"Host": host or address.netloc, "Content-Type": "application/json"}
    asked.request(query, path, body, headers)
    answer = asked.getresponse()
    return answer.status, answer.read().decode(errors="replace")


def test_the_page_refuses_other_hosts_and_large_files(page):
    for host, status in (("evil.example", 403), (None, 200)):
        assert asking(page, "/config", host=host)[0] == status
    assert page.max_file_size == 200 * 2**20


def test_the_page_names_no_folder_of_the_server_and_gives_out_none_of_its_files(page):
    status, config = asking(page, "/config")
    home = str(uploads.ROOT)
    assert status == 200 and home not in config
    for path in (shipped()["derain"] / "config.json", "/etc/passwd", "../../pyproject.toml"):
        status, body = asking(page, f"/gradio_api/file={quote(str(path))}")
        assert status in (403, 404) and home not in body.replace(str(path), "")


@pytest.fixture
def client(page, tmp_path):
    from gradio_client import Client

    return Client(page.local_url, verbose=False, download_files=tmp_path, analytics_enabled=False)


def call(client, photo, task="derain", steps=0, seed=3, **fields):
    """What the page's interface gives: (status, estimate, result, PNG, strip, path)."""
    asked = Asked(photo, task, steps, seed, operator="denoise", solver="ddrm", calls=2, noise=0.1)
    usual = {"factor": 4, "reduction": "average", "kernel": "gaussian", "width": 3, "angle": 0}
    asked = asked._replace(**usual | {"quality": 10} | fields)
    return client.predict(*asked, api_name="/restore")


def png(answer):
    """The restored PNG of what the interface gives, which comes as the button's update."""
    given = answer[3]["value"]
    return pixels(given["path"] if isinstance(given, dict) else given)


def test_a_damaged_upload_or_any_fault_is_a_sentence(client, tmp_path, monkeypatch):
    from gradio_client import exceptions, handle_file

    data = png16(np.random.default_rng(0).integers(0, 65536, (24, 32, 3), dtype=np.uint16))
    (tmp_path / "b.png").write_bytes(data[:-13] + bytes([data[-13] ^ 1]) + data[-12:])
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(exceptions.AppError, match=r"^b.png is not a readable image"):
        call(client, handle_file(tmp_path / "b.png"), steps=1)
    with pytest.raises(exceptions.AppError, match=r"^notes.txt is not a readable image"):
        call(client, handle_file(tmp_path / "notes.txt"))
    with pytest.raises(exceptions.AppError, match="Choose a degraded photograph"):
        call(client, None)
    with pytest.raises(exceptions.AppError, match="Seed is empty"):
        call(client, handle_file(tmp_path / "a.png"), seed=None)
    with pytest.raises(exceptions.AppError, match="a.png does not say what to fill; paint over"):
        call(client, handle_file(tmp_path / "a.png"), task="inpaint")
    with pytest.raises(exceptions.AppError, match="needs an operator that is linear"):
        call(client, handle_file(tmp_path / "a.png"), method=ZERO_SHOT, operator="hdr")
    with monkeypatch.context() as broken:
        broken.setattr(demo_page, "restore_one", lambda *args: {}["/home/secret/x"])
        with pytest.raises(exceptions.AppError, match="a.png cannot be restored") as error:
            call(client, handle_file(tmp_path / "a.png"))
        assert "secret" not in str(error.value)
    # and the server goes on
    assert "Done in" in call(client, handle_file(tmp_path / "a.png"))[0]


def test_nothing_is_read_or_fetched_that_was_not_uploaded(page):
    """Requests that no browser would send: files of the server, and addresses to fetch."""
    own = str(next(iter(uploads.samples().values())))
    fetched = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{fetched.getsockname()[1]}/photo.png"
    for path in (own, "/etc/passwd", address, "https://example.org/photo.png"):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        data = list(Asked(file, "derain", 0, 3, operator="denoise", solver="ddrm", calls=2))
        body = json.dumps({"data": data})
        status, answer = asking(page, "/gradio_api/call/restore", "POST", body=body)
        assert status == 200
        event = json.loads(answer)["event_id"]
        status, told = asking(page, f"/gradio_api/call/restore/{event}")
        assert "event: error" in told and "Done" not in told, told
        assert str(uploads.ROOT) not in told.replace(own, "")
    fetched.settimeout(0.2)
    with pytest.raises(TimeoutError):
        fetched.accept()


def test_the_page_by_its_interface(model, photo, client, tmp_path):
    from gradio_client import handle_file

    # this client, unlike a browser, hides what signs were dropped
    photo = shutil.copy(photo, tmp_path / "plain.jpg")
    answer = call(client, handle_file(photo), steps=1)
    assert np.array_equal(png(answer), expected(model, photo, 1, 3))
    assert "40 x 44 pixels" in answer[0]


def test_two_users_at_once_get_their_own(model, client, tmp_path):
    from gradio_client import handle_file

    jobs = []
    for number in range(4):
        values = np.random.default_rng(number).integers(
            0, 256, (24, 32 + number, 3), dtype=np.uint8
        )
        Image.fromarray(values).save(tmp_path / f"{number}.png")
        asked = Asked(handle_file(tmp_path / f"{number}.png"), "derain", number % 2, 3)
        usual = {"operator": "denoise", "solver": "ddrm", "calls": 2, "factor": 4, "width": 3}
        usual |= {"reduction": "average", "kernel": "gaussian", "angle": 0, "quality": 10}
        jobs.append(client.submit(*asked._replace(**usual), api_name="/restore"))
    for number, job in enumerate(jobs):
        wanted = expected(model, tmp_path / f"{number}.png", number % 2, 3)
        assert np.array_equal(png(job.result(120)), wanted)


def test_each_sample_is_offered_where_something_restores_it(tmp_path, monkeypatch):
    from irbridge.commands.demo import fields

    found = fields.examples(demo.models())
    assert {*demo.models(), "denoise"} <= {*found} and all(p.is_file() for p in found.values())
    assert all(read_image(path).shape[2] == 3 for path in found.values())
    monkeypatch.setattr(uploads, "SAMPLES", tmp_path / "nowhere")
    assert fields.examples(demo.models()) == {}
