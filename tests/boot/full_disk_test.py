"""A host without room for what a guest writes: the machine pauses, the monitor's cont tries again, nothing is lost."""

import json
import pathlib
import resource
import shutil
import socket
import subprocess
import tempfile
import time
import unittest

import machine

MIB = 1 << 20
DISK_BYTES = 12 * MIB  # the program writes 8 MiB of it


def limit(size):
    """Sets how large a machine's files may be. Not before it has started: its memory is a file, too."""
    return lambda terminal: resource.prlimit(terminal.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class FullDisk(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.sector = cls.folder / "sector.img"
        source = machine.REPO / "tests" / "boot" / "disk" / "writer.asm"
        subprocess.run(["nasm", "-f", "bin", "-o", cls.sector, source], check=True)

    def make_image(self, image_format):
        raw = self.folder / "disk.raw"
        shutil.copy(self.sector, raw)
        with raw.open("r+b") as file:
            file.truncate(DISK_BYTES)
        if image_format == "raw":
            return raw
        image = self.folder / "disk.qcow2"
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, image], check=True)
        return image

    def options(self, drive):
        return machine.command_line(
            *("-drive", drive, "-m", "16M", "-nographic", "-no-reboot", "-qmp", f"unix:{self.folder}/qmp,server=on,wait=off"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"),
        )

    def connect(self):
        qmp = socket.socket(socket.AF_UNIX)
        self.addCleanup(qmp.close)
        deadline = time.monotonic() + 30 * machine.PATIENCE
        while True:
            try:
                qmp.connect(f"{self.folder}/qmp")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        lines = qmp.makefile("rw", encoding="utf-8")

        def say(command):
            lines.write(json.dumps({"execute": command}) + "\n")
            lines.flush()
            while "return" not in (answer := json.loads(lines.readline())):
                pass
            return answer["return"]

        lines.readline()
        say("qmp_capabilities")
        return say

    def wait_for(self, say, status):
        deadline = time.monotonic() + 60 * machine.PATIENCE
        while (now := say("query-status")["status"]) != status:
            self.assertLess(time.monotonic(), deadline, now)
            time.sleep(0.05)

    def run_until_there_is_room(self, command, take_room, make_room):
        with machine.Terminal([*command, "-S"]) as terminal:
            say = self.connect()
            take_room(terminal)
            say("cont")
            terminal.expect("writing", 60)
            self.wait_for(say, "io-error")
            terminal.expect(r"a write failed \((No space left on device|File too large)\); the machine is paused", 10)
            say("cont")  # nothing has changed
            self.wait_for(say, "io-error")
            make_room(terminal)
            say("cont")
            terminal.expect("all there", 60)
            self.assertEqual(terminal.wait(10), 33)
            self.assertEqual(terminal.text.count("the machine is paused"), 2)

    def check(self, image):
        if image.suffix == ".qcow2":
            checked = subprocess.run(["qemu-img", "check", image], capture_output=True, text=True)
            self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_file_that_may_not_grow(self):
        """By the limit of a process, which another one can raise while it runs."""
        for image_format in ("raw", "qcow2"):
            for interface in ("ide", "virtio"):
                with self.subTest(image_format, interface=interface):
                    image = self.make_image(image_format)
                    drive = f"file={image},format={image_format},if={interface}"
                    self.run_until_there_is_room(self.options(drive), limit(3 * MIB), limit(resource.RLIM_INFINITY))
                    self.check(image)

    def test_full_file_system(self):
        """A small file system of its own, where the host lets users make namespaces."""
        inner = self.folder / "small"
        inner.mkdir()
        unshare = ["unshare", "--user", "--map-root-user", "--mount"]
        if subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", inner], capture_output=True).returncode != 0:
            self.skipTest("the host makes no namespaces for this user: file size limits are what is left")
        for image_format in ("raw", "qcow2"):
            with self.subTest(image_format):
                image = self.make_image(image_format)
                name = inner / image.name
                drive = f"file={name},format={image_format},if=ide"
                # The command waits for a line before it makes room, so that this process need not enter the namespace.
                room = self.folder / "room"
                room.unlink(missing_ok=True)
                script = (
                    f"mount -t tmpfs -o size=4m none {inner} && cp --sparse=always {image} {name} || exit 99\n"
                    f"(while [ ! -e {room} ]; do sleep 0.05; done; mount -o remount,size=64m {inner}; touch {room}.made) &\n"
                    f'"$@"; status=$?\n'
                    f"cp {name} {image}.after; exit $status"
                )

                def make_room(_):
                    room.touch()
                    deadline = time.monotonic() + 30 * machine.PATIENCE
                    while not pathlib.Path(f"{room}.made").exists() and time.monotonic() < deadline:
                        time.sleep(0.05)

                self.run_until_there_is_room(
                    [*unshare, "sh", "-c", script, "sh", *self.options(drive)], lambda _: None, make_room
                )
                pathlib.Path(f"{room}.made").unlink()
                after = pathlib.Path(f"{image}.after").rename(image)
                self.check(after)

    def test_guest_sees_it_when_asked_to(self):
        image = self.make_image("raw")
        with machine.Terminal([*self.options(f"file={image},format=raw,werror=report"), "-S"]) as terminal:
            say = self.connect()
            limit(3 * MIB)(terminal)
            say("cont")
            terminal.expect("not written", 60)
            self.assertEqual(terminal.wait(10), 33)
            self.assertNotIn("paused", terminal.text)
