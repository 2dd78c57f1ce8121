"""A client that sends until it is told or killed: every call is written down before and after.

Run as ``python -m faults.sender PREFIX COUNT HOW PAUSE_SECONDS`` with the program's environment.
"""

import sys
import time

from faults.program import app, ledger


def main(prefix: str, count: int, how: str, pause_seconds: float) -> None:
    """Send."""
    for number in range(count):
        key = f"{prefix}-{number}"
        ledger.write("intent", key)
        try:
            app.send_task("faults.work", [how], task_id=key)
        except Exception as exc:
            ledger.write("refused", key, state=type(exc).__name__)
        else:
            ledger.write("confirmed", key)
        if pause_seconds:
            time.sleep(pause_seconds)
    print("sent", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
