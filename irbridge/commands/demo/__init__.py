"""The command ``irbridge demo``: a page in the browser that restores photographs."""

from irbridge.commands.demo.page import build_demo
from irbridge.commands.demo.serving import launch
from irbridge.commands.demo.ways import models
from irbridge.commands.options import DemoOptions
from irbridge.errors import UserError


def demo_run(options: DemoOptions) -> None:
    """Serve the page until interrupted.

    Raises:
        UserError: an option names nothing that is here, or the port is taken.
    """
    found, host, port = models(options.run), options.host, options.port
    task = options.task or (list(found)[-1] if options.run else None)
    page = build_demo(found, task, options.device)
    try:
        launch(
            page,
            server_name=host,
            server_port=port,
            share=options.share,
            prevent_thread_lock=True,
        )
    except (OSError, OverflowError) as error:  # taken, or beyond 65535
        raise UserError(
            f"The page cannot be served at {host}:{port}; choose another port."
        ) from error
    print(f"Open {page.share_url or page.local_url} in a browser; Ctrl-C ends it.", flush=True)
    page.block_thread()
