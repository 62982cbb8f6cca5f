"""Talks to the VMM's monitors: -monitor and -qmp on Unix sockets."""

import json
import pathlib
import re
import socket
import struct
import subprocess
import tempfile
import time
import zlib

import machine

PROMPT = re.compile(rb"\(qemu\) $")


def connect(path, seconds=20):
    deadline = time.monotonic() + seconds * machine.PATIENCE
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(str(path))
            client.settimeout(seconds * machine.PATIENCE)
            return client
        except OSError:
            client.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


class Monitor:
    def __init__(self, path):
        self.socket = connect(path)
        self._answer()

    def _answer(self):
        data = b""
        while not PROMPT.search(data):
            more = self.socket.recv(65536)
            if not more:
                raise AssertionError(f"the monitor went away after {data!r}")
            data += more
        return PROMPT.sub(b"", data).decode(errors="replace").replace("\r", "")

    def __call__(self, line):
        """What the command says."""
        self.socket.sendall(line.encode() + b"\n")
        return self._answer()

    def close(self):
        self.socket.close()


class Qmp:
    def __init__(self, path):
        self.file = connect(path).makefile("rw")
        self.events = []
        self.event_data = {}  # what the last one of each name said
        self.greeting = self._read()
        self("qmp_capabilities")

    def _read(self):
        line = self.file.readline()
        if not line:
            raise AssertionError("the QMP server went away")
        return json.loads(line)

    def raw(self, text):
        """The answer to `text` as it came."""
        self.file.write(text)
        self.file.flush()
        while True:
            answer = self._read()
            if "event" not in answer:
                return answer
            self._note(answer)

    def _note(self, event):
        self.events.append(event["event"])
        self.event_data[event["event"]] = event.get("data")

    def __call__(self, command, **arguments):
        answer = self.raw(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        if "error" in answer:
            raise AssertionError(answer["error"]["desc"])
        return answer["return"]

    def wait_event(self, name):
        while name not in self.events:
            self._note(self._read())

    def next_event(self, name):
        """One that did not come yet."""
        while (event := self._read()).get("event") != name:
            self._note(event)
        self._note(event)


class Vmm:
    """A VMM without a window, with a monitor and a QMP socket in `folder`."""

    def __init__(self, folder, *options, vmm=None, graphics=True, cwd=None):
        folder = pathlib.Path(tempfile.mkdtemp(dir=folder))
        self.monitor_path, self.qmp_path = folder / "monitor", folder / "qmp"
        command = list(vmm) + ["-cpu", "max"] if vmm else machine.command_line()
        command += ["-monitor", f"unix:{self.monitor_path},server,nowait", "-qmp", f"unix:{self.qmp_path},server=on,wait=off"]
        command += ["-display", "none"] if graphics else []
        self.process = subprocess.Popen(
            command + [str(option) for option in options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=cwd,
        )
        try:
            self.monitor = Monitor(self.monitor_path)
            self.qmp = Qmp(self.qmp_path)
        except Exception:
            self.process.kill()
            raise AssertionError(self.process.communicate()[0].decode(errors="replace"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()
        self.monitor.close()

    def wait(self, seconds=20):
        return self.process.wait(seconds * machine.PATIENCE)

    def screen_text(self):
        """The screen's text; of QEMU, whose monitor does not tell, all that is in text memory."""
        if machine.IS_PENUMBRA:
            return self.monitor("info screen")
        lines = re.findall(r"(?m)^[0-9a-f]{16}: (.*)$", self.monitor("xp /16384xh 0xb8000"))
        text = bytes(int(cell, 16) & 0xFF for line in lines for cell in line.split()).decode("cp437")
        return "\n".join(text[at : at + 80].rstrip() for at in range(0, len(text), 80))

    def wait_screen(self, pattern, seconds=60):
        """The screen's text once it shows the pattern."""
        deadline = time.monotonic() + seconds * machine.PATIENCE
        while True:
            text = self.screen_text()
            if re.search(pattern, text):
                return text
            if time.monotonic() > deadline:
                raise AssertionError(f"no {pattern!r} on the screen:\n{text}")
            time.sleep(0.1)


def read_ppm(path):
    """(width, height, bytes of red, green, blue)."""
    data = pathlib.Path(path).read_bytes()
    match = re.match(rb"P6\n(\d+) (\d+)\n255\n", data)
    return int(match[1]), int(match[2]), data[match.end() :]


def read_png(path):
    """The same of a PNG with 8 bits each of red, green and blue."""
    data = pathlib.Path(path).read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n", data[:8]
    at, packed = 8, b""
    while at < len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0]
        if kind == b"IHDR":
            width, height, *format = struct.unpack(">IIBBBBB", body)
            assert format[:2] == [8, 2], format
        elif kind == b"IDAT":
            packed += body
        at += length + 12
    rows, stride, pixels, above = zlib.decompress(packed), width * 3, bytearray(), bytes(width * 3)
    for y in range(height):
        kind, row = rows[y * (stride + 1)], bytearray(rows[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        for x in range(stride):
            left, up, corner = (row[x - 3], above[x], above[x - 3]) if x >= 3 else (0, above[x], 0)
            guess = left + up - corner
            paeth = min((left, up, corner), key=lambda value: abs(guess - value))
            row[x] = row[x] + (0, left, up, (left + up) // 2, paeth)[kind] & 255
        pixels += row
        above = row
    return width, height, bytes(pixels)
