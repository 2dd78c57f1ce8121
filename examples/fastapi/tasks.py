"""What the worker does: celeriac -A tasks worker -l info."""

import time

from celeriac import Celeriac

app = Celeriac("reports")  # without a broker, tasks queue in a file on this machine


@app.task
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y


@app.task(bind=True)
def report(self, pages: int, seconds_per_page: float = 0.1) -> str:
    """Write a report, and tell how far it has come."""
    for page in range(pages):
        self.update_progress(page, pages, "writing")
        time.sleep(seconds_per_page)
    return f"a report of {pages} pages"
