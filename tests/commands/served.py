"""The demo page on a free port of this machine."""

import socket
from contextlib import contextmanager

from irbridge.commands.demo import launch


@contextmanager
def served(blocks):
    """Within the block the page answers; it is closed at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch(blocks, server_port=port, prevent_thread_lock=True)
    yield blocks
    blocks.close()
