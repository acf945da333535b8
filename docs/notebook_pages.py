"""Notebooks as pages of the site: their text, their code and their stored outputs.

A hook of mkdocs. Nothing is run, and nothing is loaded from elsewhere.
"""

import base64
import json
from collections.abc import Iterator

from mkdocs.structure.files import File

IMAGES = {"image/jpeg": "jpg", "image/png": "png"}


class NotebookPage(File):
    """A notebook whose content is Markdown."""

    def is_documentation_page(self) -> bool:
        """A page, whatever its name ends in."""
        return True


def on_files(files, config):
    """Replace each notebook by its page and the images of its outputs."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        notebook = json.loads(file.content_string)
        stem = file.src_uri.removesuffix(".ipynb")
        images = {}
        text = "\n\n".join(markdown(notebook, stem.rpartition("/")[2], images))
        files.remove(file)
        files.append(NotebookPage.generated(config, file.src_uri, content=text))
        folder = stem.rpartition("/")[0]
        for name, content in images.items():
            files.append(File.generated(config, f"{folder}/{name}", content=content))
    return files


def markdown(notebook: dict, name: str, images: dict[str, bytes]) -> Iterator[str]:
    """The blocks of a page.

    Args:
        notebook: as its file has it.
        name: what its images' names begin with.
        images: is given the images of the outputs by their names.
    """
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield source
        elif cell["cell_type"] == "code":
            yield fenced(source, "python")
            if said := "".join(printed(cell)).strip("\n"):
                yield fenced(said, "text")
            for output in cell["outputs"]:
                yield from shown(output.get("data", {}), name, images)


def printed(cell: dict) -> Iterator[str]:
    """What a cell printed; what went to stderr, such as progress bars, is left out."""
    for output in cell["outputs"]:
        if output["output_type"] == "stream" and output["name"] == "stdout":
            yield "".join(output["text"])


def shown(data: dict, name: str, images: dict[str, bytes]) -> Iterator[str]:
    """A cell's value as a block: an image or text."""
    for kind, ending in IMAGES.items():
        if kind in data:
            file = f"{name}-{len(images) + 1}.{ending}"
            images[file] = base64.b64decode("".join(data[kind]))
            yield f"![output]({file})"
            return
    if "text/plain" in data:
        yield fenced("".join(data["text/plain"]), "text")


def fenced(text: str, language: str) -> str:
    """A block of code."""
    return f"```{language}\n{text}\n```"
