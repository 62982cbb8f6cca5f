"""A guest's virtio console, a port for its programs, a memory balloon. The kernels are those of roms/guests/modules."""

import pathlib
import shutil
import tempfile
import time
import unittest

import dmesg
import machine
import monitor
from network_test import in_order

HERE = pathlib.Path(__file__).parent
SECONDS = 120
MIB = 1 << 20


class Guest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def options(self, guest, script, names):
        """Of a machine that boots the kernel with these modules and runs the script."""
        modules = machine.CACHE / "guests" / guest / "modules"
        if not all((modules / f"{name}.ko").exists() for name in names):
            self.skipTest("roms/guests/modules fetches the kernel")
        root = self.folder / "root" / "virtio"
        root.mkdir(parents=True)
        order = in_order(modules, names)
        for name in order:
            shutil.copy(modules / f"{name}.ko", root)
        (root / "modules").write_text("".join(f"insmod /virtio/{name}.ko\n" for name in order))
        machine.build_initrd(guest, HERE / script, self.folder / "initrd.gz", [self.folder / "root"])
        return (
            *("-kernel", modules / "vmlinuz", "-initrd", self.folder / "initrd.gz", "-append", "console=ttyS0 quiet"),
            *("-m", "512M", "-no-reboot", "-nic", "none"),
        )


class Ports(Guest):
    def shows(self, vmm, text):
        deadline = time.monotonic() + SECONDS * machine.PATIENCE
        while text not in (log := self.log.read_text(errors="replace") if self.log.exists() else ""):
            self.assertLess(time.monotonic(), deadline, f"no {text!r}:\n{log[-2000:]}")
            self.assertIsNone(vmm.process.poll(), log[-2000:])
            time.sleep(0.1)
        return log.replace("\r", "")

    def rss(self, vmm):
        """MiB of the guest's memory that are the host's."""
        status = pathlib.Path(f"/proc/{vmm.process.pid}/status").read_text()
        return int(status.split("RssShmem:")[1].split()[0]) // 1024

    def test_ports_and_balloon(self):
        self.log, console, port = self.folder / "log", self.folder / "console", self.folder / "port"
        options = self.options("amd64", "virtio_ports.sh", ["virtio_pci", "virtio_console", "virtio_balloon"])
        vmm = monitor.Vmm(
            self.folder,
            *options,
            *("-serial", f"file:{self.log}", "-device", "virtio-balloon-pci,id=b", "-device", "virtio-serial-pci"),
            *("-chardev", f"file,id=c,path={console}", "-device", "virtconsole,chardev=c"),
            *("-chardev", f"file,id=p,path={port}", "-device", "virtserialport,chardev=p,name=org.penumbra.test"),
        )
        with vmm:
            self.assertIn("org.penumbra.test", self.shows(vmm, "ready"))
            self.assertEqual(console.read_bytes().replace(b"\r", b""), b"from the console\n")
            self.assertEqual(port.read_bytes(), b"from the port\n")
            self.assertEqual(vmm.monitor("info balloon"), "balloon: actual=512\n")
            self.tells_statistics(vmm)
            before = self.rss(vmm)
            self.assertEqual(vmm.monitor("balloon 256"), "")
            self.shows(vmm, "shrunk")
            deadline = time.monotonic() + 30 * machine.PATIENCE
            while vmm.qmp("query-balloon")["actual"] != 256 * MIB:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.1)
            self.assertEqual(vmm.monitor("info balloon"), "balloon: actual=256\n")
            if machine.IS_PENUMBRA:
                self.assertLess(self.rss(vmm), before - 100, "MiB that the host has back")
            self.assertEqual(vmm.qmp("balloon", value=512 * MIB), {})
            log = self.shows(vmm, "@@ end")
            self.assertIn("grown\n", log)
            while vmm.qmp.event_data.get("BALLOON_CHANGE") != {"actual": 512 * MIB}:
                vmm.qmp.next_event("BALLOON_CHANGE")
            self.assertEqual(vmm.qmp("query-balloon")["actual"], 512 * MIB)
        self.assertEqual(dmesg.trouble(log[log.index("grown\n") + 6 : log.index("@@ end")]), [])

    def tells_statistics(self, vmm):
        """Linux' numbers, asked for every second."""
        path = "/machine/peripheral/b"
        interval = "guest-stats-polling-interval"
        self.assertEqual(vmm.qmp("qom-get", path=path, property=interval), 0)
        vmm.qmp("qom-set", path=path, property=interval, value=1)
        self.assertEqual(vmm.qmp("qom-get", path=path, property=interval), 1)
        updates, deadline = set(), time.monotonic() + 60 * machine.PATIENCE
        while len(updates) < 3:
            self.assertLess(time.monotonic(), deadline)
            answer = vmm.qmp("qom-get", path=path, property="guest-stats")
            updates.add(answer["last-update"])
            time.sleep(0.2)
        statistics = answer["stats"]
        self.assertAlmostEqual(statistics["stat-total-memory"] / MIB, 490, delta=40)
        self.assertLess(statistics["stat-free-memory"], statistics["stat-total-memory"])
        self.assertLess(abs(max(updates) - time.time()), 60)
        vmm.qmp("qom-set", path=path, property=interval, value=0)
        for value, why in ((-1, "greater than zero"), (1 << 32, "too big")):
            with self.assertRaisesRegex(AssertionError, why):
                vmm.qmp("qom-set", path=path, property=interval, value=value)
        with self.assertRaisesRegex(AssertionError, "not found"):
            vmm.qmp("qom-get", path=path, property="nothing")
        with self.assertRaisesRegex(AssertionError, "not found"):
            vmm.qmp("qom-get", path="/machine/peripheral/c", property="guest-stats")

    def test_no_balloon(self):
        with monitor.Vmm(self.folder, "-m", "64M", "-serial", "null", "-nic", "none") as vmm:
            with self.assertRaisesRegex(AssertionError, "No balloon device has been activated"):
                vmm.qmp("query-balloon")
            self.assertIn("balloon", vmm.monitor("info balloon"))


class Console(Guest):
    def test_answers_the_terminal(self):
        options = self.options("i686", "virtio_console.sh", ["virtio_pci", "virtio_console"])
        command = machine.command_line(
            *(*options, "-display", "none", "-serial", "null", "-chardev", "stdio,id=c"),
            *("-device", "virtio-serial-pci", "-device", "virtconsole,chardev=c"),
        )
        with machine.Terminal(command) as terminal:
            terminal.expect(r"who is there\?", SECONDS)
            terminal.send("a person\n")
            terminal.expect("hello, a person", 30)
            self.assertEqual(terminal.wait(60), 0)


del Guest
