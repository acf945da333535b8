"""How the page is served: to this machine's own names, offline, with nothing of other machines."""

import os
import re
import socket
from ipaddress import ip_address

from irbridge.errors import UserError

UPLOAD = "200mb"  # the largest file that the page takes: more than photographs are
CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
footer { display: none !important; }
#title h1 { margin: 0.2em 0 0; }
#samples .grid-container { grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)) !important; }
#path .grid-container { grid-template-columns: repeat(auto-fill, minmax(90px, 1fr)) !important; }
#samples .grid-wrap { padding-top: 34px; }
#samples .grid-wrap, #path .grid-wrap { min-height: 0 !important; max-height: none !important; }
#status .going, #status .fault { padding: 0.6em 0.8em; border-radius: 8px; }
#status .going { background: var(--background-fill-secondary); }
#status .fault { background: #fde8e8; color: #8a1c1c; }
#status progress { width: 100%; height: 8px; margin-top: 0.4em; accent-color: #2563eb; }
@media (max-width: 640px) {
  .gradio-container main, .gradio-container { padding: 6px !important; }
  #restore, #stop, #download { min-height: 48px; }
}
"""


def gradio_package():
    """The package gradio; UserError where it is not installed."""
    # before the import: nothing is asked of other machines
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError:
        raise UserError(
            'The web page needs gradio, which is not installed; run pip install -e ".[demo]".'
        ) from None
    return gradio


class OwnHosts:
    """Answers requests that name this machine alone (ASGI middleware).

    A page elsewhere can have its own name lead to this machine's address, and would then be taken
    by the browser for the page itself (DNS rebinding).

    Args:
        app: that answers.
        names: of this machine, besides its addresses and localhost.
    """

    def __init__(self, app, names: list[str]):
        self.app = app
        self.names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope, receive, send):
        """Pass a request on, or refuse it with a sentence."""
        host = dict(scope.get("headers") or []).get(b"host", b"").decode("latin-1")
        if scope["type"] not in ("http", "websocket") or self.own(host):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            text = b"This page answers under its own address alone."
            plain = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 403, "headers": plain})
            await send({"type": "http.response.body", "body": text})

    def own(self, host: str) -> bool:
        """Whether a header Host, such as 127.0.0.1:7860, names this machine or an address."""
        name = re.sub(r":\d+$", "", host).strip("[]").lower()
        try:
            ip_address(name)
        except ValueError:
            return name in self.names
        return True


def launch(page, **changes):
    """Start the page.

    Args:
        page: of :func:`irbridge.commands.demo.page.build_demo`.
        changes: options of ``gradio.Blocks.launch``.

    Returns:
        What that returns.
    """
    gr = gradio_package()
    # no fonts from elsewhere
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    fixed = {
        "theme": theme,
        "css": CSS,
        "share": False,
        "quiet": True,
        "ssr_mode": False,
        "footer_links": [],
        "max_file_size": UPLOAD,
        "show_error": True,
    }
    options = fixed | changes
    if not options["share"]:  # else it is public, under a name that gradio gives
        from starlette.middleware import Middleware  # of gradio's own needs

        names = [options.get("server_name") or "", socket.gethostname(), socket.getfqdn()]
        options["app_kwargs"] = {"middleware": [Middleware(OwnHosts, names=names)]}
    return page.launch(**options)
