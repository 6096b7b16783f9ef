"""What the validators say directly, and what they say through iiif-mender. Called by run.sh."""

import atexit
import json
import logging
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import iiif_prezi3
import tripoli
from iiif_validator.validator import ValidationInfo
from PIL import Image, ImageDraw

TOOLS, BUILT = Path(sys.argv[1]), Path(sys.argv[2])
FOLDER = Path(tempfile.mkdtemp())
OURS = "api.library.tamu.edu"
PICTURE = "67352ccc-d1b0-11e1-89ae-279075081939"
failed = []
# tripoli tells each finding; only how many there are matters here.
logging.disable(logging.CRITICAL)


def start(*command, **more):
    process = subprocess.Popen([str(part) for part in command], **more)
    atexit.register(process.kill)
    return process


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def wait_for(port):
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
    sys.exit(f"nothing listens at {port}")


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def mender(images, service, prefix, public_hosts, rewrites):
    """iiif-mender before these servers; gives where it listens."""
    port = free_port()
    folder = Path(tempfile.mkdtemp(dir=FOLDER))
    rewrite = f'[rewrite]\npublic_url = "http://127.0.0.1:{port}"\n' if rewrites else ""
    (folder / "config.toml").write_text(
        f'[server]\nlisten = "127.0.0.1:{port}"\npublic_hosts = {json.dumps(public_hosts)}\n'
        f'[admin]\nlisten = "off"\n[presentation]\nmanifests = true\n{rewrite}[log]\nfilter = "error"\n'
        f'[[routes]]\nprefix = "/{prefix}/"\nupstream = "{images}/{prefix}/"\nkind = "image"\n'
        f'[[routes]]\nprefix = "/iiif-service/"\nupstream = "{service}/iiif-service/"\nkind = "presentation"\n'
        f'[[index.sources]]\npath = "{FOLDER}/manifests"\n'
    )
    start(BUILT / "iiif-mender", "serve", "--config", folder / "config.toml")
    wait_for(port)
    return f"http://127.0.0.1:{port}"


def naive(upstream):
    """A proxy that sends requests on under the upstream's own name: what must not happen."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            try:
                answer = urllib.request.urlopen(upstream + self.path)
            except urllib.error.HTTPError as error:
                answer = error
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.read())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def image_api(origin, prefix, identifier, version):
    """The tests that pass."""
    server = origin.removeprefix("http://")
    command = [TOOLS / "python", TOOLS / "iiif-validate.py", "-s", server, "-p", prefix, "-i", identifier]
    ran = subprocess.run([*command, f"--version={version}", "--level=2"], capture_output=True, text=True, timeout=300)
    return set(re.findall(r"test (\w+) PASS", ran.stdout + ran.stderr))


def judged(what, through, said, direct, exempt=False):
    lost = sorted(direct - said) if isinstance(direct, set) else [] if said == direct else [said]
    number = len(said) if isinstance(said, set) else said
    print(f"{what:34} {through:22} {number!s:>12}  {'lost: ' + ', '.join(map(str, lost)) if lost else ''}")
    if lost and not exempt:
        failed.append(f"{what} {through}")


def images(what, server, prefix, identifier, version, ways, control=None):
    direct = image_api(server, prefix, identifier, version)
    judged(what, "direct", direct, direct)
    for through, origin in ways:
        judged(what, through, image_api(origin, prefix, identifier, version), direct)
    if control:
        judged(what, "a naive proxy (control)", image_api(control, prefix, identifier, version), direct, exempt=True)


def presentation_2(text):
    validator = tripoli.IIIFValidator(fail_fast=False, unique_logging=False)
    validator.validate(text)
    return f"{len(validator.errors)} + {len(validator.warnings)}"


def presentation_3(text):
    document = json.loads(text)
    kind = getattr(iiif_prezi3, document["type"])
    try:
        kind(**document)
        return "valid"
    except ValueError as error:
        return f"{error.error_count()} errors"


def reference_server():
    """PyPI iiif with the validator's own picture."""
    picture = Image.new("RGB", (1000, 1000))
    pen = ImageDraw.Draw(picture)
    for x, column in enumerate(ValidationInfo().colorInfo):
        for y, colour in enumerate(column):
            pen.rectangle([x * 100, y * 100, x * 100 + 99, y * 100 + 99], fill=tuple(colour))
    (FOLDER / "pictures").mkdir()
    picture.save(FOLDER / "pictures" / f"{PICTURE}.png")
    port = free_port()
    start(TOOLS / "python", TOOLS / "iiif_testserver.py", "--host", "127.0.0.1", "--port", port, "--image-dir",
          FOLDER / "pictures", "--manipulators", "pil", "--auth-types", "none", "--quiet",
          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=FOLDER)
    wait_for(port)
    return f"http://127.0.0.1:{port}"


def main():
    (FOLDER / "manifests").mkdir()
    bed = start(BUILT / "iiif-mender-testbed", "--manifests", FOLDER / "manifests", "--presentation-3", "obj/minutes",
                stdout=subprocess.PIPE, text=True)
    # Its last line names the switches, and those tell everything else.
    switches = [bed.stdout.readline().split()[-1] for _ in range(3)][-1]
    places = json.loads(get(switches))
    presentations = sorted({page["manifest"] for page in places["pages"]})
    as_it_is, renamed = ([mender(places["images"], places["service"], "iiif/2", [OURS], on) for on in (False, True)])
    ways = [("as it is", as_it_is), ("under another host", renamed)]

    print("Image API: tests passed")
    images("2.0 level 2, Cantaloupe stand-in", places["images"], "iiif/2", places["pages"][0]["identifier"], "2.0", ways,
           naive(places["images"]))
    reference = reference_server()
    for version in ("2.0", "3.0"):
        # This server names itself by its own host, whatever is forwarded: only another host makes it right.
        prefix = f"{version}_pil"
        own = reference.removeprefix("http://")
        through = mender(reference, places["service"], prefix, [own], True)
        images(f"{version} level 2, reference server", reference, prefix, PICTURE, version,
               [("under another host", through)], naive(reference))

    print("Presentation 2 (tripoli): errors + warnings")
    for path in presentations:
        direct = presentation_2(get(places["service"] + path))
        judged(path.rsplit("/", 1)[1], "direct", direct, direct)
        for through, origin in ways:
            judged(path.rsplit("/", 1)[1], through, presentation_2(get(origin + path)), direct)

    print("Presentation 3 (iiif-prezi3)")
    text = (FOLDER / "manifests" / "presentation-3.json").read_text()
    direct = presentation_3(text)
    judged("stored manifest", "direct", direct, direct)
    for through, origin in ways:
        # The index is built behind the first requests.
        for _ in range(100):
            collection = get(f"{origin}/manifests/")
            found = [item for item in json.loads(collection)["items"] if item["label"]["none"] == ["obj/minutes"]]
            if found:
                break
            time.sleep(0.1)
        judged("stored manifest", through, presentation_3(get(found[0]["id"])), direct)
        judged("collection of them", through, presentation_3(collection), "valid")

    if failed:
        sys.exit("worse through iiif-mender than directly: " + "; ".join(failed))
    print("nothing is worse through iiif-mender than directly")


main()
