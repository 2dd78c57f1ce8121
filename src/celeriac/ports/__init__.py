"""The ports between the floors: what a transport, a backend and a pool owe to those above them.

Each port has one conformance suite in `celeriac.testing.conformance` that every implementation passes.
Drivers translate their own exceptions into `celeriac.errors` once, inside the implementation; nothing else
ever leaves a port.
"""

from __future__ import annotations

from celeriac.ports.backend import CountsParts as CountsParts
from celeriac.ports.backend import KeepsTimetable as KeepsTimetable
from celeriac.ports.backend import Listener as Listener
from celeriac.ports.backend import ResultBackend as ResultBackend
from celeriac.ports.backend import Waiting as Waiting
from celeriac.ports.consumer import Consumer as Consumer
from celeriac.ports.consumer import ConsumeSpec as ConsumeSpec
from celeriac.ports.consumer import Tethered as Tethered
from celeriac.ports.consumer import Unheard as Unheard
from celeriac.ports.fanout import Fanout as Fanout
from celeriac.ports.fanout import Subscription as Subscription
from celeriac.ports.pool import Pool as Pool
from celeriac.ports.pool import Service as Service
from celeriac.ports.transport import Caps as Caps
from celeriac.ports.transport import Graveyard as Graveyard
from celeriac.ports.transport import Producer as Producer
from celeriac.ports.transport import TellsVitals as TellsVitals
from celeriac.ports.transport import Transport as Transport
from celeriac.ports.transport import TransportFactory as TransportFactory
from celeriac.ports.transport import Vitals as Vitals
