"""Windows and viewers: -display vnc and -display sdl."""

import os
import pathlib
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import unittest

import machine
import monitor

BARE = ("-m", "64M", "-serial", "null", "-nic", "none")
NUMBER = 4000 + os.getpid() % 20000


class Viewer:
    """The least of RFB (RFC 6143): no security, raw rectangles."""

    def __init__(self, port):
        deadline = time.monotonic() + 20 * machine.PATIENCE
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), 20 * machine.PATIENCE)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        assert self.read(12).startswith(b"RFB 003.")
        self.socket.sendall(b"RFB 003.008\n")
        kinds = self.read(self.read(1)[0])
        assert 1 in kinds, kinds
        self.socket.sendall(b"\1")
        assert self.read(4) == bytes(4)
        self.socket.sendall(b"\1")
        self.size = struct.unpack(">HH", self.read(4))
        pixel_format = self.read(16)
        assert pixel_format[0] == 32 and pixel_format[10:13] == bytes((16, 8, 0)), pixel_format
        self.read(struct.unpack(">I", self.read(4))[0])
        new_size = -223
        self.socket.sendall(struct.pack(">BxHii", 2, 2, 0, new_size))
        self.lines = {}

    def read(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise AssertionError("the server went away")
            data += more
        return data

    def update(self, incremental):
        """Asks for what changed and takes it in; the rectangles' count."""
        self.socket.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, *self.size))
        while True:
            kind = self.read(1)[0]
            if kind == 0:
                break
            assert kind == 2, kind  # bell
        (count,) = struct.unpack(">xH", self.read(3))
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack(">HHHHi", self.read(12))
            if encoding == -223:
                self.size = width, height
                self.lines = {}
                continue
            assert encoding == 0, encoding
            for row in range(y, y + height):
                line = self.lines.setdefault(row, bytearray(self.size[0] * 4))
                line[4 * x : 4 * (x + width)] = self.read(4 * width)
        return count

    def picture(self):
        rows = b"".join(bytes(self.lines.get(y, bytes(self.size[0] * 4))) for y in range(self.size[1]))
        colors = bytearray(self.size[0] * self.size[1] * 3)
        colors[0::3], colors[1::3], colors[2::3] = rows[2::4], rows[1::4], rows[0::4]
        return *self.size, bytes(colors)

    def key(self, symbol):
        for down in (1, 0):
            self.socket.sendall(struct.pack(">BBxxI", 4, down, symbol))


@unittest.skipUnless(machine.IS_PENUMBRA, "QEMU's monitor tells no text")
class Displays(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def test_vnc_shows_the_screen_and_types(self):
        options = ("-display", f"vnc=:{NUMBER}", "-boot", "menu=on")
        with monitor.Vmm(self.folder, *BARE, *options, graphics=False) as vmm:
            viewer = Viewer(5900 + NUMBER)
            vmm.wait_screen("Press ESC")
            escape = 0xFF1B
            viewer.key(escape)
            vmm.wait_screen("Select boot device")
            deadline = time.monotonic() + 20 * machine.PATIENCE
            viewer.update(0)
            while True:
                vmm.qmp("screendump", filename=str(self.folder / "screen.ppm"))
                width, height, wanted = monitor.read_ppm(self.folder / "screen.ppm")
                shown = viewer.picture()
                cursor = 9 * 2 * 3
                if shown[:2] == (width, height) and sum(a != b for a, b in zip(shown[2], wanted)) <= cursor:
                    break
                self.assertLess(time.monotonic(), deadline, "the viewer has another picture")
                viewer.update(1)

    def test_vnc_port_in_use_is_one_line(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            if port < 5900:
                self.skipTest("the host gave a low port")
            command = machine.command_line(*BARE, "-display", f"vnc=:{port - 5900}")
            status, _, errors = machine.run(command, 20)
        self.assertEqual(status, 2)
        self.assertEqual(errors.count("\n"), 1, errors)
        self.assertIn("-display vnc", errors)

    def test_window_opens_and_closes(self):
        os.environ["SDL_VIDEODRIVER"] = "dummy"
        self.addCleanup(os.environ.pop, "SDL_VIDEODRIVER")
        with monitor.Vmm(self.folder, *BARE, "-display", "sdl", graphics=False) as vmm:
            vmm.wait_screen("No bootable device")
            vmm.monitor("stop")
            vmm.monitor("cont")
            vmm.monitor.socket.sendall(b"quit\n")
            self.assertEqual(vmm.wait(), 0)

    def test_no_window_is_one_line(self):
        environment = {**os.environ, "SDL_VIDEODRIVER": "x11", "DISPLAY": ":4711"}
        status, _, errors = machine.run(machine.command_line(*BARE, "-display", "sdl"), 20, env=environment)
        self.assertEqual(status, 2)
        self.assertIn("-display sdl", errors)


@unittest.skipUnless(machine.IS_PENUMBRA, "QEMU's windows have no such titles")
@unittest.skipUnless(shutil.which("Xvfb") and shutil.which("xdotool"), "no Xvfb or xdotool")
class Window(unittest.TestCase):
    """A window on an X server, used as a person would."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        read, write = os.pipe()
        server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(write), "-screen", "0", "1600x1200x24", "-fbdir", self.folder, "-nolisten", "tcp"],
            pass_fds=[write], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        os.close(write)
        with os.fdopen(read) as answer:
            self.environment = {"DISPLAY": f":{answer.readline().strip()}", "SDL_VIDEODRIVER": "x11"}
        for name, value in self.environment.items():
            before = os.environ.get(name)
            os.environ[name] = value
            self.addCleanup(os.environ.__setitem__ if before else lambda key, _: os.environ.pop(key), name, before)

    def xdotool(self, *words):
        return subprocess.run(["xdotool", *map(str, words)], check=True, capture_output=True, text=True).stdout.strip()

    def picture(self, window):
        """The window's part of the X server's screen, as (width, height, bytes of red, green, blue)."""
        place = dict(line.split("=") for line in self.xdotool("getwindowgeometry", "--shell", window).splitlines())
        x, y, width, height = (int(place[name]) for name in ("X", "Y", "WIDTH", "HEIGHT"))
        data = (self.folder / "Xvfb_screen0").read_bytes()
        header_bytes, _, _, _, _, _, _, order, _, _, _, bits, line_bytes = struct.unpack(">13I", data[:52])
        self.assertEqual((order, bits), (0, 32))
        (colors,) = struct.unpack(">I", data[76:80])
        start, pixels = header_bytes + colors * 12, bytearray()
        for row in range(y, y + height):
            line = data[start + row * line_bytes + 4 * x :][: 4 * width]
            part = bytearray(width * 3)
            part[0::3], part[1::3], part[2::3] = line[2::4], line[1::4], line[0::4]
            pixels += part
        return width, height, bytes(pixels)

    def wait(self, what, seconds=20):
        deadline = time.monotonic() + seconds * machine.PATIENCE
        while not what():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)

    def test_boot_menu_keyboard_and_mouse(self):
        with monitor.Vmm(self.folder, *BARE, "-display", "sdl", "-boot", "menu=on,splash-time=60000", graphics=False) as vmm:
            vmm.wait_screen("Press ESC for boot menu")
            window = self.xdotool("search", "--sync", "--name", "^Penumbra").splitlines()[0]
            self.xdotool("windowfocus", "--sync", window)
            self.xdotool("key", "Escape")
            vmm.wait_screen("Select boot device")

            def same():
                vmm.qmp("screendump", filename=str(self.folder / "screen.ppm"))
                width, height, wanted = monitor.read_ppm(self.folder / "screen.ppm")
                shown = self.picture(window)
                cursor = 9 * 2 * 3
                return shown[:2] == (width, height) and sum(a != b for a, b in zip(shown[2], wanted)) <= cursor

            self.wait(same)

            def title():
                return self.xdotool("getwindowname", window)

            self.assertNotIn("mouse", title())
            self.xdotool("mousemove", "--window", window, 100, 100, "click", 1)
            self.wait(lambda: "frees the mouse" in title())
            self.xdotool("key", "ctrl+alt+g")
            self.wait(lambda: "mouse" not in title())
            vmm.monitor("stop")
            self.wait(lambda: "paused" in title())


class WindowKeys(Window):
    """Keys that are the window's own, each once."""

    def press(self, *keys):
        for key in keys:
            self.xdotool("key", key)

    def test_full_screen_scaling_and_picture(self):
        with monitor.Vmm(self.folder, *BARE, "-display", "sdl", graphics=False, cwd=self.folder) as vmm:
            vmm.wait_screen("No bootable device")
            window = self.xdotool("search", "--sync", "--name", "^Penumbra").splitlines()[0]
            self.xdotool("windowfocus", "--sync", window)
            vmm.qmp("screendump", filename=str(self.folder / "screen.ppm"))
            width, height, pixels = monitor.read_ppm(self.folder / "screen.ppm")
            self.wait(lambda: self.picture(window)[:2] == (width, height))
            # Twice as large: each pixel is four.
            self.xdotool("windowmove", "--sync", window, 0, 0)
            self.xdotool("windowsize", "--sync", window, 2 * width, 2 * height)

            def twice():
                shown = self.picture(window)
                every_other = b"".join(
                    shown[2][(2 * y * 2 * width + 2 * x) * 3 :][:3] for y in range(0, height, 7) for x in range(0, width, 5)
                )
                wanted = b"".join(pixels[(y * width + x) * 3 :][:3] for y in range(0, height, 7) for x in range(0, width, 5))
                return shown[:2] == (2 * width, 2 * height) and sum(a != b for a, b in zip(every_other, wanted)) < 60

            self.wait(twice)
            self.press("ctrl+alt+s")
            self.wait(lambda: list(self.folder.glob("penumbra-*.png")))
            time.sleep(0.5)  # until it is whole
            (path,) = self.folder.glob("penumbra-*.png")
            shown = monitor.read_png(path)
            self.assertEqual(shown[:2], (width, height))
            cursor = 9 * 2 * 3
            self.assertLessEqual(sum(a != b for a, b in zip(shown[2], pixels)), cursor)
            if not shutil.which("openbox"):
                self.skipTest("no openbox: full screen is a window manager's work")
            manager = subprocess.Popen(["openbox"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.addCleanup(manager.wait)
            self.addCleanup(manager.kill)

            def size():
                words = self.xdotool("getwindowgeometry", "--shell", window).split()
                return tuple(int(word.split("=")[1]) for word in words if word.startswith(("WIDTH", "HEIGHT")))

            # The manager needs a moment before it listens.
            deadline = time.monotonic() + 20 * machine.PATIENCE
            while size() != (1600, 1200):
                self.assertLess(time.monotonic(), deadline)
                self.xdotool("windowfocus", "--sync", window)
                self.press("ctrl+alt+f")
                time.sleep(1)
            self.press("ctrl+alt+f")
            self.wait(lambda: size() == (2 * width, 2 * height))

    def test_monitor_in_the_window(self):
        with monitor.Vmm(self.folder, *BARE, "-display", "sdl", "-boot", "menu=on,splash-time=60000", graphics=False) as vmm:
            vmm.wait_screen("Press ESC for boot menu")
            window = self.xdotool("search", "--sync", "--name", "^Penumbra").splitlines()[0]
            self.xdotool("windowfocus", "--sync", window)
            before = self.picture(window)
            self.press("ctrl+alt+2")
            self.wait(lambda: "monitor" in self.xdotool("getwindowname", window))
            self.wait(lambda: self.picture(window)[:2] == (640, 400))
            # Completed by Tab, mended by Backspace.
            self.press("s", "t", "x", "BackSpace", "o", "Tab", "Return")
            self.wait(lambda: vmm.qmp("query-status")["status"] == "paused")
            shown = self.picture(window)
            self.xdotool("type", "info status")
            self.press("Return")
            self.wait(lambda: self.picture(window) != shown)
            self.xdotool("type", "cont")
            self.press("Return")
            self.wait(lambda: vmm.qmp("query-status")["running"])
            self.assertIn("Press ESC for boot menu", vmm.screen_text(), "the guest had none of the keys")
            self.press("ctrl+alt+1")
            self.wait(lambda: self.picture(window)[:2] == before[:2])
            self.press("Escape")
            vmm.wait_screen("Select boot device")

    def test_keys_after_stop_and_cont(self):
        with monitor.Vmm(self.folder, *BARE, "-display", "sdl", "-boot", "menu=on,splash-time=60000", graphics=False) as vmm:
            vmm.wait_screen("Press ESC for boot menu")
            window = self.xdotool("search", "--sync", "--name", "^Penumbra").splitlines()[0]
            self.xdotool("windowfocus", "--sync", window)
            for _ in range(3):
                vmm.monitor("stop")
                self.wait(lambda: "paused" in self.xdotool("getwindowname", window))
                vmm.monitor("cont")
            self.press("Escape")
            vmm.wait_screen("Select boot device")
            # What is typed while the machine is paused waits. Not Escape again, which this menu ignores for 1.5 seconds.
            vmm.monitor("stop")
            self.press("1")
            vmm.monitor("cont")
            vmm.wait_screen("No bootable device")

    test_boot_menu_keyboard_and_mouse = None


class QemuName(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.program = pathlib.Path(folder.name) / "qemu-system-x86_64"
        self.program.symlink_to(shutil.which(machine.VMM[0]) or machine.VMM[0])

    def test_options_are_those_of_run(self):
        command = [self.program, "-machine", "pc", "-m", "64M", "-display", "none", "-serial", "stdio", "-no-reboot", "-nographic"]
        with machine.Terminal(command) as terminal:
            terminal.expect("SeaBIOS", 60)

    @unittest.skipUnless(machine.IS_PENUMBRA, "QEMU knows them all")
    def test_the_first_unknown_option_is_named(self):
        status, _, errors = machine.run([self.program, "-m", "64M", "-icount", "auto", "-frobnicate"], 20)
        self.assertEqual(status, 2)
        self.assertEqual(errors.count("\n"), 1, errors)
        self.assertIn("'-icount'", errors)
