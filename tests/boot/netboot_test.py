"""A machine that boots from its network: iPXE in the card's ROM, from SeaBIOS' boot menu or by -boot n; its address comes by DHCP, a
script, a kernel and an initramfs by TFTP."""

import pathlib
import re
import shutil
import tempfile
import unittest

import machine

ROMS = pathlib.Path("/usr/lib/ipxe/qemu")
SCRIPT = """#!ipxe
echo address ${net0/ip} of ${net0/mac} from ${next-server}
kernel vmlinuz console=ttyS0 quiet
initrd initrd.gz
boot
"""


@unittest.skipUnless(ROMS.is_dir(), "Debian's package ipxe-qemu is not installed")
class Netboot(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def served(self, guest):
        if guest not in machine.guests():
            self.skipTest("roms/guests/fetch fetches the kernel")
        (self.folder / "script").write_text("cat /proc/cmdline\n")
        machine.build_initrd(guest, self.folder / "script", self.folder / "initrd.gz")
        shutil.copy(machine.kernel(guest), self.folder / "vmlinuz")
        (self.folder / "boot.ipxe").write_text(SCRIPT)
        return f"user,tftp={self.folder},bootfile=boot.ipxe"

    def boots_linux(self, terminal):
        terminal.expect(r"address 10\.0\.2\.15 of 52:54:00:12:34:56 from 10\.0\.2\.2", 60)
        terminal.expect(r"== script begins ==\s+.*console=ttyS0 quiet", 90)
        terminal.expect("== script ended: 0 ==", 60)
        self.assertEqual(terminal.wait(60), 0)

    def test_e1000_from_the_boot_menu(self):
        options = ("-nic", self.served("amd64"), "-boot", "menu=on", "-m", "512M", "-nographic", "-no-reboot")
        with machine.Terminal(machine.command_line(*options)) as terminal:
            terminal.expect("Press ESC for boot menu", 30)
            terminal.send("\x1b")
            terminal.expect(r"(\d)\. iPXE \(PCI 00:03\.0\)", 30)
            number = re.search(r"(\d)\. iPXE", terminal.text)[1]
            terminal.send(number)
            self.boots_linux(terminal)

    def test_virtio_by_boot_order(self):
        options = ("-nic", self.served("i686") + ",model=virtio-net-pci", "-boot", "n", "-m", "512M", "-nographic", "-no-reboot")
        with machine.Terminal(machine.command_line(*options)) as terminal:
            self.boots_linux(terminal)

    def test_card_without_rom_boots_nothing(self):
        options = ("-netdev", "user,id=n0", "-device", "e1000,netdev=n0,romfile=", "-boot", "n", "-m", "64M", "-nographic")
        with machine.Terminal(machine.command_line(*options)) as terminal:
            terminal.expect("No bootable device", 30)
            self.assertNotIn("iPXE", terminal.text)
