"""Group 13: gRPC messages by a descriptor set, with the peers that people have: Python's grpcio, and grpcurl for server reflection."""

import json
import os

from .stage import CACHE, ROOT, STATE, interpreter, issue, run, serve, sh, test

GRPC = 4460
PROTO = ROOT / "crds/tests/descriptors"
GRPCURL = "v1.9.3"
PACKAGES = ["grpcio==1.85.3", "grpcio-tools==1.85.1", "grpcio-reflection==1.85.1"]
RUNNING = {}

POLICY = """apiVersion: chaperone.dev/v1alpha1
kind: AgentPolicy
metadata: {name: orders, namespace: local}
spec:
  mode: Enforce
  audit: {level: RequestResponse}
  rules:
    - name: small-orders
      when: grpc.service == "acme.v1.Orders" && grpc.direction == "send" && grpc.message.total > 1000
      action: Deny
      message: Large orders are for people.
  masks:
    - name: pii
      match: {hosts: [orders.test.example.com]}
      detectors: [email]
      fields: [$.coupon, $.extra.pin]
"""

SERVER = """import sys
from concurrent import futures
import grpc
from grpc_reflection.v1alpha import reflection
import shop_pb2, shop_pb2_grpc

def answer(order):
    out = shop_pb2.Order(id=order.id, total=order.total, notes=["for ana@example.com", order.id], coupon={"value": "SPRING"})
    out.customer.mail = "bob@example.com"
    out.extra.update({"pin": "1234", "tier": "gold"})
    return out

class Orders(shop_pb2_grpc.OrdersServicer):
    def Place(self, request, context):
        return answer(request)
    def Import(self, requests, context):
        return answer(shop_pb2.Order(id=",".join(order.id for order in requests)))
    def List(self, request, context):
        for number in range(3):
            yield answer(shop_pb2.Order(id=f"o-{number}"))
    def Watch(self, requests, context):
        for order in requests:
            yield answer(order)

server = grpc.server(futures.ThreadPoolExecutor(8), compression=grpc.Compression.Gzip if sys.argv[4] == "gzip" else None)
shop_pb2_grpc.add_OrdersServicer_to_server(Orders(), server)
reflection.enable_server_reflection(["acme.v1.Orders", reflection.SERVICE_NAME], server)
key, certificate = (open(path, "rb").read() for path in sys.argv[2:4])
server.add_secure_port("[::]:" + sys.argv[1], grpc.ssl_server_credentials([(key, certificate)]))
server.start()
server.wait_for_termination()
"""

CLIENT = """import json, os, sys
import grpc
from google.protobuf.json_format import MessageToDict
import shop_pb2, shop_pb2_grpc

with open(os.environ["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"], "rb") as roots:
    channel = grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials(roots.read()), compression=grpc.Compression.Gzip if sys.argv[2] == "gzip" else None)
stub = shop_pb2_grpc.OrdersStub(channel)
order = lambda name, total=1: shop_pb2.Order(id=name, total=total)
said = {
    "place": MessageToDict(stub.Place(order("a"), timeout=20)),
    "import": MessageToDict(stub.Import(iter([order("a"), order("b")]), timeout=20))["id"],
    "list": [MessageToDict(m)["id"] for m in stub.List(order("a"), timeout=20)],
    "watch": [MessageToDict(m)["customer"]["mail"] for m in stub.Watch(iter([order("a"), order("b")]), timeout=20)],
}
try:
    stub.Place(order("big", 1001), timeout=20)
except grpc.RpcError as error:
    said["denied"] = [error.code().name, error.details()]
heard = []
try:
    for message in stub.Watch(iter([order("small"), order("big", 5000)]), timeout=20):
        heard.append(message.id)
except grpc.RpcError as error:
    said["stream"] = [error.code().name, heard in ([], ["small"])]
print(json.dumps(said))
"""


def python():
    return interpreter(*PACKAGES)


def stubs():
    """What the compiler makes of the shop, for server and client."""
    folder = STATE / "shop"
    if not folder.exists():
        folder.mkdir()
        sh(python(), "-m", "grpc_tools.protoc", f"-I{PROTO}", f"--python_out={folder}", f"--grpc_python_out={folder}", "shop.proto")
    return folder


def grpcio(encoding):
    if encoding not in RUNNING:
        port = GRPC + len(RUNNING)
        certificate, key = issue("orders.test.example.com")
        (STATE / "orders.py").write_text(SERVER)
        serve(python(), STATE / "orders.py", port, key, certificate, encoding, port=port, env={**os.environ, "PYTHONPATH": str(stubs())})
        RUNNING[encoding] = port
    return f"orders.test.example.com:{RUNNING[encoding]}"


def described(*command, policy=POLICY):
    return run("Enforce", *command, policy=policy, flags=["--grpc-descriptors", PROTO / "shop.binpb"])


def lines(body):
    return [json.loads(line) for line in body["text"].splitlines()]


@test
def grpcio_calls_of_all_four_kinds_are_judged_masked_and_recorded_plain_and_gzipped():
    for encoding in ("plain", "gzip"):
        target = grpcio(encoding)
        got = described("env", f"PYTHONPATH={stubs()}", python(), "-c", CLIENT, target, encoding)
        assert got.code == 0, (encoding, got.out, got.err)
        said = json.loads(got.out)
        assert said["place"] == {"id": "a", "total": "1", "customer": {"mail": "[masked:email]"}, "notes": ["for [masked:email]", "a"],
                                 "extra": {"pin": "[masked:field]", "tier": "gold"}, "coupon": "[masked:field]"}, said
        assert (said["import"], said["list"], said["watch"]) == ("a,b", ["o-0", "o-1", "o-2"], ["[masked:email]"] * 2), said
        assert said["denied"] == ["PERMISSION_DENIED", "Large orders are for people. (policy local/orders, rule small-orders)"], said
        assert said["stream"] == ["PERMISSION_DENIED", True], said
        text = got.log.read_text()
        assert "ana@example.com" not in text and "bob@example.com" not in text and '"1234"' not in text
        calls = got.only("http")
        imported = next(r for r in calls if r["grpc"]["method"] == "Import")
        assert [order["id"] for order in lines(imported["http"]["requestBody"])] == ["a", "b"], imported
        denied = [r for r in calls if r["decision"].get("rule") == "small-orders"]
        assert [(r["decision"]["action"], r["grpc"]["status"]) for r in denied] == [("Deny", 7)] * 2, denied


@test
def grpcurl_lists_and_calls_by_server_reflection():
    program = CACHE / f"grpcurl-{GRPCURL}"
    if not program.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        sh("go", "install", f"github.com/fullstorydev/grpcurl/cmd/grpcurl@{GRPCURL}", env={**os.environ, "GOBIN": str(STATE / "go")})
        (STATE / "go/grpcurl").rename(program)
    target = grpcio("plain")
    policy = POLICY.replace("[orders.test.example.com]", "[elsewhere.example.com]")
    listed = described(program, target, "list", policy=policy)
    assert "acme.v1.Orders" in listed.out, listed.out + listed.err
    # It asks for version 1, which this server does not have, and then for v1alpha.
    reflected = {r["grpc"]["service"]: r["grpc"]["status"] for r in listed.only("http")}
    assert reflected["grpc.reflection.v1alpha.ServerReflection"] == 0, reflected
    called = described(program, "-d", '{"id": "x", "total": 7}', target, "acme.v1.Orders/Place", policy=policy)
    assert json.loads(called.out)["total"] == "7", called.out + called.err
    denied = described(program, "-d", '{"id": "x", "total": 7000}', target, "acme.v1.Orders/Place", policy=policy)
    assert "PermissionDenied" in denied.err and "Large orders are for people." in denied.err, denied.err
