"""Group 1: what `chaperone run` promises around one command."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from .stage import CA, ENFORCE, INTERNET_IP, INTERNET_IP6, MACHINE, ROOT, STATE, WORLD, command_line, environment, run, serve, sh, test, verify


@test
def curl_trusts_the_authority_unasked_and_its_request_is_recorded_exactly():
    got = run("Audit", "curl", "-sS", "https://files.example.com/hello.txt?x=1")
    assert got.code == 0 and got.out == "hello from files.example.com\n", got.err
    record = got.exchange("GET")
    assert record["operation"]["resource"] == "https://files.example.com/hello.txt?x=1", record
    assert record["http"]["status"] == 200 and "complete" not in record["http"], record
    assert record["http"]["responseBytes"] == len(got.out), record
    assert record["destination"]["host"] == "files.example.com" and record["decision"]["action"] == "Allow", record
    assert verify(got.log).returncode == 0, verify(got.log).stdout


@test
def ipv6_is_captured_like_ipv4():
    got = run("Audit", "curl", "-sS", "-6", "https://files.example.com/hello.txt")
    assert got.exchange("GET")["destination"]["ip"] == INTERNET_IP6, got.err


@test
def personal_data_is_masked_for_the_agent_and_in_the_record():
    got = run("Audit", "curl", "-sS", "--compressed", "https://files.example.com/customers.json")
    for secret in ("grace@navy.example", "574-11-0203"):
        assert secret not in got.out and secret not in got.log.read_text(), got.out
    assert "[masked:email]" in got.out and "[masked:usSsn]" in got.out, got.out
    masked = got.exchange("GET")["masked"]
    assert {m["detector"] for m in masked} >= {"email", "usSsn"}, masked


@test
def in_enforce_a_delete_is_refused_in_words_and_the_file_is_still_there():
    file = WORLD / "files/scratch/kept.txt"
    file.write_text("kept\n")
    got = run("Enforce", "curl", "-sS", "-X", "DELETE", "-w", "%{http_code}", "https://files.example.com/scratch/kept.txt")
    assert got.out.endswith("403") and "Deleting is for people." in got.out, got.out
    assert file.exists()
    decision = got.exchange("DELETE")["decision"]
    assert (decision["action"], decision["policy"], decision["rule"]) == ("Deny", "local/local", "no-delete"), decision


@test
def in_audit_a_delete_passes_and_the_record_says_that_it_would_be_denied():
    file = WORLD / "files/scratch/gone.txt"
    file.write_text("gone\n")
    got = run("Audit", "curl", "-sS", "-X", "DELETE", "https://files.example.com/scratch/gone.txt")
    assert not file.exists(), got.out + got.err
    assert got.exchange("DELETE")["decision"]["wouldDeny"] is True


@test
def git_clones_and_pushes_over_https():
    script = """set -e; cd "$(mktemp -d)"; git clone -q https://git.example.com/project.git p; cd p; git config user.name a; git config user.email a@localhost
date +%s%N >stamp; git add .; git commit -qm Stamp; git push -q origin HEAD:refs/heads/local-$RANDOM"""
    got = run("Enforce", "bash", "-c", script)
    assert got.code == 0, got.err
    assert got.exchange("POST", "git-receive-pack")["http"]["status"] == 200


@test
def python_node_and_java_trust_the_authority_unasked():
    url = "https://files.example.com/hello.txt"
    clients = {
        "urllib": ["python3", "-c", f"import urllib.request as u; print(u.urlopen('{url}').read().decode())"],
        "node": ["node", "-e", f"fetch('{url}').then(r => r.text()).then(console.log)"],
        "java": ["java", str(ROOT / "e2e/images/agent/Get.java"), "GET", url],
    }
    for name, command in clients.items():
        got = run("Audit", *command)
        assert "hello from files" in got.out, f"{name}: {got.out} {got.err}"
        assert got.exchange("GET")["http"]["status"] == 200, name


@test
def names_asked_are_recorded_with_their_answers():
    got = run("Audit", "curl", "-sS", "-4", "http://files.example.com/hello.txt")
    answers = [a for r in got.only("dns") if r["operation"]["resource"] == "files.example.com" for a in r["dns"].get("answers", [])]
    assert INTERNET_IP in answers, got.records
    missing = run("Audit", "curl", "-sS", "http://nowhere.example.com/")
    assert any(r["dns"]["rcode"] != "NOERROR" for r in missing.only("dns")), missing.records


@test
def datagrams_do_not_leave_and_are_recorded():
    send = lambda port: f"python3 -c \"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('{INTERNET_IP}', {port}))\""
    got = run("Audit", "bash", "-c", f"{send(7007)}; {send(443)}")
    gaps = {(r["gap"]["reason"], r["decision"]["action"], r["destination"]["port"]) for r in got.only("gap")}
    assert gaps == {("datagram", "Deny", 7007), ("quic", "Deny", 443)}, got.records
    assert not (WORLD / "log/raw.log").exists() or "udp" not in (WORLD / "log/raw.log").read_text()


@test
def a_false_host_is_refused_in_enforce_and_recorded_in_audit():
    request = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: allowed.example.com", f"http://{INTERNET_IP}/hello.txt"]
    got = run("Enforce", *request)
    assert got.out == "421", got.out + got.err
    got = run("Audit", *request)
    decision = got.exchange("GET")["decision"]
    assert got.out == "200" and decision["wouldDeny"] and decision["reason"] == "host-mismatch", decision


@test
def domain_fronting_is_refused_in_every_mode():
    for mode in ("Audit", "Enforce"):
        got = run(mode, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: git.example.com", "https://files.example.com/")
        assert got.out == "421", (mode, got.out, got.err)


@test
def an_upstream_that_only_the_agent_can_judge_passes_in_audit_and_is_refused_in_enforce():
    request = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", WORLD / "pki/unknown-ca.pem", "https://files.example.com:8443/hello.txt"]
    got = run("Audit", *request)
    gap = got.only("gap")[-1]["gap"]
    assert got.out == "200" and gap["reason"] == "unverifiable-upstream" and "extraRoots" in gap["detail"], got.records
    got = run("Enforce", *request)
    assert got.out in ("000", "502") and got.only("gap")[-1]["decision"]["action"] == "Deny", got.records
    got = run("Enforce", "curl", "-sSk", "https://files.example.com:8443/hello.txt")
    assert "extraRoots" in got.out, got.out


@test
def a_pinned_client_fails_once_and_passes_as_a_gap_after_that_in_audit_only():
    once = f"curl -sS -o /dev/null -w '%{{http_code}} ' --cacert {CA} https://files.example.com/hello.txt"
    got = run("Audit", "bash", "-c", f"{once}; {once}")
    assert got.out == "000 200 ", got.out + got.err
    assert got.only("gap")[-1]["gap"]["reason"] == "pinned-client", got.records
    got = run("Enforce", "bash", "-c", f"{once}; {once}")
    assert got.out == "000 000 ", got.out


@test
def other_protocols_are_a_gap_in_audit_and_refused_in_enforce_unless_a_rule_allows_them():
    client = f"import socket; s=socket.create_connection(('{INTERNET_IP}', 2525), 5); s.settimeout(5); print(s.recv(100))"
    got = run("Audit", "python3", "-c", client)
    assert "b'" in got.out and "b''" not in got.out, got.out + got.err
    assert {r["gap"]["reason"] for r in got.only("gap")} == {"opaque"}, got.records
    speak = f"import socket; s=socket.create_connection(('{INTERNET_IP}', 2525), 5); s.send(b'\\x00\\x01nonsense'); s.settimeout(5); print(s.recv(100))"
    got = run("Enforce", "python3", "-c", speak)
    assert "220" not in got.out, got.out
    assert got.only("gap")[-1]["decision"]["action"] == "Deny", got.records
    rule = ENFORCE.replace("MODE", "Enforce").replace("  masks:", f"    - name: mail\n      match: {{protocols: [tcp], hosts: ['{INTERNET_IP}'], ports: [2525]}}\n      action: Allow\n  masks:")
    got = run("Enforce", "python3", "-c", client, policy=rule)
    assert "b''" not in got.out and "b'" in got.out, got.out + got.err


@test
def ambiguous_requests_are_answered_400_and_recorded():
    for request in ("POST / HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 5\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n",
                    "GET / HTTP/1.1\\r\\nHost: a\\r\\nHost: b\\r\\n\\r\\n", "GET / HTTP/1.1\\r\\nHost: a\\r\\nX: a\\r\\n b\\r\\n\\r\\n"):
        client = f"import socket; s=socket.create_connection(('{INTERNET_IP}', 80), 5); s.send(b'{request}'); s.settimeout(5); print(s.recv(4000))"
        got = run("Audit", "python3", "-c", client)
        assert "HTTP/1.1 400" in got.out, got.out + got.err
        assert got.only("connection")[-1]["decision"]["reason"] == "malformed", got.records


@test
def a_big_download_streams_through_whole():
    got = run("Enforce", "bash", "-c", "curl -sS https://files.example.com/big.bin | sha256sum")
    expected = sh("sha256sum", WORLD / "files/big.bin").stdout.split()[0]
    assert got.out.split()[0] == expected, got.err


@test
def a_compressed_answer_does_not_slip_past_a_mask():
    for mode in ("Enforce", "Audit"):
        got = run(mode, "curl", "-sS", "--compressed", "https://files.example.com/zipped/customers.json")
        assert "[masked:email]" in got.out and "@example.com" not in got.out, got.out
        assert not got.exchange("GET").get("error"), got.records


@test
def the_command_cannot_undo_its_capture_even_as_root():
    tries = {
        "flush the packet filter": "nft flush ruleset",
        "leave its namespace": "nsenter --net=/proc/1/ns/net true",
        "set the firewall mark": "python3 -c 'import socket; socket.socket().setsockopt(1, 36, 0x43686170)'",
        "open a raw socket": "python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)'",
        "open a packet socket": "python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)'",
        "add a route": "ip route add 192.0.2.0/24 dev lo",
    }
    for what, command in tries.items():
        got = run("Audit", "bash", "-c", f"{command} && echo DONE")
        assert "DONE" not in got.out, f"could {what}"


@test
def the_command_cannot_read_the_sidecars_memory_environment_or_descriptors():
    tries = {
        "read its environment": "cat /proc/$PPID/environ",
        "read its map": "cat /proc/$PPID/maps",
        "open its memory": "exec 3</proc/$PPID/mem",
        "follow its descriptors": "readlink /proc/$PPID/fd/*",
        "trace it": "python3 -c 'import ctypes, sys; sys.exit(ctypes.CDLL(None).ptrace(16, int(sys.argv[1]), 0, 0) != 0)' $PPID",
        "enter its namespace": "nsenter --net=/proc/$PPID/ns/net true",
    }
    for what, command in tries.items():
        got = run("Audit", "bash", "-c", f"{command} >/dev/null && echo DONE")
        assert "DONE" not in got.out, f"could {what}: {got.out} {got.err}"


@test
def a_killed_sidecar_leaves_its_command_without_network():
    script = "curl -sS -o /dev/null -w 'first:%{http_code} ' http://files.example.com/hello.txt; echo $$ >&2; sleep 2; curl -sS -m 5 -o /dev/null -w 'second:%{http_code} ' http://files.example.com/hello.txt"
    words, log = command_line("Audit", "bash", "-c", script)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    pid = int(process.stderr.readline())
    parent = int(Path(f"/proc/{pid}/stat").read_text().split()[3])
    os.kill(parent, signal.SIGKILL)
    out = process.stdout.read()
    process.wait()
    assert "first:200" in out and "second:000" in out, out
    assert Path(f"/tmp/chaperone-run-{parent}").exists() is False or shutil.rmtree(f"/tmp/chaperone-run-{parent}") is None


@test
def what_was_under_way_when_a_sidecar_is_killed_is_on_disk_where_policy_asks():
    began = STATE / "began"
    server = f"""
import http.server, pathlib, time
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open({str(began)!r}, "a") as began: began.write(self.path + "\\n")
        time.sleep(60)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(({INTERNET_IP!r}, 8081), Answers).serve_forever()
"""
    serve(sys.executable, "-c", server, port=8081)
    policy = ENFORCE.replace("MODE", "Enforce").replace("{level: RequestResponse}", "{commit: Disk}")
    for turn in range(10):
        words, _ = command_line("Enforce", "bash", "-c", f"echo $$ >&2; curl -4 -sS -o /dev/null http://test.example.com:8081/{turn}", policy=policy)
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
        sidecar = int(Path(f"/proc/{int(process.stderr.readline())}/stat").read_text().split()[3])
        deadline = time.monotonic() + 20
        while not (began.exists() and f"/{turn}\n" in began.read_text()):
            assert time.monotonic() < deadline and process.poll() is None, "the request did not come"
            time.sleep(0.001)
        os.kill(sidecar, signal.SIGKILL)
        process.communicate(timeout=30)
        scratch = Path(f"/tmp/chaperone-run-{sidecar}")
        records = [json.loads(line) for segment in sorted(scratch.glob("spool/*.jsonl")) for line in segment.read_text().splitlines()]
        shutil.rmtree(scratch)
        asked = [r["operation"]["resource"] for r in records if r["kind"] == "begin"]
        assert f"http://test.example.com:8081/{turn}" in asked and "test.example.com" in asked, f"turn {turn}: {asked}"


@test
def the_exit_status_is_the_commands_own():
    assert run("Audit", "bash", "-c", "exit 7").code == 7
    assert run("Audit", "bash", "-c", "kill -TERM $$").code == 128 + signal.SIGTERM
    missing = run("Audit", "no-such-program")
    assert missing.code == 125 and "no-such-program" in missing.err, missing.err


@test
def a_bad_policy_file_is_a_clear_error_and_nothing_runs():
    bomb = " || ".join(["true"] * 900)
    for policy, words in (
        ("not: a policy\n", ["kind"]),
        (ENFORCE.replace("MODE", "Enforce").replace("  masks:", "  mask:"), ["mask"]),
        (ENFORCE.replace("MODE", "Enforce").replace('http.method == "DELETE"', "htp.method == 'X'"), ["htp", "^", "no-delete"]),
        (ENFORCE.replace("MODE", "Enforce").replace('http.method == "DELETE"', bomb), ["spec.rules[0].when", "2048"]),
    ):
        got = run("Enforce", "echo", "RAN", policy=policy)
        assert got.code == 125 and "RAN" not in got.out, got.out
        for word in words:
            assert word in got.err, f"{word!r} is not in: {got.err}"
    words, _ = command_line("Audit", "true")
    words[words.index("--policy") + 1] = "/no/such/file.yaml"
    done = subprocess.run(words, capture_output=True, text=True, env=environment())
    assert done.returncode == 125 and "/no/such/file.yaml" in done.stderr, done.stderr


@test
def verify_names_the_first_record_that_was_changed_removed_or_cut():
    got = run("Audit", "bash", "-c", "for i in 1 2 3 4 5; do curl -sS -o /dev/null http://files.example.com/hello.txt; done")
    lines = got.log.read_text().splitlines()
    broken = STATE / "broken.jsonl"
    for what, changed, first in (
        ("changed", [*lines[:3], lines[3].replace("200", "404").replace("A", "B", 1), *lines[4:]], "3"),
        ("removed", [*lines[:4], *lines[5:]], "4"),
        ("moved", [*lines[:3], lines[4], lines[3], *lines[5:]], "3"),
    ):
        broken.write_text("\n".join(changed) + "\n")
        verdict = verify(broken)
        assert verdict.returncode == 1 and first in verdict.stdout + verdict.stderr, f"{what}: {verdict.stdout} {verdict.stderr}"
    assert verify(got.log).returncode == 0


@test
def a_user_without_privileges_can_run_it_where_the_kernel_allows():
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    got = run("Enforce", "curl", "-sS", "https://files.example.com/hello.txt", prefix=prefix)
    allowed = Path("/proc/sys/user/max_user_namespaces").read_text().strip() != "0"
    assert (got.out == "hello from files.example.com\n") == allowed, got.out + got.err


@test
def nothing_is_left_when_a_command_has_ended():
    def there():
        rules = sh("ip", "netns", "exec", MACHINE, "nft", "list", "ruleset").stdout
        return sh("ip", "netns", "list").stdout, rules, set(Path("/tmp").glob("chaperone-run-*"))

    before = there()
    run("Enforce", "true")
    assert there() == before, f"{before} became {there()}"
