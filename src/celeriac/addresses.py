"""Where an app's messages and results go, as people may see it: without passwords."""

from __future__ import annotations

from celeriac.app import Celeriac
from celeriac.net.url import mask


def of_messages(app: Celeriac) -> str:
    """Return the address of the broker.

    Raises:
        CeleriacError: There is no driver for it, or its URL cannot be read.
    """
    return app.transport.address


def of_results(app: Celeriac) -> str:
    """Return the address of the result store; ``disabled://`` when there is none.

    Raises:
        CeleriacError: There is no driver for it, or its URL cannot be read.
    """
    configured = app.conf.get("result_backend")
    if configured:
        return mask(str(configured))
    return "disabled://" if app.backend is None else app.transport.address
