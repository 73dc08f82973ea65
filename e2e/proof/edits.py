"""Edits a policy N times and says when; run in the node's namespace by g4_policy, so that no kubectl's start is measured.

Standard input: {"server", "ca", "cert", "key" (paths), "path", "patches": [body, body], "edits", "pause"}. Patches alternate. For each edit one line:
{"sent": time, "accepted": time}, in seconds since the epoch.
"""

import http.client
import json
import ssl
import sys
import time


def main():
    order = json.load(sys.stdin)
    context = ssl.create_default_context(cafile=order["ca"])
    context.load_cert_chain(order["cert"], order["key"])
    connection = http.client.HTTPSConnection(order["server"], context=context)
    for index in range(order["edits"]):
        time.sleep(order["pause"])
        sent = time.time()
        connection.request("PATCH", order["path"], json.dumps(order["patches"][index % 2]), {"content-type": "application/merge-patch+json"})
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            sys.exit(f"edit {index}: {response.status} {body.decode()[:500]}")
        print(json.dumps({"sent": sent, "accepted": time.time()}), flush=True)


if __name__ == "__main__":
    main()
