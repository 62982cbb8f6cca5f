"""The screen and the monitors: SeaBIOS and boot sectors draw, the pictures are QEMU's."""

import pathlib
import shutil
import subprocess
import tempfile
import time
import unittest

import machine
import monitor

QEMU = shutil.which("qemu-system-x86_64")
BARE = ("-m", "64M", "-serial", "null", "-nic", "none")
MODES = {
    0x03: "80 columns", 0x04: "CGA, 4 colours", 0x06: "CGA, 2 colours", 0x0D: "320 by 200, 16 colours",
    0x10: "640 by 350, 16 colours", 0x12: "640 by 480, 16 colours", 0x13: "320 by 200, 256 colours",
    0x101: "VBE, 8 bits", 0x111: "VBE, 16 bits", 0x112: "VBE, 24 bits", 0x4110: "VBE, 15 bits, linear",
}


class Screens(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def vmm(self, *options, vmm=None):
        vmm = monitor.Vmm(self.folder, *options, vmm=vmm)
        self.addCleanup(vmm.__exit__)
        return vmm

    def picture(self, vmm, suffix="ppm"):
        path = self.folder / f"screen.{suffix}"
        vmm.qmp("screendump", filename=str(path))
        return monitor.read_ppm(path) if suffix == "ppm" else monitor.read_png(path)

    def same_picture(self, ours, theirs):
        """But for a blinking cursor, and for the lowest bits of colours, which QEMU fills in its own way."""
        self.assertEqual(ours[:2], theirs[:2])
        differ = sum(
            any(abs(a - b) > 7 for a, b in zip(ours[2][i : i + 3], theirs[2][i : i + 3]))
            for i in range(0, len(ours[2]), 3)
            if ours[2][i : i + 3] != theirs[2][i : i + 3]
        )
        self.assertLessEqual(differ, 9 * 2)
        self.assertGreater(len(set(ours[2])), 1, "all is of one colour")


@unittest.skipUnless(machine.IS_PENUMBRA, "QEMU's monitor tells no text")
class Firmware(Screens):
    def test_banner_and_boot_failure(self):
        vmm = self.vmm(*BARE)
        text = vmm.wait_screen("No bootable device")
        self.assertRegex(text, r"^SeaBIOS \(version ")
        width, height, _ = png = self.picture(vmm, "png")
        self.assertEqual((width, height), (720, 400))
        self.assertEqual(png, self.picture(vmm))

    def test_boot_menu_answers_the_keyboard(self):
        vmm = self.vmm(*BARE, "-boot", "menu=on")
        vmm.wait_screen("Press ESC for boot menu")
        vmm.monitor("sendkey esc")
        vmm.wait_screen("Select boot device")
        self.assertIn("unknown key", vmm.monitor("sendkey nonsense"))

    def test_boot_menu_on_the_serial_port(self):
        command = machine.command_line("-m", "64M", "-nographic", "-nic", "none", "-boot", "menu=on,splash-time=60000")
        with machine.Terminal(command) as terminal:
            terminal.expect("Press ESC for boot menu", 60)
            terminal.send("\x1b")
            terminal.expect("Select boot device", 60)
            terminal.expect(r"1\. ", 10)

    def test_vga_none(self):
        vmm = self.vmm(*BARE, "-vga", "none")
        self.assertIn("no screen", vmm.monitor("info screen"))
        self.assertIn("no screen", vmm.monitor(f"screendump {self.folder / 'x.png'}"))


@unittest.skipUnless(machine.IS_PENUMBRA and QEMU, "the test compares with QEMU by itself")
class Modes(Screens):
    def shown(self, image, vmm=None):
        log = self.folder / "log"
        log.write_text("")
        debug = ("-chardev", f"file,id=log,path={log}", "-device", "isa-debugcon,iobase=0xe9,chardev=log")
        with monitor.Vmm(self.folder, "-drive", f"file={image},format=raw", *BARE, *debug, vmm=vmm) as runs:
            deadline = time.monotonic() + 60 * machine.PATIENCE
            while "D" not in log.read_text() and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.2)  # QEMU's screen follows now and then
            return self.picture(runs)

    def test_modes(self):
        for mode, name in MODES.items():
            with self.subTest(name):
                image = self.folder / "modes.img"
                source = machine.REPO / "tests" / "boot" / "screen" / "modes.asm"
                subprocess.run(["nasm", "-f", "bin", f"-DMODE={mode}", "-o", image, source], check=True)
                self.same_picture(self.shown(image), self.shown(image, [QEMU, "-accel", "tcg", "-nic", "none"]))


    # QEMU 7.2 is no judge of this mode: its write mask of the planes is that of VBE modes before it (sr_vbe), and all stays black.
    def test_vbe_planar(self):
        image = self.folder / "planar.img"
        source = machine.REPO / "tests" / "boot" / "screen" / "modes.asm"
        subprocess.run(["nasm", "-f", "bin", "-DMODE=0x102", "-o", image, source], check=True)
        width, height, pixels = self.shown(image)
        self.assertEqual((width, height), (800, 600))
        memory = b"".join(bytes((at & 0xFF, at >> 8 ^ at & 0xFF)) for at in range(0, 0x10000, 2))
        bits = "".join(f"{byte:08b}" for byte in memory[: width * height // 8])
        self.assertEqual(pixels, b"".join((b"\0\0\0", b"\xff\xff\xff")[int(bit)] for bit in bits))


@unittest.skipUnless(machine.IS_PENUMBRA, "QEMU's monitor has a line editor")
class Monitors(Screens):
    def test_stop_and_cont(self):
        vmm = self.vmm(*BARE)
        self.assertIn("running", vmm.monitor("info status"))
        vmm.monitor("stop")
        self.assertIn("paused", vmm.monitor("info status"))
        self.assertFalse(vmm.qmp("query-status")["running"])
        vmm.monitor("cont")
        self.assertIn("running", vmm.monitor("info status"))
        self.assertIn("unknown command", vmm.monitor("nonsense"))
        self.assertIn("screendump", vmm.monitor("help"))
        self.assertRegex(vmm.monitor("info registers"), "RIP.0000")
        for line in ("xp/4xb 0xffff0", "xp /4xb 0xffff0", "xp  /4xb  0xffff0"):
            self.assertRegex(vmm.monitor(line), r"0x[0-9a-f]{2} 0x[0-9a-f]{2}", line)

    def test_screendump(self):
        vmm = self.vmm(*BARE)
        self.assertEqual(vmm.monitor(f"screendump {self.folder / 'a.png'}"), "")
        monitor.read_png(self.folder / "a.png")
        self.assertIn("No such file", vmm.monitor(f"screendump {self.folder / 'no' / 'a.png'}"))

    def test_quit_ends_the_machine(self):
        vmm = self.vmm(*BARE)
        vmm.monitor.socket.sendall(b"quit\n")
        self.assertEqual(vmm.wait(), 0)

    def test_qmp_takes_keys_without_a_hold_time(self):
        self.assertEqual(self.vmm(*BARE).qmp("send-key", keys=[{"type": "qcode", "data": "ret"}]), {})

    def test_qmp(self):
        vmm = self.vmm(*BARE)
        self.assertIn("version", vmm.qmp.greeting["QMP"])
        self.assertEqual(vmm.qmp("query-status")["status"], "running")
        vmm.qmp("stop")
        vmm.qmp.wait_event("STOP")
        vmm.qmp("cont")
        vmm.qmp.wait_event("RESUME")
        picture = self.folder / "qmp.ppm"
        vmm.qmp("screendump", filename=str(picture))
        monitor.read_ppm(picture)
        self.assertIn("running", vmm.qmp("human-monitor-command", **{"command-line": "info status"}))
        self.assertIn("quit", [command["name"] for command in vmm.qmp("query-commands")])
        for wrong, kind in ((' {"execute": "nonsense"}', "CommandNotFound"), ('{"a": 1}', "GenericError"),
                            ('{"execute": "screendump", "id": 7}', "GenericError")):
            answer = vmm.qmp.raw(wrong + "\n")
            self.assertEqual(answer["error"]["class"], kind)
        self.assertEqual(answer["id"], 7)
        vmm.qmp("quit")
        vmm.qmp.wait_event("SHUTDOWN")
        self.assertEqual(vmm.wait(), 0)

    def test_reset_starts_the_firmware_again(self):
        vmm = self.vmm(*BARE)
        vmm.qmp("system_reset")
        vmm.qmp.wait_event("RESET")
        if machine.IS_PENUMBRA:
            vmm.wait_screen("No bootable device")
