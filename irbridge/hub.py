"""Models by name, from the project, a folder or the Hugging Face hub, and back to the hub.

On the hub a model is what it is in a folder: ``model.safetensors`` (what was trained; the frozen
network is named, never copied), ``config.json``, and ``README.md``, a model card whose metadata
hold its scores. What comes from the hub is data: it passes the same checks as any folder.
"""

import re
import shutil
from pathlib import Path

import huggingface_hub
import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData, ModelHubMixin

from irbridge.assets import shipped
from irbridge.errors import UserError
from irbridge.experiments.build import from_pretrained, trained
from irbridge.files import read_json, write_atomically, write_json
from irbridge.models.irbridge import IRBridge
from irbridge.models.restorer import Restorer
from irbridge.reports.model_card import private, without_paths
from irbridge.weights import rounded, save_weights

FILES = ["config.json", "run.json", "model.safetensors", "README.md", "restored.jpg"]
"""What a model's repository holds, and all that is ever downloaded of one."""
OWN_ROWS = {
    "regression": "Plain regression",
    "bridge": "Bridge from scratch",
    "refine": "Stochastic refinement",
    "hidiff": "HI-Diff",
}
"""How the row of a table begins that scores a model of this method; else see :func:`scores`."""
METRICS = {"PSNR": "psnr", "SSIM": "ssim", "LPIPS": "lpips"}
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_USE = """

## Use

```python
import irbridge

model = irbridge.load("{name}")
irbridge.write_image("restored.png", model.restore(irbridge.read_image("photo.jpg"), seed=0))
```
"""


def load(
    name: str | Path,
    device: str | torch.device = "cpu",
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    **options,
) -> Restorer:
    """A trained model, ready to restore.

    Args:
        name: a shipped adapter, such as "derain"; the folder of a run or of an exported adapter; or
            a model of the Hugging Face hub, such as "user/model".
        device: where it computes, such as "cuda".
        revision: branch, tag or commit of the hub's repository.
        token: of the hub, for a private repository; by default that of ``hf auth login``.
        options: further ones of :func:`irbridge.experiments.build.from_pretrained`, such as
            ``precision="auto"``.

    Returns:
        The model: its ``restore`` takes an image, its ``push_to_hub`` shares it.

    Raises:
        UserError: nothing of this name is here or on the hub, or a file of it is damaged.

    Example:
        ```python
        import irbridge

        model = irbridge.load("derain")
        restored = model.restore(irbridge.read_image("rain.jpg"), seed=0)
        ```
    """
    if trained(name).is_dir():
        return from_pretrained(name, device, **options)
    loaded = HubModel.from_pretrained(
        str(name), revision=revision, token=token, device=device, **options
    )
    return loaded.restorer


def push_to_hub(model: Restorer, repository: str, **options) -> str:
    """Upload a model to the hub; see :meth:`irbridge.models.restorer.Restorer.push_to_hub`."""
    if not _REPOSITORY.fullmatch(repository):
        raise UserError(f"{repository!r} is no name of the hub; give one such as user/model.")
    shared = HubModel(model, repository)
    try:
        return str(shared.push_to_hub(repository, **options))
    except UserError:
        raise
    except Exception as error:  # the hub's client and the network below it have many kinds
        raise UserError(
            f"{repository} could not be uploaded ({_reason(error)}); run `hf auth login` with a"
            " token that may write, and try again with a connection."
        ) from error


class HubModel(
    ModelHubMixin,
    library_name="irbridge",
    pipeline_tag="image-to-image",
    license="other",
    license_name="research-use",
    tags=["image-restoration", "diffusion-bridge"],
):
    """A model as the hub's own tools see it: they make the repository and the upload.

    Args:
        restorer: the model, loaded from a folder, which says how it is built again.
        name: of its repository, for the example in the card.
    """

    def __init__(self, restorer: Restorer, name: str = ""):
        if restorer.folder is None:
            raise UserError(
                "This model was built in memory, and no config says how to build it again; train"
                " it, or load it with irbridge.load, and push that."
            )
        self.restorer = restorer
        self.name = name

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        **options,
    ) -> "HubModel":
        """The model of a hub's repository.

        The base class would hand entries of the downloaded config to the constructor; here the
        files are fetched, and read as any folder is.

        Args:
            pretrained_model_name_or_path: the repository, "user/model".
            revision: branch, tag or commit.
            token: for a private repository.
            options: see :func:`load`.

        Raises:
            UserError: there is no such model, or the hub is out of reach.
        """
        name = pretrained_model_name_or_path
        known = ", ".join(shipped()) or "none is installed"
        nothing = f"{name!r} is neither a shipped adapter ({known}) nor a folder"
        if not _REPOSITORY.fullmatch(name):
            raise UserError(
                f"{nothing}; check the spelling, or give a model of the hub as user/model."
            )
        try:
            folder = huggingface_hub.snapshot_download(
                name, revision=revision, token=token, allow_patterns=FILES
            )
        except Exception as error:  # likewise
            raise UserError(
                f"{nothing}, and the hub does not give it ({_reason(error)}); check the spelling,"
                " or the connection."
            ) from error
        return cls(from_pretrained(folder, **options), name)

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write all files of the repository."""
        source = self.restorer.folder
        weights = self.restorer.trainable().state_dict()
        save_weights(save_directory / "model.safetensors", weights, _smallest(weights))
        write_json(save_directory / "config.json", without_paths(self._config()))
        if (source / "run.json").is_file():
            write_json(save_directory / "run.json", private(read_json(source / "run.json")))
        if (source / "restored.jpg").is_file():
            shutil.copyfile(source / "restored.jpg", save_directory / "restored.jpg")
        text = str(self.generate_model_card())
        write_atomically(
            save_directory / "README.md", lambda path: path.write_text(text, encoding="utf-8")
        )

    def generate_model_card(self, *args, **kwargs) -> ModelCard:
        """The folder's card, or a short one of a run that has none, with the hub's metadata."""
        folder, config = self.restorer.folder, self._config()
        task = config["task"]["name"]
        if (folder / "README.md").is_file():
            text = _body((folder / "README.md").read_text(encoding="utf-8"))
        else:
            text = f"# {task}: {config['method']}\n\nTrained with irbridge {config['irbridge']}."
            if (folder / "table.md").is_file():
                text += "\n\n## Scores\n\n" + (folder / "table.md").read_text(encoding="utf-8")
        found = scores(text, self._row())
        data = ModelCardData(**self._hub_mixin_info.model_card_data.to_dict())
        data.tags = sorted({*data.tags, task})
        if found:
            data.model_name = self.name or task
            data.eval_results = found
        if self.name and "irbridge.load(" not in text:
            text = text.rstrip() + _USE.format(name=self.name)
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text.rstrip()}\n")

    def _config(self) -> dict:
        return read_json(self.restorer.folder / "config.json")

    def _row(self) -> str:
        """How the row begins that scores what the model does unless it is asked for else."""
        if isinstance(self.restorer, IRBridge) and not self.restorer.calls():
            return "Anchor g(y) alone"
        return OWN_ROWS.get(self._config()["method"], "IRBridge (")


def scores(text: str, row: str) -> list[EvalResult]:
    """The scores of one method in the tables of a card.

    Args:
        text: Markdown; above each table stands its protocol, such as "derain: rgb, 8 bit, ...; data
            held-back images; size 160; images 33."
        row: how the method's row begins.

    Returns:
        A result for each metric of each table that has the row.
    """
    found, caption, heads = [], "", []
    for line in text.splitlines():
        cells = [_plain(cell) for cell in line.strip().strip("|").split("|")]
        if not line.lstrip().startswith("|"):
            caption, heads = line.strip() or caption, []
        elif cells[0] == "Method":
            heads = cells
        elif heads and cells[0].startswith(row):
            found += _results(caption, dict(zip(heads[1:], cells[1:], strict=False)))
    return found


def _results(caption: str, row: dict[str, str]) -> list[EvalResult]:
    """The results of one row, heading -> cell."""
    task, _, about = caption.partition(":")
    parts = [part.strip() for part in about.partition(". ")[0].split(";")]
    data = next((p.removeprefix("data ") for p in parts if p.startswith("data ")), "images")
    found = []
    for heading, cell in row.items():
        name, number = heading.split(" ")[0], re.match(r"-?\d+(\.\d+)?", cell)
        if name in METRICS and number:
            found.append(
                EvalResult(
                    task_type="image-to-image",
                    task_name=f"image restoration: {task}",
                    dataset_type=re.sub(r"\W+", "-", f"{task} {data}".lower()).strip("-"),
                    dataset_name=f"{task}, {data}",
                    dataset_args={"protocol": "; ".join(parts)},
                    metric_type=METRICS[name],
                    metric_name=name,
                    metric_value=float(number[0]),
                )
            )
    return found


def _plain(cell: str) -> str:
    """A table's cell without its marks of best and second best."""
    return re.sub(r"\*\*|</?u>", "", cell).strip()


def _body(text: str) -> str:
    """A card without the metadata at its head."""
    return re.sub(r"\A---\n.*?\n---\n+", "", text, flags=re.DOTALL)


def _smallest(weights: dict[str, torch.Tensor]) -> torch.dtype | None:
    """The smallest type that holds every number exactly, as int8 or float16 of an export."""
    for dtype in torch.int8, torch.float16:
        left = rounded(weights, dtype)
        if all(torch.equal(left[name].to(w.dtype), w) for name, w in weights.items()):
            return dtype
    return None


def _reason(error: Exception) -> str:
    """The first line of what the hub's client says, or the kind of its error."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
