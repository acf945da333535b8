"""An over-exposed photograph."""

from typing_extensions import override

from irbridge.operators.base import Operator

GAIN = 2.0


class HDR(Operator):
    """Twice the image, clipped to [-1, 1]: what is too bright or too dark is lost.

    It is not linear. Where values are clipped its gradient is zero. The start is half the
    measurement, as in RED-diff's program.
    """

    name = "hdr"
    linear = False

    @override
    def __call__(self, x):
        return (GAIN * x).clamp(-1, 1)

    @override
    def inverse(self, m):
        return m / GAIN

    @override
    def view(self, m):
        """The over-exposed image itself."""
        return m.clone()
