"""Blur kernels from numbers and from files."""

import numpy as np
import pytest
import torch
from PIL import Image

from irbridge.errors import UserError
from irbridge.operators import kernels


@pytest.mark.parametrize(
    "kernel",
    [
        kernels.uniform(9),
        kernels.gaussian(3.0, 61),
        kernels.gaussian(0.01),
        kernels.motion(15, seed=1),
        kernels.line(9.5, 30),
    ],
)
def test_a_kernel_sums_to_one_around_its_middle(kernel):
    assert kernel.dtype == torch.float64 and (kernel >= 0).all()
    assert abs(kernel.sum() - 1) < 1e-12
    rows, columns = kernel.shape
    assert rows % 2 and columns % 2
    for axis, side in ((1, rows), (0, columns)):
        centre = (kernel.sum(axis) * torch.arange(side)).sum()
        assert abs(centre - side // 2) < 0.05


def test_gaussian_has_its_std_and_line_its_angle():
    kernel = kernels.gaussian(3.0)
    at = torch.arange(len(kernel)) - len(kernel) // 2
    assert abs((kernel.sum(0) * at**2).sum().sqrt() - 3) < 0.05
    flat = kernels.line(9, 0)
    assert torch.allclose(flat[len(flat) // 2].sum(), torch.tensor(1.0).double())
    rising = kernels.line(9, 45)
    corner = rising[: len(rising) // 2, len(rising) // 2 + 1 :].sum()
    assert corner > 0.3  # it goes to the upper right


def test_motion_is_the_shake_that_the_training_data_has():
    from irbridge.data.degradations import Blur

    ours = kernels.motion(12.0, seed=3)
    theirs = Blur(extent=(12.0, 12.0)).kernel(np.random.default_rng(3))
    assert np.allclose(ours, theirs, atol=1e-6)
    assert torch.equal(ours, kernels.motion(12.0, seed=3))


def test_a_kernel_is_read_from_an_image_and_from_numbers(tmp_path):
    values = np.array([[0, 10, 0], [20, 200, 30]], np.uint8)
    Image.fromarray(values).save(tmp_path / "k.png")
    np.save(tmp_path / "k.npy", values.astype(np.float32))
    np.savetxt(tmp_path / "k.txt", values)
    for name in ("k.png", "k.npy", "k.txt"):
        read = kernels.read_kernel(tmp_path / name)
        assert read.dtype == torch.float64 and np.array_equal(read, values), name


def test_files_that_hold_no_kernel_are_one_sentence(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "complex.npy", np.ones((2, 2), complex))
    (tmp_path / "words.txt").write_text("a b\nc d")
    (tmp_path / "ragged.txt").write_text("1 2\n3")
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "none.png").write_bytes(b"no image")
    names = "objects.npy", "complex.npy", "words.txt", "ragged.txt", "broken.npy", "none.png"
    for name in (*names, "missing.txt", "missing.png"):
        with pytest.raises(UserError) as caught:
            kernels.read_kernel(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value), name
