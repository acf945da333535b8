"""The one exception for mistakes that the user can mend."""


class UserError(Exception):
    """Bad input: the message is one sentence that names the thing and the remedy."""
