"""Programs of Debian's packages that start from firmware: they draw their screens and answer the keyboard."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import machine
import monitor

MEMTEST = "/usr/lib/memtest86+/memtest86+{}.iso"
OVMF = "/usr/share/ovmf/OVMF.fd"
OVMF_CODE, OVMF_VARS = (pathlib.Path(f"/usr/share/OVMF/OVMF_{part}_4M.fd") for part in ("CODE", "VARS"))
SEABIOS = ("-bios", "/usr/share/seabios/bios-256k.bin")
LONG = bool(os.environ.get("PENUMBRA_LONG"))
GRUB = "/usr/lib/grub-rescue/grub-rescue-cdrom.iso"


class Firmware(unittest.TestCase):
    def vmm(self, *options):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        vmm = monitor.Vmm(folder.name, "-serial", "null", "-nic", "none", *options)
        self.addCleanup(vmm.__exit__)
        return vmm

    def type(self, vmm, *keys):
        for key in keys:
            vmm.monitor(f"sendkey {key}")


class Memtest(Firmware):
    """PENUMBRA_LONG=1: with the test of fading bits, which waits for minutes, and 32-bit code."""

    def round(self, image):
        vmm = self.vmm("-m", "64M", "-cdrom", MEMTEST.format(image))
        vmm.wait_screen("<Enter> to start testing")
        self.type(vmm, "f1")
        vmm.wait_screen("Test selection")
        self.type(vmm, "f1")
        vmm.wait_screen("Remove one test")
        if not LONG:
            self.type(vmm, "f2")
            vmm.wait_screen("Enter test #")
            self.type(vmm, "1", "0", "ret")
            vmm.wait_screen(r"\*\.\*{8}\.")
        self.type(vmm, "f10")
        vmm.wait_screen("<F4>  Error reporting mode")
        self.type(vmm, "f10")
        text = vmm.wait_screen(r"Pass: +[1-9]|Errors: +[1-9]", 600)
        self.assertRegex(text, r"Pass: +1 +Errors: 0(?!\d)")
        self.assertRegex(text, r"Memory +: +64MB")

    def test_a_round_of_64_bit_code(self):
        self.round("x64")

    @unittest.skipUnless(LONG, "PENUMBRA_LONG=1 runs it")
    def test_a_round_of_32_bit_code(self):
        self.round("ia32")


class Grub(Firmware):
    def test_rescue_disc_answers_at_its_prompt(self):
        vmm = self.vmm("-m", "64M", "-cdrom", GRUB)
        vmm.wait_screen("GNU GRUB")
        self.type(vmm, "c")
        vmm.wait_screen("grub>")
        self.type(vmm, *"ls", "ret")
        self.assertRegex(vmm.wait_screen(r"grub> ls[\s\S]*grub>"), r"\(cd\)|\(cd0\)")


class Ovmf(Firmware):
    def test_shell_on_the_serial_port(self):
        command = machine.command_line("-bios", OVMF, "-m", "256M", "-nographic", "-nic", "none")
        with machine.Terminal(command) as terminal:
            terminal.expect("UEFI Interactive Shell", 120)
            terminal.expect(r"Shell> ", 60)
            terminal.send("ver\r")
            terminal.expect("EDK II", 30)


@unittest.skipUnless(OVMF_CODE.exists(), "Debian's package ovmf is not there")
class OvmfInFlash(unittest.TestCase):
    """Its code in a chip that is write-protected, its variables in one that is not."""

    VARIABLE = "Penumbra -guid 01234567-89ab-cdef-0123-456789abcdef"

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.vars = pathlib.Path(folder.name) / "vars.fd"
        self.vars.write_bytes(OVMF_VARS.read_bytes())

    def shell(self, lines):
        """What the shell prints for each of the lines; then the machine is switched off."""
        command = machine.command_line(
            *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF_CODE}"),
            *("-drive", f"if=pflash,format=raw,unit=1,file={self.vars}", "-m", "256M", "-nographic", "-nic", "none"),
        )
        answers = []
        with machine.Terminal(command) as terminal:
            terminal.expect("UEFI Interactive Shell", 120)
            terminal.expect("Shell> ", 60)
            for line in lines:
                terminal.send(line + "\r")
                answer = terminal.expect("Shell> ", 60)[0]
                answers.append(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", answer))
            terminal.send("reset -s\r")
            self.assertEqual(terminal.wait(60), 0)
        return answers

    def test_variables_and_boot_order_are_there_in_the_next_run(self):
        code = OVMF_CODE.read_bytes()
        lines = [f"setvar {self.VARIABLE}", "bcfg boot dump"]
        variable, order, *_ = self.shell([*lines, f"setvar {self.VARIABLE} -nv -bs -rt =0x50656E21", "bcfg boot mv 1 0"])
        self.assertNotIn("21 6E 65 50", variable)
        before = re.findall("Desc +- (.*)", order)
        self.assertIn("EFI Internal Shell", before)
        variable, order = self.shell(lines)
        self.assertIn("21 6E 65 50", variable)
        self.assertEqual(re.findall("Desc +- (.*)", order), [before[1], before[0], *before[2:]])
        self.assertEqual(OVMF_CODE.read_bytes(), code)


def installer(arch):
    folder = pathlib.Path(f"/usr/lib/debian-installer/images/12/{arch}/text/debian-installer/{arch}")
    return ("-kernel", folder / "linux", "-initrd", folder / "initrd.gz")


TEXT_MODE = "nomodeset fb=false vga=normal"


class Installer(Firmware):
    """By way of SeaBIOS, in its text mode, where the kernel stays."""

    def first_screen(self, arch):
        vmm = self.vmm(*SEABIOS, *installer(arch), "-append", TEXT_MODE, "-m", "1G")
        text = vmm.wait_screen("Select a language", 300)
        self.assertRegex(text, r"English +- +English")
        self.type(vmm, "ret")
        vmm.wait_screen("Select your location", 60)

    def test_amd64_asks_for_the_language(self):
        self.first_screen("amd64")

    @unittest.skipUnless(LONG, "PENUMBRA_LONG=1 runs it")
    def test_i386_asks_for_the_language(self):
        self.first_screen("i386")


SCRIPT = """#!/bin/sh
for name in sys_vendor product_name product_uuid chassis_vendor; do echo "$name: $(cat /sys/class/dmi/id/$name)"; done
dmesg | grep -E "ttyS|DMI:|SMBIOS"
echo to the fourth > /dev/ttyS3
"""


class Tables(unittest.TestCase):
    """What firmware's tables and the ports that they name come to in Linux."""

    guest = "amd64"

    def test_smbios_and_serial_ports(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "script").write_text(SCRIPT)
            machine.build_initrd(self.guest, folder / "script", folder / "initrd.gz")
            uuid = "01234567-89ab-cdef-0123-456789abcdef"
            command = machine.linux(
                self.guest, folder / "initrd.gz", *SEABIOS,
                *("-smbios", f"type=1,manufacturer=Acme,product=Anvil,uuid={uuid}", "-smbios", "type=3,manufacturer=Box"),
                *("-serial", "stdio", "-serial", "null", "-serial", "null", "-serial", f"file:{folder / 'fourth'}"),
            )
            with machine.Terminal(command) as terminal:
                terminal.expect("script ended", 120)
                terminal.wait(30)
            for line in ("sys_vendor: Acme", "product_name: Anvil", f"product_uuid: {uuid}", "chassis_vendor: Box"):
                self.assertIn(line, terminal.text)
            self.assertRegex(terminal.text, "DMI: Acme Anvil")
            for port in ("ttyS0 at I/O 0x3f8", "ttyS1 at I/O 0x2f8", "ttyS2 at I/O 0x3e8", "ttyS3 at I/O 0x2e8"):
                self.assertIn(port, terminal.text)
            self.assertEqual((folder / "fourth").read_bytes(), b"to the fourth\r\n")


class WithoutAcpi(unittest.TestCase):
    """Linux finds the I/O APIC in the MP tables, the firmware's and those that are there without. The amd64 guest's kernel does not
    know such tables."""

    guest = "i686"

    def boot(self, *options):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "script").write_text("#!/bin/sh\ndmesg | grep -E 'IOAPIC|MPTABLE'\ncat /proc/interrupts\n")
            machine.build_initrd(self.guest, folder / "script", folder / "initrd.gz")
            command = machine.linux(self.guest, folder / "initrd.gz", *options, append="console=ttyS0 acpi=off")
            with machine.Terminal(command) as terminal:
                terminal.expect("script ended", 120)
            self.assertRegex(terminal.text, r"IOAPIC\[0\]: .*GSI 0-23")
            self.assertRegex(terminal.text, r" 8: +\d+ +IO-APIC +8-edge +rtc0")
            self.assertRegex(terminal.text, r"4: +\d+ +IO-APIC +4-edge +ttyS0")

    def test_started_directly(self):
        self.boot()

    def test_started_by_seabios(self):
        self.boot(*SEABIOS)


class Parallel(unittest.TestCase):
    def test_what_the_bios_prints_is_in_the_file(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            source = machine.REPO / "tests" / "boot" / "disk" / "print.asm"
            subprocess.run(["nasm", "-f", "bin", "-o", folder / "disk", source], check=True)
            command = machine.command_line(
                *("-drive", f"file={folder / 'disk'},format=raw", "-m", "64M", "-display", "none", "-serial", "null"),
                *("-parallel", f"file:{folder / 'out'}", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"),
            )
            status, _, errors = machine.run(command, 60)
            self.assertEqual((status, (folder / "out").read_bytes()), (33, b"printed\n"), errors)
