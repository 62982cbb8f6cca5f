"""The host's side of networks_test.py, in a network namespace of its own: a name server at the loopback's port 53, which
/etc/resolv.conf names, a TAP interface, a web server; then the VMM.

host_side.py FOLDER HTTP_PORT COMMAND...    FOLDER has resolv.conf and `file`, which the web server gives
"""

import http.server
import pathlib
import socket
import struct
import subprocess
import sys
import threading


def answer_names(names):
    """RFC 1035: penumbra.test is 192.0.2.77, all other names are unknown."""
    while True:
        query, peer = names.recvfrom(512)
        end = query.index(b"\0", 12) + 5
        name, (kind,) = query[12 : end - 4], struct.unpack_from(">H", query, end - 4)
        known = name.lower() == b"\x08penumbra\x04test\0"
        record = b"\xc0\x0c" + struct.pack(">HHIH4s", 1, 1, 60, 4, socket.inet_aton("192.0.2.77")) if known and kind == 1 else b""
        flags = 0x8180 if known else 0x8183
        names.sendto(query[:2] + struct.pack(">HHHHH", flags, 1, bool(record), 0, 0) + query[12:end] + record, peer)


def main(folder, port, *command):
    folder = pathlib.Path(folder)
    for line in (
        "ip link set lo up",
        "ip tuntap add dev tap0 mode tap",
        "ip addr add 192.168.77.1/24 dev tap0",
        "ip link set tap0 up",
        f"mount --bind {folder / 'resolv.conf'} /etc/resolv.conf",
    ):
        subprocess.run(line.split(), check=True)
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind(("127.0.0.1", 53))
    file = (folder / "file").read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(file)))
            self.end_headers()
            self.wfile.write(file)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("0.0.0.0", int(port)), Handler)
    threading.Thread(target=answer_names, args=(names,), daemon=True).start()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
