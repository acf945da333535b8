"""The page itself: which field shows when, and what the buttons do."""

import os
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from irbridge.commands.demo.asked import ADAPTER, ZERO_SHOT, Asked
from irbridge.commands.demo.fields import NOISY, Fields, examples, gallery, remark_of
from irbridge.commands.demo.serving import gradio_package
from irbridge.commands.demo.uploads import named, placed, plainly, without_folders
from irbridge.commands.demo.watching import Watched, status
from irbridge.commands.demo.ways import Way, Ways, models, own_calls
from irbridge.commands.options import RestoreOptions
from irbridge.environment import device as to_device
from irbridge.errors import UserError, one_sentence, unknown
from irbridge.images.arrays import to_bytes
from irbridge.images.photo import read_photo
from irbridge.images.samples import read_header
from irbridge.restoration.jobs import Job
from irbridge.restoration.memory import Plan, footprint
from irbridge.restoration.restore import Restoring, restore_one
from irbridge.solvers.base import solver as named_solver

# as the restore command cuts photographs where it is not told: the pixels are the command's
CUTS = {key: getattr(RestoreOptions, key) for key in ("tile", "memory", "overlap", "batch")}
CANVAS = 800  # pixels of the longest side of what is painted on
USUAL = {"jpeg": "reddiff", "hdr": "reddiff"}  # solvers of operators that ddrm does not serve
# on a phone the results stand below the fields
TO_THE_RESULT = """() => {
  if (window.innerWidth <= 640) document.getElementById("status").scrollIntoView({block: "start"});
}"""
WIDTHS = {"gaussian": 3, "uniform": 9, "motion": 15, "line": 15}  # of blurs, as the command's


class Done(NamedTuple):
    """A restored photograph: before and after, uint8 (H, W, 3) of one size, and its PNG."""

    before: np.ndarray
    after: np.ndarray
    path: Path


def restore(way: Way, asked: Asked, folder: str | Path, watched: Watched) -> Done:
    """Restore one photograph, to the very pixels of ``irbridge restore``.

    Args:
        way: how.
        asked: what, and with which seed and mask.
        folder: that the result is written below.
        watched: is told how far it is.

    Raises:
        UserError: the file is no image, or does not fit the way.
    """
    watched.stage("Loading the model")
    model = way.load()
    with placed(folder, asked.photo, asked.painted, asked.mask) as place:
        output = place.folder / f"{place.source.stem}-{way.label}.png"
        cuts = Plan(model, footprint(model, **way.fields), **CUTS)
        settings = {"seed": asked.whole("seed", "Seed")}
        restoring = Restoring(
            model, way.fields, cuts, settings, way.label, way.degradation, way.enlarge
        )
        mask = place.mask if restoring.masked else None
        job = Job(place.source, output, mask=mask)
        watched.stage("Restoring", model.calls(**way.fields) * model.samples)
        restored = restore_one(job, restoring, watched.progress, watched.shown)
    after = to_bytes(restored.photo.shown(restored.pixels))
    before = to_bytes(restored.photo.pixels)
    for axis in (0, 1):  # of a smaller one each pixel is shown as a square
        before = before.repeat(after.shape[axis] // before.shape[axis], axis)
    return Done(before, after, output)


def canvas(upload) -> np.ndarray:
    """What is painted on: a photograph, uint8 (H, W, 3), holes white, reduced where it is large."""
    photo = read_photo(upload.path)
    pixels = photo.pixels
    if photo.alpha is not None:
        seen = photo.alpha[..., None].astype(np.float32) / (2**photo.bits - 1)
        pixels = pixels * seen + 1 - seen
    image = Image.fromarray(to_bytes(pixels))
    image.thumbnail((CANVAS, CANVAS))
    return np.asarray(image)


def build_demo(
    folders: dict[str, Path] | None = None,
    task: str | None = None,
    device: str = "auto",
    precision: str = "auto",
):
    """The page, a ``gradio.Blocks`` to be started with :func:`~.serving.launch`.

    Args:
        folders: what it offers, see :func:`~.ways.models`.
        task: that is selected at first.
        device: that restores.
        precision: of the adapters, as of ``irbridge restore``.

    Raises:
        UserError: gradio is not installed, or task or device is not there.
    """
    gr = gradio_package()
    folders = folders or models()
    to_device(device)  # a mistake shows here
    task = task or ("derain" if "derain" in folders else min(folders))
    if task not in folders:
        remedy = f"choose one of {', '.join(folders)}, or give run=FOLDER"
        raise unknown(f"task={task} has no adapter here", task, folders, remedy)
    page = Page(gr, Ways(folders, device, precision))
    with gr.Blocks(title="irbridge", analytics_enabled=False, delete_cache=(3600, 86400)) as blocks:
        page.lay_out(task)
        page.connect()
    return blocks.queue(max_size=64)


class Page:
    """The page's components and what they do.

    Args:
        gr: the package gradio.
        ways: that it offers.
    """

    def __init__(self, gr, ways: Ways):
        self.gr, self.ways = gr, ways
        self.samples = examples(ways.folders)

    def lay_out(self, task: str) -> None:
        """Make the components, from top to bottom as a phone shows them."""
        gr = self.gr
        gr.Markdown(
            "# irbridge\nRestore a degraded photograph, on the machine that serves this page.",
            elem_id="title",
        )
        self.gallery = gallery(gr, self.samples) if self.samples else None
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self.fields = Fields(gr, self.ways.folders, task)
                with gr.Row():
                    self.button = gr.Button(
                        "Restore", variant="primary", scale=3, min_width=120, elem_id="restore"
                    )
                    self.stop = gr.Button("Stop", scale=1, min_width=80, elem_id="stop")
            with gr.Column(scale=3, min_width=300):
                self.status = gr.HTML("", elem_id="status")
                self.estimate = gr.Image(
                    label="The estimate so far",
                    format="jpeg",
                    buttons=[],
                    interactive=False,
                    visible=False,
                    elem_id="estimate",
                )
                self.result = gr.ImageSlider(
                    label="Before and after",
                    format="png",
                    buttons=["fullscreen"],
                    interactive=False,
                    elem_id="result",
                )
                self.download = gr.DownloadButton(
                    "Download the PNG", interactive=False, elem_id="download"
                )
                with gr.Accordion("The estimates on the way", open=False, visible=False) as strip:
                    self.path = gr.Gallery(
                        show_label=False,
                        columns=4,
                        height="auto",
                        interactive=False,
                        buttons=[],
                        format="jpeg",
                        elem_id="path",
                    )
                self.strip = strip

    @property
    def answers(self) -> list:
        """The components that a restoration fills."""
        return [self.status, self.estimate, self.result, self.download, self.strip, self.path]

    def connect(self) -> None:
        """Say what happens where a field changes or a button is pressed."""
        gr, asked = self.gr, self.fields.asked
        # of no interface, and without a veil over what they fill
        quiet = {"api_name": False, "show_progress": "hidden"}
        asked.task.change(self.steps_of, asked.task, asked.steps, **quiet)
        solving = [asked.solver, asked.calls]
        first = [*solving, asked.noise]
        asked.operator.change(self.first_of, [asked.operator, asked.solver], first, **quiet)
        asked.solver.change(self.calls_of, [asked.operator, asked.solver], asked.calls, **quiet)
        asked.kernel.change(WIDTHS.get, asked.kernel, asked.width, **quiet)
        fields, shape = list(asked), self.shape()
        shaping = [asked.method, asked.task, asked.operator, asked.kernel]
        gr.on([field.change for field in shaping], self.shaped, fields, shape, queue=False, **quiet)
        telling = [field.change for field in (*shaping, asked.solver, asked.noise)]
        gr.on(telling, self.remark, fields, self.fields.remark, **quiet)
        ground = [asked.photo.change, asked.method.change, asked.task.change, asked.operator.change]
        gr.on(ground, self.ground, fields, [asked.painted, self.status], **quiet)
        if self.gallery is not None:
            chosen = [asked.photo, asked.method, asked.task, asked.operator]

            def clicked(event: gr.SelectData):  # gradio knows what to give by the type
                return self.sample(event.index)

            self.gallery.select(clicked, None, chosen, **quiet)
        event = self.button.click(
            self.answer,
            fields,
            self.answers,
            api_name="restore",
            show_progress="hidden",
            concurrency_limit=8,  # which take turns, and say so
        )
        self.button.click(None, js=TO_THE_RESULT)
        self.stop.click(self.stopped, None, self.status, cancels=event, **quiet)

    def shape(self) -> list:
        """The components that :meth:`shaped` shows or hides."""
        fields, asked = self.fields, self.fields.asked
        settings = [asked.factor, asked.reduction, asked.kernel, asked.width, asked.angle]
        return [
            fields.adapter,
            fields.known,
            fields.holes,
            *settings,
            asked.quality,
        ]

    def shaped(self, *given) -> list:
        """Which fields are shown."""
        asked, gr = Asked(*given), self.gr
        known, operator = asked.zero_shot, asked.operator
        blur = operator == "blur"
        shown = [
            not known,
            known,
            self.ways.fills(asked),
            operator == "sr",
            operator == "sr",
            blur,
            blur,
            blur and asked.kernel == "line",
            operator == "jpeg",
        ]
        return [gr.update(visible=visible) for visible in shown]

    def remark(self, *given) -> str:
        """What is to be known before the button is pressed, Markdown."""
        asked = Asked(*given)
        if not asked.zero_shot:
            return remark_of(self.ways.folders[asked.task])
        try:
            self.ways.of(asked)
        except UserError as error:
            return f"**This does not fit.** {error}"
        return (
            "What is said here must be true of the photograph; without an adapter it takes many"
            " calls."
        )

    def steps_of(self, task: str) -> int:
        """The calls that an adapter was made for."""
        return own_calls(self.ways.folders[task])

    def first_of(self, operator: str, solver: str) -> tuple[str, int, float]:
        """What an operator begins with: a solver that serves it, its calls, and the noise."""
        if operator in USUAL and solver == "ddrm":
            solver = USUAL[operator]
        return solver, self.calls_of(operator, solver), NOISY if operator == "denoise" else 0

    def calls_of(self, operator: str, solver: str) -> int:
        """The calls that a solver was published with."""
        return named_solver(solver).settled(operator).steps

    def ground(self, *given):
        """(what is painted on, status): the photograph where holes are to be painted."""
        asked, gr = Asked(*given), self.gr
        if asked.photo is None:
            return None, ""
        try:
            if not self.ways.fills(asked):
                read_header(asked.photo.path)  # a file that is no photograph shows here
                return None, ""
            return {"background": canvas(asked.photo), "layers": [], "composite": None}, ""
        except UserError as error:
            sentence = self.called(asked, str(error))
            gr.Warning(sentence)
            return None, status(sentence, fault=True)

    def called(self, asked: Asked, sentence: str) -> str:
        """A sentence that names the photograph as its owner does."""
        sentence = sentence.replace(str(asked.photo.path), named(asked.photo))
        return plainly(sentence, Path(asked.photo.path).parent)

    def sample(self, index: int) -> tuple:
        """A sample photograph, by its number, and by what it is restored."""
        gr = self.gr
        task, file = list(self.samples.items())[index]
        # a copy, as the page gives out nothing but what lies in its own folder
        folder = Path(tempfile.mkdtemp(dir=self.fields.asked.photo.GRADIO_CACHE))
        copy = folder / file.name
        copy.write_bytes(file.read_bytes())
        if task in self.ways.folders:
            return str(copy), ADAPTER, task, gr.skip()
        return str(copy), ZERO_SHOT, gr.skip(), "denoise"

    def stopped(self) -> str:
        """What is said where a restoration is stopped."""
        return status("Stopped.")

    def answer(self, *given) -> Iterator[list]:
        """Restore, and show it as it goes.

        Raises:
            gradio.Error: it cannot be done, in one sentence.
        """
        gr, asked = self.gr, Asked(*given)
        try:
            yield from self._answer(asked)
        except UserError as error:
            sentence = str(error) if asked.photo is None else self.called(asked, str(error))
        except Exception as error:  # whatever it is, the page says it and goes on
            if os.environ.get("IRBRIDGE_DEBUG") == "1":
                traceback.print_exception(error)
            reason = without_folders(one_sentence(error)).rstrip(".")
            sentence = self.called(
                asked,
                f"{named(asked.photo)} cannot be restored ({reason}); try a smaller one, or"
                " another.",
            )
        else:
            return
        yield self.said(status(sentence, fault=True), estimate=gr.update(visible=False))
        raise gr.Error(sentence, print_exception=False)

    def said(self, status, **updates) -> list:
        """Updates of :attr:`answers`: the status, and those that are given by name."""
        nothing = self.gr.skip()
        names = "estimate", "result", "download", "strip", "path"
        return [status, *(updates.get(name, nothing) for name in names)]

    def _answer(self, asked: Asked) -> Iterator[list]:
        gr = self.gr
        if asked.photo is None:
            raise UserError("Choose a degraded photograph first.")
        asked.whole("seed", "Seed")
        way, folder = self.ways.of(asked), self.download.GRADIO_CACHE
        watched = Watched(lambda watched: restore(way, asked, folder, watched))
        seen = 0
        yield self.said(
            status("Starting ..."),
            estimate=gr.update(value=None, visible=False),
            download=gr.update(interactive=False),
        )
        for _ in watched.follow():
            if watched.seen == seen:
                yield self.said(status(watched.words(), watched.share))
                continue
            seen = watched.seen
            yield self.said(
                status(watched.words(), watched.share),
                estimate=gr.update(value=watched.latest, visible=True),
                result=gr.update(visible=False),
            )
        done = watched.result()
        strip = [(shot, f"call {call}") for call, shot in watched.shots]
        height, width = done.after.shape[:2]
        yield self.said(
            status(f"Done in {watched.seconds():.1f} seconds: {width} x {height} pixels."),
            estimate=gr.update(visible=False),
            result=gr.update(value=(done.before, done.after), visible=True),
            download=gr.update(value=str(done.path), interactive=True),
            strip=gr.update(visible=len(strip) > 1),
            path=strip,
        )
