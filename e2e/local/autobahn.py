"""Autobahn's suite for WebSocket (crossbario/autobahn-testsuite): 517 cases, of RFC 6455 and RFC 7692. Here it is installed, run, and what it found is read.

It runs on Python 2.7 alone, which Debian last had in bullseye: that interpreter is unpacked from there, not installed, and its packages are pinned here to the last that speak Python 2.7.
"""

import hashlib
import json
import shutil
import sys

from .stage import CACHE, STATE, environment, interpreter, sh

CASES = 517
# Groups 12 and 13 send a thousand messages in each case, 216 times. A window of compression is passed many times over in these.
MESSAGES = 10
PIP = "pip==20.3.4"
PACKAGES = """autobahntestsuite==0.8.2 twisted==20.3.0 zope.interface==5.4.0 incremental==21.3.0 constantly==15.1.0 automat==20.2.0 hyperlink==21.0.0 pyhamcrest==1.9.0
attrs==21.4.0 idna==2.10 six==1.16.0 typing==3.10.0.0 setuptools==44.1.1 jinja2==2.11.3 markupsafe==1.1.1 werkzeug==1.0.1 klein==20.6.0 tubes==0.2.0 pyopenssl==21.0.0
cryptography==3.3.2 cffi==1.15.1 pycparser==2.21 enum34==1.1.10 ipaddress==1.0.23 service-identity==21.1.0 pyasn1==0.4.8 pyasn1-modules==0.2.8 unittest2==1.1.0
traceback2==1.4.0 linecache2==1.0.0 argparse==1.4.0""".split()
# These are built here. The last is what Autobahn masks and checks text with in reasonable time.
SOURCES = ["autobahn==0.10.9", "txaio==2.1.0", "wsaccel==0.6.2"]
WSTEST = f"""import sys
from autobahntestsuite import case, wstest
for one in case.Case12_X_X + case.Case13_X_X:
    one.COUNT = {MESSAGES}
wstest.run()
"""
# Echoes messages with a library that passes all of the suite (python-websockets).
ECHO = """import asyncio, logging, sys
from websockets.asyncio.server import serve
logging.disable()
async def echo(connection):
    async for message in connection:
        await connection.send(message)
async def main():
    async with serve(echo, None, int(sys.argv[1]), max_size=1 << 25, ping_interval=None):
        await asyncio.get_running_loop().create_future()
asyncio.run(main())
"""
# Goes through all cases of the suite's server, which listens on IPv4 alone.
CLIENT = """import asyncio, logging, socket, sys
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
logging.disable()
base, agent = sys.argv[1:]
async def said(path):
    async with connect(base + path, family=socket.AF_INET, ping_interval=None) as connection:
        return await connection.recv()
async def case(number):
    try:
        async with connect(f"{base}/runCase?case={number}&agent={agent}", family=socket.AF_INET, max_size=1 << 25, ping_interval=None, close_timeout=5) as connection:
            async for message in connection:
                await connection.send(message)
    except (WebSocketException, OSError, EOFError, TimeoutError):
        pass  # the suite judges
async def main():
    count = int(await said("/getCaseCount"))
    for number in range(1, count + 1):
        await case(number)
    async with connect(f"{base}/updateReports?agent={agent}", family=socket.AF_INET):
        pass
    print(count)
asyncio.run(main())
"""


def peer():
    """A Python with the library that is the suite's peer."""
    return interpreter("websockets==15.0.1")


def wstest():
    """The suite's program, made once: words to put before its options."""
    key = hashlib.sha256(" ".join([PIP, *PACKAGES, *SOURCES]).encode()).hexdigest()[:16]
    place = CACHE / f"autobahn-{key}"
    if not (place / "ready").exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        install(place)
        (place / "ready").touch()
    (STATE / "wstest.py").write_text(WSTEST)
    return [*python(place), "-W", "ignore", STATE / "wstest.py"]


def python(place):
    root = place / "debian"
    libraries = ":".join(str(folder) for folder in root.glob("usr/lib/*-linux-gnu*"))
    return ["env", f"PYTHONHOME={root}/usr", f"LD_LIBRARY_PATH={libraries}", f"PYTHONPATH={place}/site", "PYTHONNOUSERSITE=1", root / "usr/bin/python2.7"]


def install(place):
    debian, site = place / "debian", place / "site"
    sh("mmdebstrap", "--variant=extract", "--include=python2.7,libpython2.7-dev", "bullseye", debian, "http://deb.debian.org/debian")
    # Its headers beside this machine's own, not those of its libc.
    headers = place / "headers"
    headers.mkdir()
    (headers / "python2.7").symlink_to(debian / "usr/include/python2.7")
    for folder in debian.glob("usr/include/*-linux-gnu*"):
        (headers / folder.name).mkdir()
        (headers / folder.name / "python2.7").symlink_to(folder / "python2.7")
    sh(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", place, PIP)
    pip = [*python(place), next(place.glob("pip-*.whl")) / "pip", "install", "--quiet", "--no-deps", "--target", site]
    building = {**environment(), "CFLAGS": f"-I{headers}/python2.7 -I{headers}", "PIP_FIND_LINKS": ""}
    sh(*pip, "--only-binary", ":all:", *PACKAGES, env=building)
    # What `.pth` files say of it is not read in a folder like this.
    (site / "zope/__init__.py").touch()
    for package in SOURCES:
        sh(*pip, "--no-build-isolation", package, env=building)


def specification(name, cases, **fields):
    """A specification of the suite under this name, for these cases, and where its findings go."""
    file, found = STATE / f"autobahn-{name}.json", STATE / f"autobahn-{name}"
    file.write_text(json.dumps({"outdir": str(found), "cases": list(cases), "exclude-cases": [], "exclude-agent-cases": {}, **fields}))
    return file, found


def findings(folder):
    """How each case went, by its number: (behaviour, behaviour at the close)."""
    (cases,) = json.loads((folder / "index.json").read_text()).values()
    return {number: (case["behavior"], case["behaviorClose"]) for number, case in cases.items()}


# What the suite counts as in order, strictly or not, or has no verdict on.
PASSED = ["OK", "NON-STRICT", "INFORMATIONAL"]
# From best to worst. OK and NON-STRICT are told apart by moments: whether what was said before a fault is still echoed before the connection fails.
VERDICTS = {"OK": 0, "NON-STRICT": 0, "INFORMATIONAL": 1, "UNIMPLEMENTED": 2, "WRONG CODE": 3, "UNCLEAN": 4, "FAILED BY CLIENT": 5, "FAILED": 6}


def worse(without, with_it):
    """The cases that went worse with Chaperone than without, in order."""
    def bad(pair):
        return [VERDICTS[verdict] for verdict in pair]
    found = [number for number, pair in with_it.items() if any(now > before for now, before in zip(bad(pair), bad(without[number])))]
    return sorted(found, key=lambda number: [int(part) for part in number.split(".")])
