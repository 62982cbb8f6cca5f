"""Drives Debian's gdb through its machine interface, as an editor would."""

import re
import select
import signal
import socket
import subprocess
import time

import machine


def symbol_file(guest, folder):
    """gdb's symbols of the guest's kernel, when it runs with "nokaslr"."""
    path = folder / f"{guest}.symbols"
    subprocess.run([machine.GUESTS / "symbols", machine.CACHE / "guests" / guest / "vmlinux", path], check=True)
    return path


class Gdb:
    def __init__(self, *files):
        self.process = subprocess.Popen(
            ["gdb", "-nx", "--interpreter=mi3", *files],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.text = ""
        self.log = ""
        self._until(r"^\(gdb\) *$", 60)
        for setting in ("confirm off", "pagination off", "width 0"):
            self.run(f"set {setting}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def _until(self, pattern, seconds):
        """Takes lines up to the one that matches; returns them and the match."""
        deadline = time.monotonic() + seconds * machine.PATIENCE
        lines = []
        while True:
            while "\n" in self.text:
                line, self.text = self.text.split("\n", 1)
                self.log += line + "\n"
                match = re.search(pattern, line)
                if match:
                    return lines, match
                lines.append(line)
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.process.stdout], [], [], max(left, 0))
            data = self.process.stdout.read1(65536) if ready else b""
            if not data:
                why = "gdb ended" if ready else "time is up"
                raise AssertionError(f"gdb: no {pattern!r}, {why}; it said:\n{self.log[-3000:]}{self.text}")
            self.text += data.decode(errors="replace")

    @staticmethod
    def _unquote(line):
        return line[2:-1].encode().decode("unicode_escape")

    def start(self, command):
        """Runs a command as if typed, and does not wait for the guest to stop."""
        quoted = command.replace("\\", "\\\\").replace('"', '\\"')
        self.process.stdin.write(f'-interpreter-exec console "{quoted}"\n'.encode())
        self.process.stdin.flush()

    def run(self, command, seconds=60):
        """The same, and returns what it printed, once gdb takes the next one. Errors fail."""
        self.start(command)
        lines, match = self._until(r"^\^(done|running|error.*|connected)", seconds)
        if match[1].startswith("error"):
            raise AssertionError(f"gdb: {command}: {match[1]}")
        return "".join(self._unquote(line) for line in lines if line[:2] in ('~"', '@"'))

    def resume(self, command, seconds=60):
        """A command that lets the guest run: returns the stop that follows, as the machine interface tells it."""
        self.start(command)
        _, match = self._until(r"^(\^error.*|\*stopped.*)", seconds)
        if match[1].startswith("^"):
            raise AssertionError(f"gdb: {command}: {match[1]}")
        return match[1]

    def interrupt(self, seconds=60):
        self.process.send_signal(signal.SIGINT)
        return self._until(r"^(\*stopped.*)", seconds)[1][1]

    def value(self, expression):
        """An expression's value as an integer."""
        text = self.run(f"output/x {expression}")
        return int(re.search(r"(0x[0-9a-f]+)", text)[1], 16)


class Packets:
    """The protocol itself, for what gdb does not say."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20 * machine.PATIENCE)
        self.socket.connect(str(path))
        self.data = b""

    def close(self):
        self.socket.close()

    def raw(self, data):
        self.socket.sendall(data)

    def send(self, body):
        self.raw(b"$" + body + b"#%02x" % (sum(body) & 255))

    def byte(self):
        if not self.data:
            self.data = self.socket.recv(65536)
            if not self.data:
                raise EOFError
        byte, self.data = self.data[:1], self.data[1:]
        return byte

    def receive(self):
        """The body of the next packet; acknowledgements before it are dropped."""
        while self.byte() != b"$":
            pass
        body = b""
        while (byte := self.byte()) != b"#":
            body += bytes([self.byte()[0] ^ 0x20]) if byte == b"}" else byte
        self.byte(), self.byte()
        return body

    def ask(self, body):
        self.send(body)
        return self.receive()
