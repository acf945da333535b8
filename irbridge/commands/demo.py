"""The web page: a photograph, a task, before and after. Words of the command, all optional:
``port=7860 host=127.0.0.1 share=false device=auto task=derain run=FOLDER`` (a trained run of one's
own, added to the shipped adapters).
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from irbridge.assets import find, shipped
from irbridge.environment import device as to_device
from irbridge.errors import UserError
from irbridge.experiments.build import from_pretrained, precision_of
from irbridge.experiments.config import one_sentence
from irbridge.files import read_json
from irbridge.gaussian.noise import image_seed
from irbridge.images.arrays import to_bytes
from irbridge.images.holes import CLEAR, holes_of
from irbridge.images.photo import read_photo, write_photo
from irbridge.restoration.memory import Plan, footprint

DEFAULTS = {
    "port": "7860",
    "host": "127.0.0.1",
    "share": "false",
    "device": "auto",
    "task": None,
    "run": None,
}
# as configs/restore.yaml: the pixels are the command's
CUTS = {"tile": None, "memory": None, "overlap": 64, "batch": 4}


def options(words: list[str]) -> dict:
    """The command's words as values for the keys of ``DEFAULTS``; UserError for an unknown key or
    an unfit value.
    """
    given = dict(word.partition("=")[::2] for word in words)
    for key, value in given.items():
        if key not in DEFAULTS:
            raise UserError(
                f"{key!r} is no option of the page; use {', '.join(DEFAULTS)}, such as port=7860."
            )
        if not value:
            raise UserError(
                f"{key}= has no value; leave it out, or give one such as port=7860 or run=FOLDER."
            )
    chosen = DEFAULTS | given
    port, share = chosen["port"], chosen["share"].lower()
    if not port.isdecimal() or port == "0":
        raise UserError(f"port={port} must be a whole number such as 7860.")
    if share not in ("true", "false"):
        raise UserError(f"share={share} must be true or false.")
    return chosen | {"port": int(port), "share": share == "true"}


def models(run: str | None = None) -> dict[str, Path]:
    """What the page offers, name -> folder: the shipped adapters, then ``run``. UserError if there
    is none at all.
    """
    found = shipped()
    if run is not None:
        folder = find(os.path.expanduser(run))
        # a wrong folder must show now, not at the first photograph
        read_json(folder / "config.json")
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
    config = read_json(folder / "config.json")
    chosen = [
        (config.get("sampler") or {}).get("nfe"),
        ((config.get("task") or {}).get("sampler") or {}).get("nfe"),
    ]
    return next((calls for calls in chosen if calls is not None), 3)


def loader(folders: dict[str, Path], device, precision: str) -> Callable:
    """A function of (name, calls) that gives the model of that name, loaded once, in the precision
    that ``irbridge restore`` chooses for so many calls.
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
    """What ``irbridge restore`` computes, of the photograph ``file`` that its owner calls ``name``.

    Returns (before, after), uint8 (H, W, 3), and the path of the restored PNG in ``folder``, its
    name ending in ``label``. ``progress((done, all))`` counts tiles. UserError if the file is no
    image or the steps do not fit.
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
        photo.pixels, mask=holes, seeds=[image_seed(seed, stem)], steps=steps, tiles=tiles
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
    """The page, a ``gradio.Blocks`` to be started with :func:`launch`. ``folders`` are what it
    offers, see :func:`models`; ``task`` is selected at first. UserError without gradio, or if task
    or device is not there.
    """
    # before the import: nothing is asked of other machines
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio as gr
    except ImportError:
        raise UserError(
            'The web page needs gradio, which is not installed; run pip install -e ".[demo]".'
        ) from None
    folders, place = folders or models(), to_device(device)
    task = task or ("derain" if "derain" in folders else min(folders))
    if task not in folders:
        raise UserError(
            f"task={task} has no adapter here; choose one of {', '.join(folders)}, or give"
            " run=FOLDER."
        )
    model = loader(folders, place, precision)

    def answer(photo, name, steps, seed, progress=gr.Progress()):
        if photo is None or seed is None:
            raise gr.Error(
                "Give a seed such as 0." if photo else "Choose a degraded photograph first."
            )
        called = photo.orig_name or Path(photo.path).name
        try:
            progress(0, desc="Loading the model")
            return restore(
                model(name, int(steps)),
                photo.path,
                called,
                Path(name).name,
                int(steps),
                int(seed),
                download.GRADIO_CACHE,
                lambda part: progress(part, desc="Restoring", unit="tiles"),
            )
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None
        except (RuntimeError, MemoryError, OSError) as error:
            raise gr.Error(
                f"{called} cannot be restored ({one_sentence(error)}); try a smaller one."
            ) from error

    with gr.Blocks(title="irbridge", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown(
            "# irbridge\nRestore a degraded photograph, on the machine that serves this page."
        )
        with gr.Row():
            with gr.Column(scale=2):
                photo = gr.Image(
                    label="Degraded photograph",
                    sources=["upload", "clipboard"],
                    height=320,
                    elem_id="photo",
                )
                # The file and its own name, untouched: gradio would change the pixels' format and
                # the name's signs.
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
                button = gr.Button("Restore", variant="primary", elem_id="restore")
            with gr.Column(scale=3):
                result = gr.ImageSlider(
                    label="Before and after",
                    format="png",
                    buttons=["fullscreen"],
                    interactive=False,
                    elem_id="result",
                )
                download = gr.DownloadButton("Download", interactive=False, elem_id="download")
        name.change(lambda chosen: own_calls(folders[chosen]), name, steps, api_name=False)
        # One at a time: the models are shared, and two restorations would only wait for the same
        # processor.
        button.click(
            answer,
            [photo, name, steps, seed],
            [result, download],
            api_name="restore",
            concurrency_limit=1,
        ).success(lambda: gr.DownloadButton(interactive=True), None, download, api_name=False)
    return page


def launch(page, **changes):
    """Start the page; ``changes`` are options of ``gradio.Blocks.launch``. Returns what that
    returns.
    """
    import gradio as gr

    # no fonts from elsewhere
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    fixed = {"theme": theme, "share": False, "quiet": True, "ssr_mode": False, "footer_links": []}
    return page.launch(**fixed | changes)


def main(words: list[str]) -> None:
    """The command ``irbridge demo``: serve until interrupted. UserError for a mistake in the
    words.
    """
    given = options(words)
    found, host, port = models(given["run"]), given["host"], given["port"]
    page = build_demo(
        found, given["task"] or (list(found)[-1] if given["run"] else None), given["device"]
    )
    try:
        launch(
            page, server_name=host, server_port=port, share=given["share"], prevent_thread_lock=True
        )
    except (OSError, OverflowError) as error:  # taken, or beyond 65535
        raise UserError(
            f"The page cannot be served at {host}:{port}; choose another port."
        ) from error
    print(f"Open {page.share_url or page.local_url} in a browser; Ctrl-C ends it.", flush=True)
    page.block_thread()
