"""A guest on the user's network: an address by DHCP, a file from a server on the host's loopback, one to it, a connection from the
host, and what the packet dump says of all that. The kernels are those of roms/guests/modules."""

import hashlib
import http.server
import pathlib
import random
import re
import shutil
import socket
import struct
import tempfile
import threading
import unittest

import dmesg
import machine

HERE = pathlib.Path(__file__).parent
SECONDS = 180
LEASE = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
ip route add default via "$router"
echo "address $ip/$mask router $router dns $dns"
"""
MODULES = {"e1000": ["e1000"], "virtio-net-pci": ["virtio_pci", "virtio_net", "virtio-rng"]}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def in_order(folder, names):
    """The modules and those that they need, which differ from kernel to kernel, each after those that it needs itself."""
    order = []
    for name in names:
        (needed,) = re.findall(rb"\0depends=([^\0]*)", (folder / f"{name}.ko").read_bytes())
        for module in [*in_order(folder, filter(None, needed.decode().split(","))), name]:
            if module not in order:
                order.append(module)
    return order


class Host:
    """The servers that the guest reaches at 10.0.2.2."""

    def __init__(self, file):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(file)))
                self.end_headers()
                self.wfile.write(file)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http_port = self.http.server_address[1]
        self.sink = socket.create_server(("127.0.0.1", 0))
        self.sink_port = self.sink.getsockname()[1]
        self.uploaded = hashlib.sha256()
        self.upload = threading.Thread(target=self._take, daemon=True)
        self.upload.start()
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def _take(self):
        try:
            connection, _ = self.sink.accept()
        except OSError:
            return
        with connection:
            while data := connection.recv(65536):
                self.uploaded.update(data)

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.sink.close()


def echo(port, data):
    """Sends the data through the guest's echo server and returns what came back."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS * machine.PATIENCE) as connection:

        def send():
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        threading.Thread(target=send, daemon=True).start()
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def packets(path):
    """The frames of a file in libpcap's format."""
    data = path.read_bytes()
    magic, major, minor, _, _, _, link = struct.unpack_from("<IHHIIII", data)
    assert (magic, major, minor, link) == (0xA1B2C3D4, 2, 4, 1), data[:24]
    at, frames = 24, []
    while at < len(data):
        _, _, kept, whole = struct.unpack_from("<IIII", data, at)
        assert kept == whole
        frames.append(data[at + 16 : at + 16 + kept])
        at += 16 + kept
    return frames


def internet_sum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


class Network:
    guest = None
    card = None
    append = ""
    module_parameters = {}

    @classmethod
    def setUpClass(cls):
        modules = machine.CACHE / "guests" / cls.guest / "modules"
        if not (modules / "vmlinuz").exists():
            raise unittest.SkipTest("roms/guests/modules fetches the kernel")
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        folder = pathlib.Path(folder.name)
        cls.file = random.Random(5).randbytes(3_000_001)
        cls.sent = random.Random(6).randbytes(1_000_003)
        cls.host = Host(cls.file)
        cls.addClassCleanup(cls.host.close)
        root = folder / "root" / "network"
        root.mkdir(parents=True)
        names = in_order(modules, MODULES[cls.card])
        for name in names:
            shutil.copy(modules / f"{name}.ko", root)
        lines = "".join(f"insmod /network/{name}.ko {cls.module_parameters.get(name, '')}\n" for name in names)
        (root / "modules").write_text(lines)
        (root / "settings").write_text(f"http={cls.host.http_port}\nsink={cls.host.sink_port}\n")
        (root / "lease").write_text(LEASE)
        (root / "lease").chmod(0o755)
        (root / "data").write_bytes(cls.sent)
        machine.build_initrd(cls.guest, HERE / "network.sh", folder / "initrd.gz", [folder / "root"])
        dump = folder / "dump"
        port = free_port()
        command = machine.command_line(
            *("-kernel", modules / "vmlinuz", "-initrd", folder / "initrd.gz", "-append", f"console=ttyS0 quiet {cls.append}"),
            *("-m", "512M", "-nographic", "-no-reboot"),
            *("-netdev", f"user,id=n0,hostfwd=tcp:127.0.0.1:{port}-:7777", "-device", f"{cls.card},netdev=n0"),
            *(["-device", "virtio-rng-pci"] if cls.card.startswith("virtio") else []),
            *("-object", f"filter-dump,id=f,netdev=n0,file={dump}"),
        )
        with machine.Terminal(command) as terminal:
            terminal.expect("(?m)^listening", SECONDS)
            cls.echoed = echo(port, cls.sent)
            terminal.expect("(?m)^@@ end", SECONDS)
            cls.status = terminal.wait(60)
            cls.log = terminal.text
        cls.host.upload.join(30)
        cls.packets = packets(dump)
        parts = re.split(r"^@@ (\S+)\n", cls.log, flags=re.MULTILINE)
        cls.parts = dict(zip(parts[1::2], parts[2::2]))

    def test_ends_well(self):
        self.assertEqual(self.status, 0, self.log[-2000:])
        self.assertIn("== script ended: 0 ==", self.log)

    def test_card(self):
        self.assertEqual(self.parts["address"], "52:54:00:12:34:56\n")
        self.assertRegex(self.parts["driver"], {"e1000": "^e1000$", "virtio-net-pci": "^virtio_net$"}[self.card])

    def test_address_by_dhcp(self):
        self.assertIn("address 10.0.2.15/24 router 10.0.2.2 dns 10.0.2.3", self.parts["dhcp"])
        self.assertIn("default via 10.0.2.2 dev eth0", self.parts["routes"])

    def test_gateway_answers_pings(self):
        self.assertIn("3 packets transmitted, 3 packets received, 0% packet loss", self.parts["ping"])

    def test_file_from_the_hosts_server(self):
        self.assertEqual(self.parts["download"], hashlib.sha256(self.file).hexdigest() + "  -\n")

    def test_file_to_the_host(self):
        self.assertEqual(self.host.uploaded.hexdigest(), hashlib.sha256(self.sent).hexdigest())

    def test_connection_from_the_host(self):
        self.assertEqual(hashlib.sha256(self.echoed).digest(), hashlib.sha256(self.sent).digest())

    def test_no_errors_are_counted(self):
        counters = self.parts["counters"].replace(":", " ").split()[1:]
        received, sent = counters[:8], counters[8:]
        self.assertGreater(int(received[0]), len(self.file))
        self.assertGreater(int(sent[0]), len(self.sent))
        self.assertEqual(received[2:4] + sent[2:4], ["0"] * 4, self.parts["counters"])

    def test_dump_holds_every_packet_whole(self):
        found = {"dhcp": 0, "http": 0, "echo": 0, "arp": 0}
        payload = 0
        for frame in self.packets:
            (kind,) = struct.unpack_from(">H", frame, 12)
            found["arp"] += kind == 0x0806
            if kind != 0x0800:
                continue
            header = (frame[14] & 15) * 4
            (length,) = struct.unpack_from(">H", frame, 16)
            segment = frame[14 + header : 14 + length]
            self.assertEqual(internet_sum(frame[14 : 14 + header]), 0xFFFF, "an IPv4 header's checksum")
            protocol = frame[23]
            if protocol not in (6, 17):
                continue
            pseudo = frame[26:34] + struct.pack(">HH", protocol, len(segment))
            ports = struct.unpack_from(">HH", segment)
            if protocol == 6 or segment[6:8] != b"\0\0":
                self.assertEqual(internet_sum(pseudo + segment), 0xFFFF, f"a checksum, ports {ports}, {len(segment)} bytes")
            if protocol == 17:
                found["dhcp"] += set(ports) == {67, 68}
            else:
                found["http"] += self.host.http_port in ports
                found["echo"] += 7777 in ports
                if ports[0] == self.host.http_port:
                    payload += len(segment) - (segment[12] >> 4) * 4
        self.assertGreaterEqual(found["dhcp"], 4)
        self.assertGreater(found["http"], 2000)
        self.assertGreater(found["echo"], 1000)
        self.assertGreaterEqual(found["arp"], 2)
        self.assertGreater(payload, len(self.file))

    def test_kernel_log(self):
        self.assertEqual(dmesg.trouble(self.parts["dmesg"]), [])


class Amd64E1000(Network, unittest.TestCase):
    guest, card = "amd64", "e1000"


class I686E1000(Network, unittest.TestCase):
    guest, card = "i686", "e1000"


class Virtio(Network):
    card = "virtio-net-pci"
    interrupts = "PCI-MSI"

    def test_entropy_device(self):
        name, count = self.parts["entropy"].split()
        self.assertEqual((name, count), ("virtio_rng.0", "1000"))

    def test_interrupts(self):
        lines = [line for line in self.parts["interrupts"].splitlines() if re.search(r"\bvirtio\d", line)]
        self.assertTrue(lines)
        for line in lines:
            self.assertIn(self.interrupts, line)


class OldVirtio(Virtio):
    """As drivers from before the standard have it: the registers at ports, one interrupt line."""

    append = "pci=nomsi"
    module_parameters = {"virtio_pci": "force_legacy=1"}
    interrupts = "IO-APIC"


class Amd64Virtio(Virtio, unittest.TestCase):
    guest = "amd64"


class I686Virtio(Virtio, unittest.TestCase):
    guest = "i686"


class Amd64OldVirtio(OldVirtio, unittest.TestCase):
    guest = "amd64"


class I686OldVirtio(OldVirtio, unittest.TestCase):
    guest = "i686"
