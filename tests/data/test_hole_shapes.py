"""The shapes of holes: how much each kind masks, and what it looks like."""

import numpy as np
import pytest

from irbridge.data.hole_shapes import KINDS, WEIGHTS

MARKS = ["brush", "thin", "thick", "boxes", "scratches", "text", "blob"]


def rng(seed=0):
    return np.random.default_rng(seed)


def runs(mask):
    """Lengths of the horizontal runs of True."""
    edges = np.diff(np.pad(mask, [(0, 0), (1, 1)]).astype(int), axis=1)
    return np.nonzero(edges == -1)[1] - np.nonzero(edges == 1)[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (300, 9), (64, 96)])
def test_is_a_bool_mask_of_the_seed(kind, shape):
    for seed in range(5):
        mask = KINDS[kind](shape, 0.3, rng(seed))
        assert mask.shape == shape and mask.dtype == bool
        assert np.array_equal(mask, KINDS[kind](shape, 0.3, rng(seed)))
    assert WEIGHTS[kind] > 0


@pytest.mark.parametrize("kind", MARKS)
def test_masks_the_share_that_is_asked_for(kind):
    part = {"scratches": 3, "text": 2}.get(kind, 1)
    for share in (0.03, 0.3):
        means = [KINDS[kind]((256, 256), share, rng(k)).mean() for k in range(20)]
        assert min(means) >= share / part - 1e-3
        assert np.mean(means) < share / part + {"thick": 0.12, "boxes": 0.08}.get(kind, 0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_never_hides_all_of_an_image(kind):
    assert max(KINDS[kind]((64, 64), 1.0, rng(k)).mean() for k in range(20)) < 1


def test_strokes_are_as_wide_as_they_say():
    width = {
        kind: np.mean([np.median(runs(KINDS[kind]((256, 256), 0.15, rng(k)))) for k in range(10)])
        for kind in ("scratches", "thin", "brush", "thick")
    }
    assert width["scratches"] < width["thin"] < width["brush"] < width["thick"]
    assert width["scratches"] < 5 and 4 < width["thin"] < 10 and width["thick"] > 30


def test_brush_takes_a_width():
    narrow, wide = (
        np.median(runs(KINDS["brush"]((256, 256), 0.2, rng(), (w, w)))) for w in (4, 24)
    )
    assert narrow < 8 and wide > 16


def test_half_masks_either_side_or_top_or_bottom():
    masks = [KINDS["half"]((64, 80), 0.1, rng(k)) for k in range(40)]
    assert all(0.25 < mask.mean() < 0.65 for mask in masks)
    assert all(
        sum(mask[corner] for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1))) == 2 for mask in masks
    )
    assert len({tuple(mask[[0, 0, -1, -1], [0, -1, 0, -1]]) for mask in masks}) == 4


def test_frame_keeps_a_window_in_the_middle():
    for k in range(20):
        mask = KINDS["frame"]((64, 80), 0.1, rng(k))
        assert not mask[32, 40] and mask[0].all() and mask[:, 0].all() and 0.4 < mask.mean() < 0.95
        kept = ~mask
        assert np.array_equal(kept, np.outer(kept.any(axis=1), kept.any(axis=0)))


def test_lines_mask_every_second_row_or_column():
    masks = [KINDS["lines"]((64, 64), 0.1, rng(k)) for k in range(40)]
    for mask in masks:
        rows = mask if mask[0].all() or mask[1].all() else mask.T
        assert np.array_equal(rows[0], ~rows[1]) and np.array_equal(rows[:-2], rows[2:])
        assert np.array_equal(rows.all(axis=1), rows.any(axis=1))
    assert len({mask[:2, :2].tobytes() for mask in masks}) == 4


def test_lattice_keeps_one_pixel_of_each_cell():
    kept = {round(1 / (1 - KINDS["lattice"]((48, 48), 0.1, rng(k)).mean())) for k in range(30)}
    assert kept == {4, 9, 16}


def test_blob_is_one_piece():
    from scipy.ndimage import label

    for k in range(20):
        assert label(KINDS["blob"]((96, 96), 0.25, rng(k)))[1] == 1
