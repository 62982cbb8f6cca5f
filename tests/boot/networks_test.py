"""What a guest finds on its networks besides what network_test.py shows: names and files of the user's network, what is left of
it with restrict=on, a TAP interface."""

import hashlib
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import dmesg
import machine
from network_test import LEASE, echo, free_port, Host, in_order

HERE = pathlib.Path(__file__).parent
SECONDS = 120
NAMESPACES = ["unshare", "--map-root-user", "--net", "--mount"]


def may_make_interfaces():
    """In a namespace of its own."""
    command = [*NAMESPACES, "ip", "tuntap", "add", "dev", "tap0", "mode", "tap"]
    return shutil.which("unshare") and subprocess.run(command, capture_output=True).returncode == 0


class Networks:
    guest = None

    @classmethod
    def boot(cls, settings, options, meanwhile=lambda: None, around=()):
        modules = machine.CACHE / "guests" / cls.guest / "modules"
        if not (modules / "vmlinuz").exists():
            raise unittest.SkipTest("roms/guests/modules fetches the kernel")
        root = cls.folder / "root" / "network"
        root.mkdir(parents=True)
        names = in_order(modules, ["e1000"])
        for name in names:
            shutil.copy(modules / f"{name}.ko", root)
        (root / "modules").write_text("".join(f"insmod /network/{name}.ko\n" for name in names))
        (root / "settings").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        (root / "lease").write_text(LEASE)
        (root / "lease").chmod(0o755)
        machine.build_initrd(cls.guest, HERE / "networks.sh", cls.folder / "initrd.gz", [cls.folder / "root"])
        command = machine.command_line(
            *("-kernel", modules / "vmlinuz", "-initrd", cls.folder / "initrd.gz", "-append", "console=ttyS0 quiet"),
            *("-m", "512M", "-nographic", "-no-reboot", *options),
        )
        with machine.Terminal([*around, *command]) as terminal:
            terminal.expect("(?m)^listening", SECONDS)
            meanwhile()
            terminal.expect("(?m)^@@ end", SECONDS)
            cls.status = terminal.wait(60)
            cls.log = terminal.text
        parts = re.split(r"^@@ (\S+)\n", cls.log, flags=re.MULTILINE)
        cls.parts = dict(zip(parts[1::2], parts[2::2]))

    @classmethod
    def make_folder(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.file = random.Random(7).randbytes(100_001)
        (cls.folder / "tftp" / "folder").mkdir(parents=True)
        (cls.folder / "tftp" / "folder" / "file").write_bytes(cls.file)

    def test_ends_well(self):
        self.assertEqual(self.status, 0, self.log[-2000:])
        self.assertIn("== script ended: 0 ==", self.log)

    def test_address_by_dhcp(self):
        self.assertIn("address 10.0.2.15/24", self.parts["dhcp"])

    def test_file_by_tftp(self):
        self.assertEqual(self.parts["tftp"], f"status 0\n{hashlib.sha256(self.file).hexdigest()}  file\n")

    def test_kernel_log(self):
        self.assertEqual(dmesg.trouble(self.parts["dmesg"]), [])


class UserAndTap(Networks, unittest.TestCase):
    guest = "amd64"

    @classmethod
    def setUpClass(cls):
        if not may_make_interfaces():
            raise unittest.SkipTest("this host lets nobody make TAP interfaces in a namespace")
        cls.make_folder()
        (cls.folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        (cls.folder / "file").write_bytes(cls.file)
        port = free_port()
        cls.boot(
            {"http": port, "seconds": 60},
            ("-nic", f"user,tftp={cls.folder / 'tftp'}", "-nic", "tap,ifname=tap0,script=no,downscript=no"),
            around=[*NAMESPACES, sys.executable, HERE / "host_side.py", cls.folder, str(port)],
        )

    def test_name_from_the_hosts_server(self):
        self.assertRegex(self.parts["name"], r"(?s)penumbra\.test.*192\.0\.2\.77.*status 0\n$")

    def test_tap_reaches_the_host(self):
        self.assertIn("3 packets transmitted, 3 packets received, 0% packet loss", self.parts["tap"])
        self.assertIn(hashlib.sha256(self.file).hexdigest(), self.parts["tap"])


class Restricted(Networks, unittest.TestCase):
    guest = "i686"

    @classmethod
    def setUpClass(cls):
        cls.make_folder()
        host = Host(cls.file)
        cls.addClassCleanup(host.close)
        port = free_port()

        def connect():
            cls.echoed = echo(port, b"through the one way in")

        cls.boot(
            {"http": host.http_port, "seconds": 3, "forward": "yes"},
            ("-nic", f"user,restrict=on,tftp={cls.folder / 'tftp'},hostfwd=tcp:127.0.0.1:{port}-:7777"),
            connect,
        )

    def test_names_and_host_are_out_of_reach(self):
        for part in ("name", "host"):
            self.assertRegex(self.parts[part], "status [1-9]", part)

    def test_what_is_forwarded_comes_in(self):
        self.assertEqual(self.echoed, b"through the one way in")
