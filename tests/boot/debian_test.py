"""Debian's disk (roms/guests/disk) as its owner would use it: BIOS, GRUB, login, files that stay, power off, twice."""

import functools
import hashlib
import http.server
import os
import pathlib
import random
import subprocess
import tempfile
import threading
import time
import unittest

import dmesg
import machine
import monitor

LONG = bool(os.environ.get("PENUMBRA_LONG"))
PARTITION = 1 << 20
BOOT_SECONDS = 240
# Of a drive, and whether Debian's cloud kernel has its drivers.
INTERFACES = {
    "ide": ("if=ide", (), True),
    "ahci": ("if=none,id=d", ("-device", "ich9-ahci,id=ahci", "-device", "ide-hd,drive=d,bus=ahci.0"), False),
    "virtio": ("if=virtio", (), True),
}


def disk(arch):
    """What roms/guests/disk makes."""
    return machine.CACHE / "disks" / f"debian-{arch}.img"


class Session:
    """A boot of the disk, logged in as root."""

    def __init__(self, drive, general_kernel=False):
        self.general_kernel = general_kernel
        self.terminal = machine.Terminal(
            machine.command_line(*drive, "-m", "1G", "-nographic", "-no-reboot")
        )

    def __enter__(self):
        try:
            return self._log_in()
        except BaseException:
            self.terminal.__exit__()  # else its lock would fail the next boot of the image
            raise

    def _log_in(self):
        terminal = self.terminal
        terminal.expect("GRUB", BOOT_SECONDS)
        if self.general_kernel:
            # An image without it was made by an older roms/guests/disk: --update.
            terminal.expect("general kernel", BOOT_SECONDS)
            terminal.send("g")
        terminal.expect("penumbra login: ", BOOT_SECONDS)
        terminal.send("root\r")
        terminal.expect("root@penumbra:~# ", 30)
        first, rest = machine.PROMPT[:3], machine.PROMPT[3:]
        terminal.send(f"PS1='{first}''{rest}' exec sh\r")  # whose echo is no prompt
        terminal.expect(machine.PROMPT, 30)
        terminal.shell("stty cols 200")
        terminal.shell("dmesg -n 1")  # or a kernel that finds its clock ahead, after the host stopped the VMM, is in the answers
        return self

    def __exit__(self, *error):
        self.terminal.__exit__(*error)

    def run(self, line, seconds=30):
        return self.terminal.shell(line, seconds)

    def power_off(self):
        self.terminal.send("systemctl poweroff\r")
        self.terminal.expect("reboot: Power down", 90)
        return self.terminal.wait(10)


class Repository:
    """A Debian archive with one small package, on the host's loopback."""

    def __init__(self, folder):
        root = folder / "package"
        (root / "DEBIAN").mkdir(parents=True)
        (root / "usr/share").mkdir(parents=True)
        (root / "usr/share/penumbra-greeting").write_text("hello from the host\n")
        control = "Package: penumbra-greeting\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: a greeting\n"
        (root / "DEBIAN/control").write_text(control)
        archive = folder / "archive"
        archive.mkdir()
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", root, archive / "greeting.deb"], check=True, capture_output=True)
        package = (archive / "greeting.deb").read_bytes()
        digest = hashlib.sha256(package).hexdigest()
        index = f"{control}Filename: ./greeting.deb\nSize: {len(package)}\nSHA256: {digest}\n\n".encode()
        (archive / "Packages").write_bytes(index)
        (archive / "Release").write_text(f"Suite: test\nSHA256:\n {hashlib.sha256(index).hexdigest()} {len(index)} Packages\n")
        self.asked = asked = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_):
                asked.append(self.path)

        handler = functools.partial(Handler, directory=archive)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Disk(unittest.TestCase):
    arch = None

    @classmethod
    def setUpClass(cls):
        if not disk(cls.arch).exists():
            raise unittest.SkipTest(f"no disk image: roms/guests/disk --guest {cls.arch} makes it")
        folder = tempfile.TemporaryDirectory(dir=machine.CACHE)
        cls.addClassCleanup(folder.cleanup)
        cls.image = pathlib.Path(folder.name) / "disk.img"
        subprocess.run(["cp", "--sparse=always", disk(cls.arch), cls.image], check=True)
        cls.repository = Repository(cls.image.parent)
        cls.addClassCleanup(cls.repository.close)

    def drive(self, properties="", interface="ide"):
        place, devices, _ = INTERFACES[interface]
        return ("-drive", f"file={self.image},format=raw,{place}{properties}", *devices)

    def boot(self, interface="ide", properties=""):
        cloud = self.arch == "amd64" and INTERFACES[interface][2]
        card = "virtio-net-pci" if cloud else "e1000"  # of which the cloud kernel knows only one
        return Session((*self.drive(properties, interface), "-nic", f"user,model={card}"), not cloud)

    def check_file_system(self):
        checked = subprocess.run(
            ["/sbin/e2fsck", "-fn", f"{self.image}?offset={PARTITION}"], capture_output=True, text=True
        )
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def network(self, session):
        """An address by DHCP, a package by HTTP."""
        session.run("until ip -4 -o address show scope global | grep -q inet; do sleep 0.2; done", 60)
        self.assertRegex(session.run("ip -4 -o address show scope global"), r"inet 10\.0\.2\.15/24 .*dynamic")
        self.assertIn("default via 10.0.2.2", session.run("ip route"))
        source = f"deb [trusted=yes] http://10.0.2.2:{self.repository.port} ./"
        session.run(f"rm -f /etc/apt/sources.list.d/*; echo '{source}' > /etc/apt/sources.list")
        session.run("rm -rf /var/lib/apt/lists/*; apt-get clean")  # what another test of this image has fetched
        del self.repository.asked[:]
        self.assertRegex(session.run("apt-get update; echo status $?", 120), r"(?m)^status 0$")
        installed = session.run("apt-get install -y --reinstall penumbra-greeting; echo status $?", 180)
        self.assertRegex(installed, r"(?m)^status 0$")
        self.assertEqual(session.run("cat /usr/share/penumbra-greeting"), "hello from the host")
        for path in ("Packages", "greeting.deb"):
            self.assertIn(path, " ".join(self.repository.asked))

    def two_days(self, interface):
        """A boot that uses the network and writes files, and one that finds them as they were."""
        device = "vda1" if interface == "virtio" else "sda1"
        kept = f"/root/kept-{interface}"
        sums = f"cd {kept}; find . -type f | sort | xargs -d '\\n' md5sum | md5sum"
        with self.boot(interface) as session:
            self.assertIn(device, session.run("grep ' / ' /proc/mounts; cat /proc/partitions"))
            self.assertEqual(session.run("systemctl is-system-running --wait", 90), "running")
            self.network(session)
            self.assertEqual(dmesg.trouble(session.run("dmesg -r")), [])
            session.run(f"mkdir {kept}; seq 1 300000 > {kept}/numbers; cp -r /usr/lib/python3* /usr/share/doc {kept}", 120)
            first = session.run(sums, 60)
            self.assertRegex(first, "^[0-9a-f]{32}")
            self.assertEqual(session.power_off(), 0)
        self.check_file_system()
        with self.boot(interface) as session:
            self.assertIn("clean", session.run("journalctl -b -o cat -u systemd-fsck-root.service"))
            self.assertNotIn("recovery", session.run("dmesg | grep 'EXT4-fs'"))
            self.assertEqual(session.run(sums, 60), first)
            self.assertEqual(session.power_off(), 0)
        self.check_file_system()

    def test_two_days_from_ide(self):
        self.two_days("ide")

    @unittest.skipUnless(LONG, "PENUMBRA_LONG=1 runs it")
    def test_two_days_from_ahci(self):
        self.two_days("ahci")

    @unittest.skipUnless(LONG, "PENUMBRA_LONG=1 runs it")
    def test_two_days_from_virtio(self):
        self.two_days("virtio")


class DebianI686(Disk):
    arch = "i686"


class DebianDisk(Disk):
    arch = "amd64"

    def test_power_button_shuts_down_cleanly(self):
        path = self.image.with_name("qmp")
        with Session((*self.drive(), "-qmp", f"unix:{path},server=on,wait=off")) as session:
            self.assertIn("Power Button", session.run("cat /proc/bus/input/devices"))
            session.run("dd if=/dev/urandom of=/root/random bs=1M count=16; systemctl is-system-running --wait", 90)
            qmp = monitor.Qmp(path)
            qmp("system_powerdown")
            qmp.wait_event("POWERDOWN")
            session.terminal.expect("reboot: Power down", 90)
            self.assertEqual(session.terminal.wait(10), 0)
            qmp.wait_event("SHUTDOWN")
        self.check_file_system()

    def test_virtio_keyboard_and_tablet(self):
        """Linux' drivers have what was typed, and where the pointer was put."""
        path = self.image.with_name("input-qmp")
        drive = (*self.drive(",snapshot=on"), "-qmp", f"unix:{path},server=on,wait=off")
        devices = ("-device", "virtio-keyboard-pci", "-device", "virtio-tablet-pci")
        with Session((*drive, *devices), general_kernel=True) as session:
            names = session.run("modprobe evdev; udevadm settle; grep -h . /sys/class/input/event*/device/name", 60)
            self.assertRegex(names, "(?i)virtio.*keyboard")
            self.assertRegex(names, "(?i)virtio.*tablet")
            find = "basename $(dirname $(dirname $(grep -il 'virtio.*keyboard' /sys/class/input/event*/device/name)))"
            session.run(f"timeout 60 dd if=/dev/input/$({find}) bs=24 count=4 of=/tmp/keys 2> /dev/null & sleep 1")
            monitor.Qmp(path)("send-key", keys=[{"type": "qcode", "data": "z"}])
            # Time, type, code, value: the key (44) down and up, each ended by a report.
            shown = session.run("wait; od -A n -t u2 -v -w24 /tmp/keys", 90)
            events = [line.split()[8:11] for line in shown.splitlines()[:4]]  # then the shell tells of the job
            self.assertEqual(events, [["1", "44", "1"], ["0", "0", "0"], ["1", "44", "0"], ["0", "0", "0"]])

    def test_virtio_disk(self):
        with self.boot("virtio", ",snapshot=on") as session:
            self.assertIn("vda1", session.run("cat /proc/partitions"))
            self.assertIn("virtio0", session.run("cat /proc/interrupts"))
            session.run("dd if=/dev/zero of=/root/zeros bs=1M count=64 conv=fsync", 60)
            self.assertEqual(session.run("cmp -n 67108864 /dev/zero /root/zeros && echo same", 60), "same")
            self.assertEqual(dmesg.trouble(session.run("dmesg -r")), [])
            self.assertEqual(session.power_off(), 0)

    def test_ahci_disk(self):
        drive = ("-drive", f"file={self.image},format=raw,if=none,id=d,snapshot=on", "-device", "ich9-ahci,id=ahci")
        with Session((*drive, "-device", "ide-hd,drive=d,bus=ahci.0"), general_kernel=True) as session:
            self.assertIn("sda1", session.run("cat /proc/partitions"))
            self.assertRegex(session.run("cat /proc/interrupts"), "MSI.*ahci")
            # Linux queues 32 commands but for what it keeps for itself.
            self.assertRegex(session.run("dmesg | grep NCQ"), r"NCQ \(depth 3[12]\)")
            session.run("dd if=/dev/zero of=/root/zeros bs=1M count=64 conv=fsync", 60)
            self.assertEqual(session.run("cmp -n 67108864 /dev/zero /root/zeros && echo same", 60), "same")
            # What comes from the page cache, and from the disk when many ask for it at a time.
            files = "cd /usr/bin; find . /usr/lib/x86_64-linux-gnu -type f | sort | xargs -d '\\n'"
            sums = session.run(f"{files} md5sum | sort -k 2 | md5sum", 120)
            self.assertRegex(sums, "^[0-9a-f]{32}")
            session.run("echo 3 > /proc/sys/vm/drop_caches")
            self.assertEqual(session.run(f"{files} -P 8 -n 50 md5sum | sort -k 2 | md5sum", 120), sums)
            self.assertEqual(dmesg.trouble(session.run("dmesg -r")), [])
            self.assertEqual(session.power_off(), 0)

    def test_killed_while_it_writes(self):
        """kill -9 of the VMM at any time leaves a qcow2 image that checks clean and a file system that recovers.
        PENUMBRA_KILLS says how often."""
        image = self.image.parent / "killed.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", self.image, "-F", "raw", image], check=True)
        # A boot after the kills looks at the files; the others are killed sooner or later, while the system starts or while
        # programs write as fast as they can.
        for number in range(int(os.environ.get("PENUMBRA_KILLS") or 2)):
            # Without a card there is no wait for booting from the network.
            drive = ("-drive", f"file={image},format=qcow2,if={random.choice(('ide', 'virtio'))}", "-nic", "none")
            with Session(drive) as session:
                self.assertNotIn("error", session.run("dmesg | grep EXT4-fs").lower().replace("errors=remount-ro", ""))
                # What was on stable storage before the last kill is there, whole.
                self.assertEqual(session.run("cd /root && [ ! -e sums ] || md5sum --quiet -c sums; echo checked"), "checked")
                session.run(f"seq {number} 200000 > /root/kept-{number % 4}; cd /root; md5sum kept-* > new; sync; mv new sums; sync", 60)
                session.terminal.send("while :; do cp -r /usr/share/doc /root/copy; sync; rm -r /root/copy; done\r")
                time.sleep(random.uniform(0.5, 5))
                session.terminal.process.kill()
                session.terminal.process.wait()
            checked = subprocess.run(["qemu-img", "check", image], capture_output=True, text=True)
            self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
        with Session(("-drive", f"file={image},format=qcow2,if=virtio")) as session:
            self.assertEqual(session.run("cd /root && md5sum --quiet -c sums; echo checked"), "checked")
            self.assertEqual(session.power_off(), 0)
        raw = image.with_suffix(".raw")
        subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
        checked = subprocess.run(["/sbin/e2fsck", "-fn", f"{raw}?offset={PARTITION}"], capture_output=True, text=True)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)


del Disk
