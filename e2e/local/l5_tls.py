"""Group 5: TLS, its faults and its clients' habits."""

from .stage import ENFORCE, INTERNET_IP, MACHINE, STATE, environment, run, serve, sh, test
from .upstream_faults import FAULTS, Servers


@test
def an_upstream_at_fault_reaches_curl_as_the_same_error_as_without_chaperone():
    servers = Servers(STATE / "faults", INTERNET_IP, serve)
    (STATE / "faults").chmod(0o755)
    wrong = []
    for mode in (None, "Audit", "Enforce"):
        out = STATE / f"faults/{mode}"
        records = ask_all(servers, mode, out)
        for number, fault in enumerate(FAULTS):
            wrong += [f"{fault.name}, {mode or 'direct'}: {why}" for why in deviations(fault, mode, servers.heard(out, number), records.get(fault.port, []))]
    assert not wrong, "\n      ".join(wrong)


def ask_all(servers, mode, out):
    """Asks every server once: without Chaperone (mode None), or in one run under it. Returns the records by port."""
    root = servers.pki.folder / "root.pem"
    if mode is None:
        sh("ip", "netns", "exec", MACHINE, "bash", "-c", servers.script(out, "--cacert", str(root)), env=environment())
        return {}
    by_port = {}
    for record in run(mode, "bash", "-c", servers.script(out), policy=ENFORCE.replace("MODE", mode), extra_roots=root, timeout=300).records:
        by_port.setdefault(record.get("destination", {}).get("port"), []).append(record)
    return by_port


def deviations(fault, mode, heard, records):
    """What is not as the table says."""
    kind, status, body, error = heard
    heard = f"heard {kind} {status} {body[:300]} {error}"
    reasons = [r["gap"]["reason"] for r in records if "gap" in r] or [r["decision"]["reason"] for r in records if r["kind"] == "connection"]
    if mode != "Enforce":
        expected = fault.direct if mode is None else fault.audit
        if kind != expected or (kind == "well" and status != "200"):
            yield f"{heard}, not {expected}"
        if mode and fault.enforce != "slow" and (reasons[:1] or ["read"]) != [fault.enforce]:
            yield f"recorded as {reasons}, not {fault.enforce}"
    elif fault.enforce == "read":
        if (kind, status) != ("well", "200"):
            yield f"{heard}, not well"
    elif fault.enforce == "slow":
        if kind != "slow":
            yield f"{heard}, not slow"
    else:
        denied = [r for r in records if r.get("decision", {}).get("action") == "Deny"]
        if status == "200" or not denied or reasons[:1] != [fault.enforce]:
            yield f"{heard}, recorded as {reasons}, not refused for {fault.enforce}"
        if kind == "well" and (status != "502" or fault.enforce not in body):
            yield f"{heard}, not why"
