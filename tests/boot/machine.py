"""Starts the VMM the way a user would, and talks to the guest's serial console.

PENUMBRA_VMM names another VMM that knows QEMU's options, e.g. "qemu-system-x86_64 -accel tcg": a test that fails there
as well is a wrong test.
"""

import os
import pathlib
import re
import select
import shlex
import signal
import subprocess
import threading
import time

REPO = pathlib.Path(__file__).resolve().parent.parent.parent
GUESTS = REPO / "roms" / "guests"
CACHE = pathlib.Path(os.environ.get("PENUMBRA_CACHE") or pathlib.Path.home() / ".cache" / "penumbra")
VMM = shlex.split(os.environ.get("PENUMBRA_VMM") or f"{REPO}/build/release/penumbra run")
IS_PENUMBRA = "qemu" not in VMM[0]
# Stretches every time limit, for slow hosts and for sanitizer builds.
PATIENCE = float(os.environ.get("PENUMBRA_PATIENCE") or 1)
BOOT_SECONDS = 60 * PATIENCE

PROMPT = "guest# "
KERNEL_TROUBLE = re.compile(
    r"Oops|BUG:|WARNING:|Call Trace|general protection fault|Kernel panic|segfault at|soft lockup|rcu: INFO|"
    r"unable to handle|invalid opcode|bad page state|traps:"
)


def guests():
    """The guests that were fetched."""
    return [guest for guest in ("amd64", "i686") if kernel(guest).exists()]


def kernel(guest):
    return CACHE / "guests" / guest / "vmlinuz"


def shell_initrd(guest):
    return CACHE / "guests" / guest / "initrd.gz"


def build_initrd(guest, script, out, additions=()):
    command = [GUESTS / "initramfs", "--guest", guest, "--script", script, "-o", out]
    for tree in additions:
        command += ["--add", tree]
    subprocess.run(command, check=True)


def command_line(*options, cpu="max"):
    command = list(VMM)
    if "-cpu" not in " ".join(VMM) and cpu:
        command += ["-cpu", cpu]
    return command + [str(option) for option in options]


def linux(guest, initrd, *options, append="console=ttyS0", memory="1G"):
    return command_line(
        *("-kernel", kernel(guest), "-initrd", initrd, "-append", append, "-m", memory),
        *("-nographic", "-no-reboot", *options),
    )


def run(command, seconds, **keywords):
    """Runs a command with no terminal and no input. A command that outlives its time limit is ended with SIGKILL and
    has the status None."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **keywords
    )
    try:
        stdout, stderr = process.communicate(timeout=seconds * PATIENCE)
        status = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
        status = None
    return status, stdout.decode(errors="replace").replace("\r", ""), stderr.decode(errors="replace")


class Terminal:
    """A VMM in a terminal of its own, as a person would have it: its output is read whether a test waits for it or not.
    Left alone, a terminal takes 19 KiB, and a VMM that loses no output waits from then on."""

    def __init__(self, command):
        self.master, self.slave = os.openpty()
        self.text = ""
        self.seen = 0
        self.news = threading.Condition()
        self.stop, self.stopped = os.pipe()
        self.process = subprocess.Popen(
            command,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._collect, daemon=True)
        self.reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.reader.is_alive():
            os.write(self.stopped, b".")
            self.reader.join()
        for descriptor in (self.master, self.slave, self.stop, self.stopped):
            os.close(descriptor)

    def _collect(self):
        while self.stop not in (ready := select.select([self.master, self.stop], [], [])[0]):
            data = os.read(ready[0], 65536).decode(errors="replace").replace("\r", "")
            with self.news:
                self.text += data
                self.news.notify_all()

    def _grew(self, length, seconds):
        """Whether there is more text than that, or comes within the time."""
        with self.news:
            return self.news.wait_for(lambda: len(self.text) > length, seconds)

    def expect(self, pattern, seconds):
        """Waits for the pattern in what came since the last match; returns what preceded and the match itself."""
        deadline = time.monotonic() + seconds * PATIENCE
        while True:
            text = self.text
            match = re.compile(pattern).search(text, self.seen)
            if match:
                before = text[self.seen : match.start()]
                self.seen = match.end()
                return before, match
            left = deadline - time.monotonic()
            ended = self.process.poll() is not None
            # After its end, what the VMM wrote last is on its way here for a moment.
            if not self._grew(len(text), 0.2) and (ended or left <= 0):
                why = f"the VMM ended ({self.process.returncode})" if ended else "time is up"
                raise AssertionError(f"no {pattern!r}: {why}; last output:\n{self.text[-2000:]}")

    def send(self, text):
        os.write(self.master, text.encode())

    def shell(self, line, seconds=30):
        """Types a line at the guest's prompt and returns what it printed."""
        self.send(line + "\r")
        self.expect(re.escape(line[-20:]) + "\n", seconds)
        before, _ = self.expect("(?m)^" + re.escape(PROMPT), seconds)
        return before.rstrip("\n")

    def wait(self, seconds):
        """Waits for the VMM's end and returns its exit status, or None when the time is up."""
        deadline = time.monotonic() + seconds * PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        while self._grew(len(self.text), 0.2):
            pass
        return self.process.returncode

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)
