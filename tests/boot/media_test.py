"""Media that a person or the guest takes out and changes: the monitors' eject and change, Linux' drivers."""

import hashlib
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import machine
import monitor
from disk_test import RESCUE_DISC
from network_test import in_order

SCRIPT = """
for module in $(cat /media/modules); do insmod "/media/$module.ko"; done
tries=0; while [ ! -b /dev/sr0 ] && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
while read -r word; do
  case $word in
    eject) /media/eject /dev/sr0; echo looked; continue ;;  # for Linux closes the tray when it opens the drive
    hold) exec 5</dev/sr0 ;;
    release) exec 5<&- ;;
  esac
  # The first access sees the change, and may fail for it; under QEMU, too.
  for device in sr0 fd0; do dd if=/dev/$device of=/dev/null count=1 2>/dev/null; done
  for device in sr0 fd0; do echo "$device: $(dd if=/dev/$device bs=18432 2>/dev/null | md5sum | cut -c 1-32)"; done
  echo looked
done </dev/console
"""
EJECT = """
#include <fcntl.h>
#include <linux/cdrom.h>
#include <sys/ioctl.h>
int main(int count, char** words) { return ioctl(open(words[1], O_RDONLY | O_NONBLOCK), CDROMEJECT) != 0; }
"""
NOTHING = hashlib.md5(b"").hexdigest()


class Media(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def make(self, name, size, seed):
        path = self.folder / name
        path.write_bytes(bytes((i * seed + (i >> 9)) & 0xFF for i in range(size)))
        return path, hashlib.md5(path.read_bytes()).hexdigest()

    def look(self, terminal, word=""):
        """What the guest reads of both drives, after it did what the word says."""
        terminal.send(word + "\r")
        _, disc = terminal.expect("sr0: ([0-9a-f]{32})", 60)
        _, diskette = terminal.expect("fd0: ([0-9a-f]{32})", 60)
        terminal.expect("looked", 10)
        return disc[1], diskette[1]

    def test_change_and_eject(self):
        for guest in machine.guests():
            modules = machine.CACHE / "guests" / guest / "modules"
            if not (modules / "floppy.ko").exists():
                self.skipTest("roms/guests/modules fetches the guests' modules")
            with self.subTest(guest):
                self.change_and_eject(guest, modules)

    def change_and_eject(self, guest, modules):
        root = self.folder / guest / "media"
        root.mkdir(parents=True)
        names = in_order(modules, ["ata_piix", "sr_mod", "floppy"])
        for name in names:
            shutil.copy(modules / f"{name}.ko", root)
        (root / "modules").write_text("\n".join(names) + "\n")
        if guest == "amd64":
            (self.folder / "eject.c").write_text(EJECT)
            subprocess.run(["gcc", "-static", "-o", root / "eject", self.folder / "eject.c"], check=True)
        (self.folder / "script").write_text(SCRIPT)
        machine.build_initrd(guest, self.folder / "script", self.folder / "initrd.gz", [self.folder / guest])
        disc_a, sum_a = self.make("a.iso", 100 * 2048, 7)
        disc_b, sum_b = self.make("b.iso", 300 * 2048, 11)
        floppy_a, floppy_sum_a = self.make("a.img", 1474560, 3)
        floppy_b, floppy_sum_b = self.make("b.img", 1474560, 5)
        qmp_path = self.folder / f"{guest}.qmp"
        disk, _ = self.make("disk.img", 1 << 20, 13)
        command = machine.command_line(
            *("-kernel", modules / "vmlinuz", "-initrd", self.folder / "initrd.gz", "-append", "console=ttyS0 quiet"),
            *("-m", "512M", "-nographic", "-no-reboot", "-cdrom", disc_a, "-qmp", f"unix:{qmp_path},server=on,wait=off"),
            *("-drive", f"if=floppy,file={floppy_a},format=raw", "-drive", f"file={disk},format=raw"),
        )
        with machine.Terminal(command) as terminal:
            terminal.expect("script begins", 60)
            qmp = monitor.Qmp(qmp_path)
            self.addCleanup(qmp.file.close)

            def hmp(line):
                return qmp("human-monitor-command", **{"command-line": line})

            self.assertEqual(self.look(terminal), (sum_a, floppy_sum_a))
            self.assertIn("ide1-cd0", hmp("info block"))
            qmp("blockdev-change-medium", device="ide1-cd0", filename=str(disc_b), format="raw")
            hmp(f"change floppy0 {floppy_b} raw")
            self.assertEqual(self.look(terminal), (sum_b, floppy_sum_b))
            qmp("eject", device="ide1-cd0")
            hmp("eject floppy0")
            self.assertEqual(self.look(terminal), (NOTHING, NOTHING))
            hmp(f"change ide1-cd0 {disc_a}")
            hmp(f"change floppy0 {floppy_a} raw")
            self.assertEqual(self.look(terminal), (sum_a, floppy_sum_a))
            qmp.wait_event("DEVICE_TRAY_MOVED")
            # Linux locks a drive that is in use.
            self.look(terminal, "hold")
            self.assertIn("is locked", hmp("eject ide1-cd0"))
            self.assertRegex(hmp("info block"), r"(?m)^ide1-cd0.*a\.iso[^\n]*\n(    .*\n)*    Removable device: locked, tray closed")
            self.assertEqual(self.look(terminal, "release")[0], sum_a)
            self.look(terminal, "hold")
            self.assertEqual(hmp("eject -f ide1-cd0"), "")
            self.assertEqual(self.look(terminal, "release")[0], NOTHING)
            hmp(f"change ide1-cd0 {disc_a}")
            self.assertEqual(self.look(terminal)[0], sum_a)
            if guest == "amd64":
                terminal.send("eject\r")
                terminal.expect("looked", 30)
                self.assertRegex(hmp("info block"), r"(?m)^ide1-cd0.*a\.iso[^\n]*\n(    .*\n)*    Removable device: not locked, tray open")
                self.assertTrue(next(drive for drive in qmp("query-block") if drive["device"] == "ide1-cd0")["tray_open"])
                self.assertEqual(self.look(terminal)[0], sum_a)
            with self.assertRaisesRegex(AssertionError, "is not removable"):
                qmp("eject", device="ide0-hd0")
            with self.assertRaisesRegex(AssertionError, "not found"):
                qmp("eject", device="ide0-cd7")
            with self.assertRaisesRegex(AssertionError, "No such file"):
                qmp("blockdev-change-medium", device="ide1-cd0", filename="/nowhere")
            self.assertEqual(self.look(terminal)[0], sum_a)


@unittest.skipUnless(RESCUE_DISC.exists(), "Debian's package grub-rescue-pc is not installed")
class EmptyDrives(unittest.TestCase):
    def test_a_disc_put_into_a_drive_that_nobody_named_boots(self):
        with tempfile.TemporaryDirectory() as folder, monitor.Vmm(folder, "-m", "64M", "-serial", "null", "-nic", "none") as vmm:
            drives = vmm.monitor("info block")
            for name in ("ide1-cd0", "floppy0"):
                self.assertIn(f"{name}: [not inserted]", drives)
            vmm.wait_screen("No bootable device")
            self.assertEqual(vmm.monitor(f"change ide1-cd0 {RESCUE_DISC}"), "")
            vmm.monitor("system_reset")
            vmm.wait_screen("GNU GRUB")
