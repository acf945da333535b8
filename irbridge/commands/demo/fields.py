"""The fields of the page: what it asks for, in the order of :class:`Asked`."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from irbridge.assets import called, experimental
from irbridge.commands.demo.asked import ADAPTER, ZERO_SHOT, Asked
from irbridge.commands.demo.uploads import samples
from irbridge.commands.demo.ways import own_calls
from irbridge.errors import UserError
from irbridge.operators.kernels import KERNELS
from irbridge.solvers.base import SOLVERS, solver_class

OPERATORS = {
    "denoise": "nothing but noise",
    "inpaint": "parts are missing",
    "sr": "it was reduced",
    "blur": "it was blurred",
    "colour": "it lost its colours",
    "jpeg": "JPEG of a low quality",
    "hdr": "contrast doubled and clipped",
}
"""What was done to a photograph, by the operator's word."""
NOISY = 0.1  # std that operator denoise begins with: the sample photograph's, 25 of 255
THUMBNAIL = 200  # pixels of a sample's longest side in the list


def from_this_machine(component):
    """A component that takes uploaded files alone; its value is left as it was uploaded.

    gradio would change the pixels' format and the name's signs, and fetch what a request names by
    an address.
    """
    cached = component.async_move_resource_to_block_cache

    async def uploaded(path):
        if path is not None and "://" in str(path):
            raise UserError("Photographs are uploaded to this page, never fetched for it.")
        return await cached(path)

    component.preprocess = lambda payload: payload
    component.async_move_resource_to_block_cache = uploaded
    return component


def examples(folders: dict[str, Path]) -> dict[str, Path]:
    """The sample photographs that something here restores, task -> file."""
    # without an adapter, a solver undoes noise
    return {task: file for task, file in samples().items() if task in folders or task == "denoise"}


def gallery(gr, shown: dict[str, Path]):
    """The sample photographs, to be clicked."""
    pictures = []
    for task, file in shown.items():
        with Image.open(file) as image:
            image.thumbnail((THUMBNAIL, THUMBNAIL))
            pictures.append((image.copy(), task))
    return gr.Gallery(
        pictures,
        label="Click a degraded sample",
        columns=9,
        height="auto",
        object_fit="cover",
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_id="samples",
    )


class Fields:
    """The components of the page's fields, made within a ``gradio.Blocks``.

    Args:
        gr: the package gradio.
        folders: of the trained models, by name.
        task: that is selected at first.

    Attributes:
        asked: the components, an :class:`Asked`.
        adapter: the group that belongs to a trained adapter.
        known: that of a known degradation.
        holes: that of what is to be filled.
        remark: says what is to be known of the selected adapter or degradation.
    """

    def __init__(self, gr, folders: dict[str, Path], task: str):
        photo = from_this_machine(
            gr.Image(
                label="Degraded photograph",
                sources=["upload", "clipboard"],
                buttons=["fullscreen"],
                height=300,
                elem_id="photo",
            )
        )
        ways = [("A trained adapter", ADAPTER), ("A known degradation (zero-shot)", ZERO_SHOT)]
        method = gr.Radio(ways, value=ADAPTER, label="Restored by", elem_id="method")
        with gr.Group() as self.adapter:
            choices = [(called(name, folder), name) for name, folder in folders.items()]
            name = gr.Radio(choices, value=task, label="Task", elem_id="task")
            steps = gr.Slider(
                0,
                20,
                value=own_calls(folders[task]),
                step=1,
                label="Calls of the frozen prior (0: the adapter's own estimate)",
                elem_id="steps",
            )
        with gr.Group(visible=False) as self.known:
            solving = self._solving(gr)
        self.remark = gr.Markdown(remark_of(folders[task]), elem_id="remark")
        with gr.Group(visible=False) as self.holes:
            painted, mask = self._masks(gr)
        seed = gr.Number(0, label="Seed of the noise", precision=0, elem_id="seed")
        self.asked = Asked(photo, name, steps, seed, method, *solving, painted, mask)

    def _solving(self, gr) -> list[Any]:
        """What is asked of a known degradation, from ``operator`` to ``quality``."""
        words = [(f"{word}: {said}", word) for word, said in OPERATORS.items()]
        solvers = [
            (f"{name} (experimental)" if solver_class(name).experimental else name, name)
            for name in SOLVERS
        ]
        operator = gr.Dropdown(
            words, value="denoise", label="Operator: what was done to it", elem_id="operator"
        )
        solver = gr.Dropdown(
            solvers, value="ddrm", label="Solver: how it is undone", elem_id="solver"
        )
        calls = gr.Slider(
            1, 1000, value=20, step=1, label="Calls of the frozen prior", elem_id="calls"
        )
        noise = gr.Number(
            NOISY,
            label="Noise of the photograph: std where white is 1",
            minimum=0,
            maximum=1,
            step=0.01,
            elem_id="noise",
        )
        hidden = {"visible": False}
        # as the command takes it, where it has what it needs for that
        reduction = "bicubic" if find_spec("deepinv") else "average"
        return [
            operator,
            solver,
            calls,
            noise,
            gr.Slider(2, 16, 4, step=1, label="Factor", elem_id="factor", **hidden),
            gr.Radio(["bicubic", "average"], value=reduction, label="Reduced by", **hidden),
            gr.Dropdown(list(KERNELS), value="gaussian", label="Kernel", **hidden),
            gr.Number(3, label="Width of the blur, pixels", minimum=0, elem_id="width", **hidden),
            gr.Number(0, label="Angle, degrees", elem_id="angle", **hidden),
            gr.Slider(1, 100, 10, step=1, label="Quality", elem_id="quality", **hidden),
        ]

    def _masks(self, gr) -> tuple[Any, Any]:
        """(what is painted, an uploaded mask)."""
        gr.Markdown("Paint white over what is to be filled.", container=True)
        painted = gr.ImageEditor(
            label="Mask",
            type="numpy",
            image_mode="RGBA",
            sources=[],
            transforms=[],
            layers=False,
            brush=gr.Brush(default_size=24, colors=["#ffffff"], color_mode="fixed"),
            buttons=["fullscreen"],
            elem_id="painted",
        )
        with gr.Accordion("Or upload a mask", open=False):
            mask = gr.File(
                label="An image of the photograph's size, white there",
                file_types=["image"],
                height=160,
                elem_id="mask",
            )
        return painted, from_this_machine(mask)


def remark_of(folder: Path) -> str:
    """What is to be known of an adapter before it is used, Markdown."""
    reason = experimental(folder)
    return f"**Experimental.** {reason}" if reason else ""
