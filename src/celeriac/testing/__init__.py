"""For those who test with Celeriac: conformance suites for drivers, and a worker inside the test process."""
