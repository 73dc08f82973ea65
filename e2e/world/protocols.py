#!/usr/bin/env python3
"""The servers of the world that need Python libraries of the system: WebSocket and gRPC. Runs with Debian's own Python, which has them as packages.

  8085/tcp   WebSocket: sends each message back, in upper case if it is text; "mail" is answered with an e-mail address
  8446/tcp   the same over TLS
  9444/tcp   gRPC over TLS: any unary method of any service sends the message back; methods named Many send it back three times; Fail fails with NOT_FOUND

Arguments: certificate, key.
"""

import asyncio
import ssl
import sys
from concurrent import futures

import grpc
import websockets


async def echo(socket, _path=None):
    async for message in socket:
        if message == "mail":
            await socket.send('{"mail":"ada.lovelace@example.com"}')
        else:
            await socket.send(message.upper() if isinstance(message, str) else message)


class Any(grpc.GenericRpcHandler):
    """Answers every method with the bytes that it got."""

    def service(self, details):
        method = details.method.rsplit("/", 1)[-1]
        if method == "Many":
            return grpc.unary_stream_rpc_method_handler(lambda message, _context: iter([message] * 3))
        if method == "Fail":
            return grpc.unary_unary_rpc_method_handler(fail)
        return grpc.unary_unary_rpc_method_handler(lambda message, _context: message)


def fail(_message, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "there is none")


async def main(certificate, key):
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Any()])
    with open(certificate, "rb") as crt, open(key, "rb") as private:
        server.add_secure_port("[::]:9444", grpc.ssl_server_credentials([(private.read(), crt.read())]))
    server.start()
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure.load_cert_chain(certificate, key)
    async with websockets.serve(echo, None, 8085), websockets.serve(echo, None, 8446, ssl=secure):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
