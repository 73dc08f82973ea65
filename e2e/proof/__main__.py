"""The command line of the proof; see e2e/run."""

import argparse
import importlib
import subprocess
import sys
import time

from . import harness, install
from .cluster import E2E

GROUPS = ["g1_injection", "g2_clients", "g3_modes", "g4_policy", "g5_escapes", "g6_failures", "g7_metrics", "g8_protocols", "g10_upstreams", "g11_memory", "g12_node", "g13_ledger", "g9_chart", "g14_shared"]  # the chart late: it replaces agents; the shared store last: it takes the volume


def main():
    parser = argparse.ArgumentParser(prog="e2e/run")
    parser.add_argument("-k", metavar="PATTERN", default="", help="run the tests whose group and name match this regular expression")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up")
    parser.add_argument("--list", action="store_true", help="name the tests and end")
    options = parser.parse_args()
    for group in GROUPS:
        importlib.import_module(f"proof.{group}")
    if options.list:
        for group, sentence, _ in harness.TESTS:
            print(f"{group}: {sentence}")
        return 0
    started = time.monotonic()
    install.prepare()
    print(f"everything is up ({time.monotonic() - started:.0f} s)", flush=True)
    passed, failed = harness.run_all(options.k, install.explain)
    if not options.keep:
        take_down()
    print(f"in {time.monotonic() - started:.0f} s:")
    print(f"{passed} passed, {failed} failed")
    return 0 if passed and not failed else 1


def take_down():
    for command in (["world/world.py", "down"], ["cluster/down"]):
        subprocess.run([str(E2E / command[0]), *command[1:]])


if __name__ == "__main__":
    sys.exit(main())
