"""The command line of the proof of `chaperone run`; see e2e/run-local."""

import importlib
import re
import signal
import subprocess
import sys
from pathlib import Path

from . import stage


def main():
    pattern = sys.argv[2] if sys.argv[1:2] == ["-k"] else ""
    for group in sorted(Path(__file__).parent.glob("l[0-9]*.py")):
        importlib.import_module(f"local.{group.stem}")
    tests = [(f"{f.__module__.rsplit('.', 1)[-1]}: {f.__name__.replace('_', ' ')}", f) for f in stage.TESTS]
    tests = [(name, function) for name, function in tests if re.search(pattern, f"{name} {function.__name__}")]
    stage.build()
    # So that the stage is struck.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    stage.STATE.chmod(0o755)
    passed = failed = 0
    try:
        stage.make_stage()
        for name, function in tests:
            try:
                function()
                passed += 1
                print(f"ok    {name}", flush=True)
            except (AssertionError, subprocess.SubprocessError, OSError, LookupError, ValueError) as error:
                failed += 1
                print(f"FAIL  {name}\n      {type(error).__name__}: {str(error)[:2000]}", flush=True)
    finally:
        stage.strike_stage()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
