"""Group 17: WebSocket by Autobahn's suite, as client and as server, each with and without Chaperone between it and its peer: no case may go worse."""

import re
import subprocess

from . import autobahn
from .stage import MACHINE, STATE, command_line, environment, serve, test, verify

ECHO, SUITE = 4480, 4481
RUNNING = {}
WATCHES = """apiVersion: chaperone.dev/v1alpha1
kind: AgentPolicy
metadata: {name: watches, namespace: local}
spec:
  mode: Enforce
"""
# The most that is done to messages on their way: masks on their text, which take any length.
MASKS = WATCHES + """  masks:
    - name: pii
      detectors: [email, usSsn]
  audit: {level: RequestResponse}
"""
# Messages are held until they are whole, and read.
READS = MASKS + """  rules:
    - name: no-drop
      when: has(ws.text) && ws.text.contains("DROP TABLE")
      action: Deny
"""
# Cases whose messages are longer than the 1 MiB that a rule reads: they are denied, see docs/policy.md.
TOO_LONG = re.compile(r"9\.(1\.[4-6]|2\.[4-6]|[34]\.\d)$")


class Played:
    """The suite against its peer, with Chaperone between them where there is a policy; several run at once, for most of their time is waiting."""

    def __init__(self, found, words, policy):
        self.found, self.log, self.errors = found, None, STATE / f"{found.name}.err"
        if policy is None:
            words = ["ip", "netns", "exec", MACHINE, *map(str, words)]
        else:
            words, self.log = command_line("Enforce", *words, policy=policy)
        with open(self.errors, "w") as errors:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, env=environment())

    def verdicts(self, cases=autobahn.CASES):
        """How each case went, by the suite."""
        code = self.process.wait(timeout=900)
        assert code == 0, self.errors.read_text()[-2000:]
        verdicts = autobahn.findings(self.found)
        assert len(verdicts) == cases, len(verdicts)
        if self.log:
            assert verify(self.log).returncode == 0, verify(self.log).stdout
            closed = self.log.read_text().count('"kind":"ws.close"')
            assert closed >= cases, f"{closed} records of WebSocket connections that ended"
        return verdicts


def as_client(name, policy=None, cases=("*",)):
    """The suite as the agent, before a server that echoes."""
    if "echo" not in RUNNING:
        (STATE / "echo.py").write_text(autobahn.ECHO)
        RUNNING["echo"] = serve(autobahn.peer(), STATE / "echo.py", ECHO, port=ECHO)
    file, found = autobahn.specification(f"client-{name}", cases, servers=[{"agent": name, "url": f"ws://ws.test.example.com:{ECHO}"}])
    return Played(found, [*autobahn.wstest(), "-m", "fuzzingclient", "-s", file], policy)


def as_server(name, policy=None, cases=("*",)):
    """The suite as the upstream, with an agent that echoes."""
    port = SUITE + len(RUNNING)
    file, found = autobahn.specification(f"server-{name}", cases, url=f"ws://0.0.0.0:{port}", options={"failByDrop": False})
    RUNNING[name] = serve(*autobahn.wstest(), "-m", "fuzzingserver", "-u", "0", "-s", file, port=port, env=environment())
    (STATE / "ws-client.py").write_text(autobahn.CLIENT)
    return Played(found, [autobahn.peer(), STATE / "ws-client.py", f"ws://ws.test.example.com:{port}", name], policy)


def worse(direct, name, policy, verdicts, begin):
    """The cases that went worse than without Chaperone, twice: many have to be over within a second, which a busy machine may take."""
    found = autobahn.worse(direct, verdicts)
    unexpected = [case for case in found if not (policy is READS and TOO_LONG.match(case))]
    if unexpected:
        verdicts |= begin(f"{name}-again", policy, unexpected).verdicts(len(unexpected))
        found = autobahn.worse(direct, verdicts)
    return found


@test
def no_case_of_autobahn_goes_worse_with_chaperone_but_those_too_long_for_a_rule():
    policies = [("direct", None), ("watched", WATCHES), ("masked", MASKS), ("read", READS)]
    for role, begin in (("client", as_client), ("server", as_server)):
        playing = [(name, policy, begin(name, policy)) for name, policy in policies]
        verdicts = {name: played.verdicts() for name, _, played in playing}
        for name, policy, _ in playing:
            found = worse(verdicts["direct"], name, policy, verdicts[name], begin)
            good = sum(verdict in autobahn.PASSED for verdict, _ in verdicts[name].values())
            print(f"      Autobahn, as {role}, {name}: {good} of {len(verdicts[name])} cases pass, {len(found)} worse than without Chaperone", flush=True)
            expected = [case for case in verdicts["direct"] if TOO_LONG.match(case)] if policy is READS else []
            assert sorted(found) == sorted(expected), f"{role}, {name}: " + str({case: (verdicts["direct"][case], verdicts[name][case]) for case in found})
