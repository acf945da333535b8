"""Operators that are computed by deepinv, which is imported where one is made and not before."""

from abc import abstractmethod
from importlib import import_module

import torch
from torch import Tensor
from typing_extensions import override

from irbridge.errors import UserError
from irbridge.operators.base import Operator


def deepinv(what: str, module: str = "physics"):
    """A module of deepinv.

    Args:
        what: needs it, as the error says it, such as ``operator=blur``.
        module: of deepinv.

    Raises:
        UserError: deepinv is not installed, or cannot be imported.
    """
    try:
        return import_module(f"deepinv.{module}")
    except ImportError as error:
        raise UserError(f'{what} needs deepinv; pip install -e ".[inverse]".') from error


class PhysicsOperator(Operator):
    """A linear operator of deepinv's.

    deepinv keeps a physics in one dtype on one device. So that an operator follows its argument, a
    physics of each is made where it is first asked for, and kept.
    """

    def __init__(self, size: tuple[int, int, int]):
        super().__init__(size)
        self._made = {}
        deepinv(f"operator={self.name}")

    @abstractmethod
    def make(self, dtype: torch.dtype, device: torch.device):
        """The deepinv physics in a dtype and on a device."""

    def physics(self, like: Tensor):
        """The deepinv physics in the dtype and on the device of a tensor."""
        key = like.dtype, like.device
        if key not in self._made:
            with torch.inference_mode(False):  # it may be asked for gradients later
                self._made[key] = self.make(*key)
        return self._made[key]

    @override
    def __call__(self, x):
        return self.physics(x).A(x)

    @override
    def adjoint(self, m):
        return self.physics(m).A_adjoint(m)
