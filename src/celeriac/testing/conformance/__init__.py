"""What every transport and every result backend has to pass, as pytest classes.

Write a test module with one class per driver, derived from `TransportConformance` or
`BackendConformance`, and override the fixtures that say where the broker or the store is::

    class TestMine(TransportConformance):
        @pytest.fixture
        def broker_url(self) -> str:
            return "mine://localhost/7"

`celeriac.testing.conformance.machine.MachineTests` is one more class for transports: it tries random
sequences of calls against a model of the queue, and needs hypothesis.
"""
