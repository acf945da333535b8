"""Instantiate."""

import hydra

from irbridge.errors import UserError
from irbridge.experiments.names import present


def _innermost(error: Exception) -> Exception:
    """What an exception comes from; a UserError says it, whatever it comes from itself."""
    while error.__cause__ is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error


def instantiate(config, *args, **kwargs):
    """Hydra's instantiate, with constructor errors as :class:`UserError`."""
    try:
        return hydra.utils.instantiate(present(config), *args, **kwargs)
    except Exception as error:
        if isinstance(cause := _innermost(error), UserError):
            raise cause from None
        target = config.get("_target_", "The configured object")
        raise UserError(f"{target} cannot be built: {cause}".strip() + ".") from error
