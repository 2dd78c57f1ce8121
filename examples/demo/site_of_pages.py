"""A web site of its own with slow pages, so that the demo needs no internet."""

import contextlib
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGES = {"/": 0.3, "/news": 1.4, "/shop": 0.9, "/search": 2.0, "/forum": 1.1}
PAGES |= {"/wiki": 0.7, "/mail": 1.6, "/maps": 0.5, "/video": 0.4, "/weather": 0.8}  # seconds to answer


class Page(BaseHTTPRequestHandler):
    """Answers each page after its time, as a real site with a database behind it would."""

    def do_GET(self) -> None:
        """Wait, then answer with a page of some size."""
        if self.path not in PAGES:
            self.send_error(404)
            return
        time.sleep(PAGES[self.path])
        words = random.Random(self.path).choices(["root", "leaf", "stalk", "seed", "soup"], k=2000)
        body = f"<html><title>{self.path}</title><p>{' '.join(words)}</p></html>".encode()
        with contextlib.suppress(ConnectionError):  # who asked was stopped meanwhile
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet: the demo shows its own progress."""


class Site:
    """Serves the pages on a free port of the loopback interface while it is open."""

    def __enter__(self) -> "Site":
        """Begin to serve."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def urls(self) -> list[str]:
        """The address of every page."""
        return [f"http://127.0.0.1:{self._server.server_port}{path}" for path in PAGES]
