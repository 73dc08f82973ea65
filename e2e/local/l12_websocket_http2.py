"""Group 12: WebSocket in streams of HTTP/2 (RFC 8441), with Hypercorn as the server; Node.js and wsproto as clients."""

from .stage import STATE, interpreter, issue, run, serve, test

PORT = 4470
RUNNING = set()

POLICY = """apiVersion: chaperone.dev/v1alpha1
kind: AgentPolicy
metadata: {name: chat, namespace: local}
spec:
  mode: Enforce
  rules:
    - name: no-drop
      when: ws.direction == "send" && ws.text.contains("DROP")
      action: Deny
      message: Dropping is for people.
  masks:
    - name: pii
      detectors: [email]
  audit: {level: RequestResponse}
"""

APP = """async def app(scope, receive, send):
    if scope['type'] != 'websocket':
        return
    while True:
        event = await receive()
        if event['type'] == 'websocket.connect':
            await send({'type': 'websocket.accept'})
            await send({'type': 'websocket.send', 'text': 'HTTP/' + scope['http_version'] + ' grace@navy.example'})
        elif event['type'] == 'websocket.receive':
            await send({'type': 'websocket.send', 'text': 'echo ' + event['text']})
        else:
            return
"""

WSPROTO = f"""import socket, ssl, sys
import h2.connection, h2.config, h2.events, h2.settings
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage, CloseConnection
from wsproto.extensions import PerMessageDeflate

context = ssl.create_default_context()
context.set_alpn_protocols(['h2'])
s = context.wrap_socket(socket.create_connection(('ws.test.example.com', {PORT})), server_hostname='ws.test.example.com')
c = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding='utf-8'))
c.initiate_connection()
ws = None
said = sys.argv[1:]
deflate = PerMessageDeflate()
while True:
    s.sendall(c.data_to_send())
    data = s.recv(65536)
    if not data:
        break
    for event in c.receive_data(data):
        if isinstance(event, h2.events.RemoteSettingsChanged) and ws is None and c.remote_settings.enable_connect_protocol:
            c.send_headers(1, [(':method', 'CONNECT'), (':protocol', 'websocket'), (':scheme', 'https'), (':path', '/chat'), (':authority', 'ws.test.example.com:{PORT}'),
                               ('sec-websocket-version', '13'), ('sec-websocket-extensions', 'permessage-deflate')])
            ws = False
        elif isinstance(event, h2.events.ResponseReceived):
            headers = dict(event.headers)
            print(headers[':status'], flush=True)
            extensions = []
            if 'sec-websocket-extensions' in headers:
                deflate.finalize(headers['sec-websocket-extensions'])
                extensions.append(deflate)
            ws = Connection(ConnectionType.CLIENT, extensions)
        elif isinstance(event, h2.events.DataReceived):
            c.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            ws.receive_data(event.data)
            for message in ws.events():
                if isinstance(message, TextMessage):
                    print(message.data, flush=True)
                    c.send_data(1, ws.send(TextMessage(said.pop(0))) if said else ws.send(CloseConnection(1000)))
                elif isinstance(message, CloseConnection):
                    print(message.code, message.reason, flush=True)
                    sys.exit()
        elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
            sys.exit(f'the stream ended: {{event}}')
"""

NODE = f"""const client = require('http2').connect('https://ws.test.example.com:{PORT}');
client.on('error', e => {{ console.log(e.message); process.exit(1); }});
client.on('remoteSettings', settings => {{
  if (!settings.enableConnectProtocol) return;
  const stream = client.request({{':method': 'CONNECT', ':protocol': 'websocket', ':path': '/chat', 'sec-websocket-version': '13'}});
  stream.on('response', headers => console.log(headers[':status']));
  stream.on('data', data => {{ console.log(data.subarray(2).toString()); stream.close(); client.close(); }});
}});
"""


def python():
    return interpreter("hypercorn==0.18.0", "wsproto==1.3.2", "h2==4.4.1")


def hypercorn():
    if RUNNING:
        return
    certificate, key = issue("ws.test.example.com")
    (STATE / "chat.py").write_text(APP)
    serve(python(), "-m", "hypercorn", "--certfile", certificate, "--keyfile", key, "--bind", f"[::]:{PORT}", "chat:app", port=PORT, cwd=STATE)
    RUNNING.add("hypercorn")


@test
def messages_in_a_stream_of_http_2_are_masked_denied_and_recorded():
    hypercorn()
    got = run("Enforce", python(), "-c", WSPROTO, "hello", policy=POLICY)
    assert got.out.splitlines()[:3] == ["200", "HTTP/2 [masked:email]", "echo hello"], (got.out, got.err)
    messages = [(m["operation"]["verb"], m["message"]["body"]["text"]) for m in got.only("ws.message")]
    assert ("send", "hello") in messages and ("receive", "HTTP/2 [masked:email]") in messages, messages
    assert got.exchange("CONNECT", "/chat")["http"]["status"] == 200 and not got.only("gap"), got.records
    assert got.only("ws.close")[0]["ws"]["sentMessages"] == 1, got.only("ws.close")
    got = run("Enforce", python(), "-c", WSPROTO, "please DROP it", policy=POLICY)
    last = got.out.splitlines()[-1]
    assert last.startswith("1008 ") and last.endswith("Dropping is for people."), (got.out, got.err)
    assert got.only("ws.close")[0]["ws"]["code"] == 1008, got.only("ws.close")


@test
def what_detectors_find_in_a_message_is_denied():
    hypercorn()
    policy = POLICY.replace('ws.direction == "send" && ws.text.contains("DROP")', 'ws.direction == "send" && !ws.binary && "creditCard" in ws.detected')
    got = run("Enforce", python(), "-c", WSPROTO, "pay 4111 1111 1111 1112", policy=policy)
    assert got.out.splitlines()[2] == "echo pay 4111 1111 1111 1112", (got.out, got.err)
    got = run("Enforce", python(), "-c", WSPROTO, "pay 4111 1111 1111 1111", policy=policy)
    assert got.out.splitlines()[-1].startswith("1008 "), (got.out, got.err)
    denied = [m for m in got.only("ws.message") if m["decision"]["action"] == "Deny"]
    assert denied[0]["decision"]["rule"] == "no-drop", got.records


@test
def node_opens_websocket_in_a_stream_of_http_2():
    hypercorn()
    got = run("Enforce", "node", "-e", NODE, policy=POLICY)
    assert got.out == "200\nHTTP/2 [masked:email]\n", (got.out, got.err)
