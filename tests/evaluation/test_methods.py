"""The rows of a trained model: which noise an image gets, and what its records are looked up by."""

from types import SimpleNamespace

import numpy as np

from irbridge.evaluation.methods import Trained, methods
from irbridge.gaussian.noise import image_seed
from irbridge.models.restorer import Row


def test_an_image_has_noise_of_its_own_and_changed_fields_are_part_of_the_key():
    asked = []
    model = SimpleNamespace(
        samples=1,
        sees_clean=False,
        rows=lambda **options: [SimpleNamespace(label="x", key="irbridge", nfe=3, options=options)],
        restore=lambda image, **given: asked.append(given["seeds"]) or image,
    )
    trained = Trained("w", "s")
    (row,) = methods(model, 7, trained, eta=0.5)
    for name in ("a", "b", "a"):
        row.restore(np.zeros((4, 4, 3)), name)
    assert asked == [[image_seed(7, name)] for name in ("a", "b", "a")] and asked[0] != asked[1]
    keys = {
        methods(model, 7, base, **fields)[0].settings
        for base in (trained, Trained("w", "bf16"))
        for fields in ({"eta": 0.5}, {"eta": 0.25}, {})
    }
    assert len(keys) == 6 and row.settings in keys


def averaged(random, nfe):
    """Label and calls of the rows of a model whose images are means of 4 draws."""
    model = SimpleNamespace(
        samples=4,
        sees_clean=False,
        random=lambda **options: random,
        rows=lambda **options: [Row("x", "x", {}, nfe)],
    )
    return [(method.label, method.nfe) for method in methods(model, 0)]


def test_a_mean_of_draws_is_a_row_of_what_has_noise():
    assert averaged(True, 3) == [("x", 3), ("x, mean of 4 samples", 12)]
    assert averaged(True, None) == [("x", None), ("x, mean of 4 samples", None)]
    assert averaged(False, 3) == [("x", 3)]
