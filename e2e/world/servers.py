#!/usr/bin/env python3
"""The servers of the world that speak no ordinary HTTP, each on all addresses of its network namespace.

  7007/udp   echoes each datagram; also writes it to LOG
  2525/tcp   speaks first ("220 ..."), then echoes lines: no protocol that Chaperone reads
  8082/tcp   HTTP: a chunked answer in which an e-mail address and a card number are cut into many chunks
  8083/tcp   HTTP: an answer that is reset half-way
  8084/tcp   HTTP: an answer that never comes

Arguments: LOG, the file that lists what arrived over UDP and raw TCP.
"""

import asyncio
import socket
import struct
import sys
import time

PIECES = [b'{"mail":"ada.love', b"lace", b"@", b"example.", b"com\",", b'"card":"4111 11', b"11 1111 1", b'111","ok":true}\n']


class Echo(asyncio.DatagramProtocol):
    def __init__(self, log):
        self.log = log

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        self.log("udp", peer[0], data)
        self.transport.sendto(data, peer)


async def banner(log, reader, writer):
    writer.write(b"220 db.example.com speaks first\r\n")
    await writer.drain()
    while line := await reader.readline():
        log("tcp", writer.get_extra_info("peername")[0], line)
        writer.write(b"250 " + line)
        await writer.drain()


async def read_head(reader):
    return await reader.readuntil(b"\r\n\r\n")


async def pieces(_log, reader, writer):
    while True:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in PIECES:
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(b"0\r\n\r\n")
        await writer.drain()


async def reset(_log, reader, writer):
    await read_head(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000000\r\n\r\n" + b"half\n" * 1000)
    await writer.drain()
    await asyncio.sleep(0.2)
    connection = writer.get_extra_info("socket")
    # A close with a linger of zero seconds is a reset.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def silent(_log, reader, writer):
    await read_head(reader)
    await asyncio.sleep(3600)


def guarded(serve, log):
    async def run(reader, writer):
        try:
            await serve(log, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    return run


async def main(path):
    out = open(path, "a", buffering=1)

    def log(protocol, peer, data):
        out.write(f"{time.time():.3f} {protocol} {peer.removeprefix('::ffff:')} {data!r}\n")

    loop = asyncio.get_running_loop()
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    udp.bind(("::", 7007))
    await loop.create_datagram_endpoint(lambda: Echo(log), sock=udp)
    for port, serve in ((2525, banner), (8082, pieces), (8083, reset), (8084, silent)):
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            await asyncio.start_server(guarded(serve, log), host, port, family=family)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
