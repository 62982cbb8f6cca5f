"""Logs can be compared with QEMU's: one ROM runs here and there, with one instruction a block."""

import itertools
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import machine

HERE = pathlib.Path(__file__).resolve().parent
QEMU = "qemu-system-x86_64"

# Where both are right, or what is compared is QEMU's own.
UNCOMPARED = (
    (r"^CCS=.*\n", ""),  # how QEMU keeps flags
    (r"0x[0-9a-f]+ \[", "["),  # where its host code is
    (r"EDX=00[0-9a-f]{6}$", "EDX=signature"),  # after a reset: family, model and stepping of -cpu
    (r"(CS =f000 .*) 00009[b3]00.*", r"\1"),  # type of a real-mode code segment after a far jump
    (r"SS =0000 0{16} .*", "SS = null"),  # what else is in SS after a null selector, in 64-bit mode
    (r"/0040c0[0-9a-f]{2}/", "/long/"),  # for the same reason
    # AF, which shifts leave undefined.
    (r"FL=([0-9a-f]{8}) \[(....)[A-]", lambda match: f"FL={int(match[1], 16) & ~0x10:08x} [{match[2]}?"),
)


def compared(text):
    for pattern, instead in UNCOMPARED:
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    return text


@unittest.skipUnless(machine.IS_PENUMBRA and shutil.which(QEMU), "there is no QEMU to compare with")
class Traces(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.rom = cls.folder / "traces.rom"
        subprocess.run(
            ["nasm", "-f", "bin", "-I", f"{HERE}/hostile/", "-o", cls.rom, HERE / "traces.asm"], check=True
        )

    def logs(self, topics):
        texts = []
        for vmm in (machine.command_line(), [QEMU, "-accel", "tcg", "-cpu", "max"]):
            log = self.folder / "log"
            status, _, errors = machine.run(
                [*vmm, "-bios", self.rom, "-m", "64M", "-nographic", "-singlestep", "-d", topics, "-D", log]
                + ["-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"],
                60,
            )
            self.assertEqual(status, 0x55 << 1 | 1, errors)
            texts.append(log.read_text())
        return texts

    def test_int(self):
        ours, theirs = self.logs("int")
        self.assertEqual(ours.count(": v="), 8)
        self.assertEqual(compared(ours), compared(theirs))

    def test_in_asm(self):
        """The same instructions: which of them are translated again differs."""
        ours, theirs = ({line for line in log.splitlines() if line.startswith("0x")} for log in self.logs("in_asm"))
        self.assertGreater(len(ours), 150)
        self.assertEqual(ours, theirs)

    def test_in_asm_cpu_int(self):
        """One log of all three: instructions as they are met first, the registers before each, and what interrupts them."""
        logs = []
        for log in self.logs("in_asm,cpu,int,nochain"):
            self.assertNotIn("Trace ", log)
            entries = re.split(r"^(?=-{16}$|[ER]AX=|check_exception| *\d+: v=)", compared(log), flags=re.MULTILINE)
            seen, kept = set(), []
            for entry in entries:
                # QEMU comes back to a repeated string instruction for each element, and translates some code again.
                again = re.search(r"^[ER]IP=\w+", entry, flags=re.MULTILINE)
                again = again and not entry.startswith("check") and kept and again[0] in kept[-1]
                if entry.startswith("-" * 16):
                    again = entry in seen
                    seen.add(entry)
                if not again:
                    kept.append(entry)
            logs.append(kept)
        for number, (here, there) in enumerate(zip(*logs)):
            self.assertEqual(here, there, f"entry {number}")
        self.assertEqual(len(logs[0]), len(logs[1]))
        self.assertGreater(len(logs[0]), 500)

    def test_exec_cpu(self):
        logs = [re.split(r"^(?=Trace)", compared(log), flags=re.MULTILINE) for log in self.logs("exec,cpu,nochain")]
        # QEMU comes back to a repeated string instruction for each element.
        ours, theirs = (
            [next(same) for _, same in itertools.groupby(log, lambda entry: entry.partition("\n")[0])] for log in logs
        )
        self.assertEqual(len(ours), len(theirs))
        for number, (here, there) in enumerate(zip(ours, theirs)):
            self.assertEqual(here, there, f"entry {number}")
