"""The command ``irbridge demo``, a web page: a photograph, a task, before and after."""

import os
import re
import socket
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from ipaddress import ip_address
from pathlib import Path

from irbridge.assets import find, shipped
from irbridge.commands.options import DemoOptions, RestoreOptions
from irbridge.environment import device as to_device
from irbridge.errors import UserError, unknown
from irbridge.experiments.build import from_pretrained, precision_of
from irbridge.experiments.config import one_sentence
from irbridge.experiments.saved import read_settings
from irbridge.gaussian.noise import image_seed
from irbridge.images.arrays import to_bytes
from irbridge.images.holes import CLEAR, holes_of
from irbridge.images.photo import read_photo, write_photo
from irbridge.restoration.memory import Plan, footprint

# as the restore command cuts photographs where it is not told: the pixels are the command's
UPLOAD = "200mb"  # the largest file that the page takes: more than photographs are
LONGEST_STEM = 150  # bytes of a photograph's name that its result keeps
CUTS = {key: getattr(RestoreOptions, key) for key in ("tile", "memory", "overlap", "batch")}


def models(run: str | None = None) -> dict[str, Path]:
    """What the page offers, name -> folder: the shipped adapters, then ``run``.

    Raises:
        UserError: there is none at all, or the run is none.
    """
    found = shipped()
    if run is not None:
        folder = find(os.path.expanduser(run))
        # a wrong folder must show now, not at the first photograph
        read_settings(folder / "config.json")
        name = folder.resolve().name
        found[name if name not in found else str(folder)] = folder
    if not found:
        raise UserError(
            "data/adapters holds no trained adapter; give run=FOLDER, a run that irbridge train"
            " made."
        )
    return found


def own_calls(folder: Path) -> int:
    """The calls of the frozen prior that a trained model was made for; 0: its anchor alone."""
    config = read_settings(folder / "config.json")
    chosen = [
        (config.get("sampler") or {}).get("nfe"),
        ((config.get("task") or {}).get("sampler") or {}).get("nfe"),
    ]
    return next((calls for calls in chosen if calls is not None), 3)


def loader(folders: dict[str, Path], device, precision: str) -> Callable:
    """A function of (name, calls) that gives the model of that name, loaded once.

    Its precision is the one that ``irbridge restore`` chooses for so many calls.
    """
    load = cache(lambda name: from_pretrained(folders[name], device))
    fitting = cache(
        lambda name, calls: precision_of(load(name), folders[name], precision, nfe=calls)
    )

    def model(name: str, calls: int):
        load(name).precision = fitting(name, calls)
        return load(name)

    return model


def restore(
    model, file: str, name: str, label: str, steps: int, seed: int, folder: str, progress: Callable
):
    """Restore one photograph, to the very pixels of ``irbridge restore``.

    Args:
        model: that restores.
        file: the photograph.
        name: what its owner calls it.
        label: what the name of the result ends with.
        steps: calls of the frozen network.
        seed: of the noise, together with the name.
        folder: that the result is written below.
        progress: called with (done, all) tiles.

    Returns:
        (before, after), uint8 (H, W, 3), and the path of the restored PNG.

    Raises:
        UserError: the file is no image, or the steps do not fit.
    """
    try:
        photo = read_photo(file)
    except UserError as error:
        raise UserError(str(error).replace(str(file), name)) from error
    done, stem = 0, Path(name).stem
    sides = photo.pixels.shape[:2]
    cuts = Plan(model, footprint(model, steps=steps), **CUTS).tiles(*sides)
    total = model.passes(steps=steps) * cuts.count(*sides, model.stride)

    def step(tiles: int) -> None:
        nonlocal done
        done += tiles
        progress((done, total))

    tiles = replace(cuts, progress=step)
    holes = holes_of(photo, Path(name), None, f"give {CLEAR}") if model.masked else None
    photo = replace(photo, alpha=None) if model.masked else photo  # what was transparent is filled
    restored = model.restore(
        photo.visible, mask=holes, seeds=[image_seed(seed, stem)], steps=steps, tiles=tiles
    )
    path = Path(tempfile.mkdtemp(dir=folder)) / f"{stem}-{label}.png"
    write_photo(path, photo, restored)
    return (to_bytes(photo.pixels), to_bytes(photo.shown(restored))), path


def build_demo(
    folders: dict[str, Path] | None = None,
    task: str | None = None,
    device: str = "auto",
    precision: str = "auto",
):
    """The page, a ``gradio.Blocks`` to be started with :func:`launch`.

    Args:
        folders: what it offers, see :func:`models`.
        task: that is selected at first.
        device: that restores.
        precision: that it restores in, as of ``irbridge restore``.

    Raises:
        UserError: gradio is not installed, or task or device is not there.
    """
    gr = _gradio()
    folders, place = folders or models(), to_device(device)
    task = task or ("derain" if "derain" in folders else min(folders))
    if task not in folders:
        remedy = f"choose one of {', '.join(folders)}, or give run=FOLDER"
        raise unknown(f"task={task} has no adapter here", task, folders, remedy)
    model = loader(folders, place, precision)
    with gr.Blocks(title="irbridge", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown(
            "# irbridge\nRestore a degraded photograph, on the machine that serves this page."
        )
        with gr.Row():
            with gr.Column(scale=2):
                asked = _questions(gr, folders, task)
                button = gr.Button("Restore", variant="primary", elem_id="restore")
            with gr.Column(scale=3):
                shown = _answers(gr)
        _, name, steps, _ = asked
        download = shown[1]
        name.change(lambda chosen: own_calls(folders[chosen]), name, steps, api_name=False)
        # One at a time: the models are shared, and two restorations would only wait for the same
        # processor.
        answer = _answer(gr, model, download.GRADIO_CACHE)
        done = button.click(answer, asked, shown, api_name="restore", concurrency_limit=1)
        done.success(lambda: gr.DownloadButton(interactive=True), None, download, api_name=False)
    return page


def _gradio():
    """The package gradio; UserError where it is not installed."""
    # before the import: nothing is asked of other machines
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError:
        raise UserError(
            'The web page needs gradio, which is not installed; run pip install -e ".[demo]".'
        ) from None
    return gradio


def _answer(gr, model: Callable, folder: str) -> Callable:
    """What a click on the button does: a :func:`loader`'s model restores into ``folder``."""

    def answer(photo, name, steps, seed, progress=gr.Progress()):  # noqa: B008 (gradio's way)
        if photo is None or seed is None:
            raise gr.Error(
                "Give a seed such as 0." if photo else "Choose a degraded photograph first."
            )
        called = plain_name(photo.orig_name or Path(photo.path).name)
        try:
            progress(0, desc="Loading the model")
            return restore(
                model(name, int(steps)),
                photo.path,
                called,
                Path(name).name,
                int(steps),
                int(seed),
                folder,
                lambda part: progress(part, desc="Restoring", unit="tiles"),
            )
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None
        except Exception as error:  # whatever it is, the page says it and goes on
            if os.environ.get("IRBRIDGE_DEBUG") == "1":
                traceback.print_exception(error)
            raise gr.Error(
                f"{called} cannot be restored ({one_sentence(error).rstrip('.')}); try a smaller"
                " one, or another.",
                print_exception=False,
            ) from error

    return answer


def plain_name(given: str) -> str:
    """The name of an uploaded file as the name of a result may continue it.

    What a browser sends can be anything. Left out are folders, signs that cannot be shown, NUL
    among them, dots at the beginning, and what is too long for a file's name.
    """
    last = re.split(r"[/\\]", given)[-1]
    shown = "".join(sign for sign in last if sign.isprintable()).strip().lstrip(".")
    stem, suffix = os.path.splitext(shown)
    stem = stem.encode()[:LONGEST_STEM].decode(errors="ignore").strip()
    return (stem or "photo") + suffix[:10]


class OwnHosts:
    """Answers requests that name this machine alone (ASGI middleware).

    A page elsewhere can have its own name lead to this machine's address, and would then be taken
    by the browser for the page itself (DNS rebinding).

    Args:
        app: that answers.
        names: of this machine, besides its addresses and localhost.
    """

    def __init__(self, app, names: list[str]):
        self.app = app
        self.names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope, receive, send):
        """Pass a request on, or refuse it with a sentence."""
        host = dict(scope.get("headers") or []).get(b"host", b"").decode("latin-1")
        if scope["type"] not in ("http", "websocket") or self.own(host):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            text = b"This page answers under its own address alone."
            plain = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 403, "headers": plain})
            await send({"type": "http.response.body", "body": text})

    def own(self, host: str) -> bool:
        """Whether a header Host, such as 127.0.0.1:7860, names this machine or an address."""
        name = re.sub(r":\d+$", "", host).strip("[]").lower()
        try:
            ip_address(name)
        except ValueError:
            return name in self.names
        return True


def _questions(gr, folders: dict[str, Path], task: str) -> list:
    """What the page asks for: photograph, task, calls of the prior, seed."""
    photo = gr.Image(
        label="Degraded photograph",
        sources=["upload", "clipboard"],
        height=320,
        elem_id="photo",
    )
    # The file and its own name, untouched: gradio would change the pixels' format and the name's
    # signs.
    photo.preprocess = lambda payload: payload
    name = gr.Radio(list(folders), value=task, label="Task", elem_id="task")
    steps = gr.Slider(
        0,
        20,
        value=own_calls(folders[task]),
        step=1,
        label="Calls of the frozen prior",
        elem_id="steps",
    )
    seed = gr.Number(0, label="Seed", precision=0, elem_id="seed")
    return [photo, name, steps, seed]


def _answers(gr) -> list:
    """What the page shows: before and after, and a button that downloads the result."""
    result = gr.ImageSlider(
        label="Before and after",
        format="png",
        buttons=["fullscreen"],
        interactive=False,
        elem_id="result",
    )
    return [result, gr.DownloadButton("Download", interactive=False, elem_id="download")]


def launch(page, **changes):
    """Start the page.

    Args:
        page: of :func:`build_demo`.
        changes: options of ``gradio.Blocks.launch``.

    Returns:
        What that returns.
    """
    import gradio as gr

    # no fonts from elsewhere
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    fixed = {
        "theme": theme,
        "share": False,
        "quiet": True,
        "ssr_mode": False,
        "footer_links": [],
        "max_file_size": UPLOAD,
        "show_error": True,
    }
    options = fixed | changes
    if not options["share"]:  # else it is public, under a name that gradio gives
        from starlette.middleware import Middleware  # of gradio's own needs

        names = [options.get("server_name") or "", socket.gethostname(), socket.getfqdn()]
        options["app_kwargs"] = {"middleware": [Middleware(OwnHosts, names=names)]}
    return page.launch(**options)


def demo_run(options: DemoOptions) -> None:
    """Serve the page until interrupted.

    Raises:
        UserError: an option names nothing that is here, or the port is taken.
    """
    found, host, port = models(options.run), options.host, options.port
    task = options.task or (list(found)[-1] if options.run else None)
    page = build_demo(found, task, options.device)
    try:
        launch(
            page,
            server_name=host,
            server_port=port,
            share=options.share,
            prevent_thread_lock=True,
        )
    except (OSError, OverflowError) as error:  # taken, or beyond 65535
        raise UserError(
            f"The page cannot be served at {host}:{port}; choose another port."
        ) from error
    print(f"Open {page.share_url or page.local_url} in a browser; Ctrl-C ends it.", flush=True)
    page.block_thread()
