"""Guests that try millions of addresses (tests/guest/isolation): around their own pages, around every mapping of the VMM, and
anywhere. Each access reaches what the guest's page tables say, or faults as they say."""

import os
import pathlib
import random
import re
import subprocess
import tempfile
import threading
import unittest

import machine
from guest_test import ENDED, load_builder

# Layouts, pages of copies for each, and the turns of a loop that make a page worth its windows with --mmu auto.
SHORT = (6, 16)
LOOP = 12_000_000
PROBES_OF_PAGE = 32 * 60
SEED = int(os.environ.get("PENUMBRA_SEED") or 1)
ROUNDS = int(os.environ.get("PENUMBRA_ISOLATION_ROUNDS") or 1)
SECONDS = 400
RAM = "/memfd:guest-ram"
COUNTS = r"(\d+) probes: (\d+) faults, (\d+) loads, (\d+) stores, 0 wrong\n"
FILLS = r"shadow windows filled +(\d+)"


def host_lines(pid, choice):
    """Where host memory is: both ends of every mapping, and the pages of guest RAM among them."""
    ends, pages = set(), []
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        limits, _, offset, _, _, *name = line.split(maxsplit=5)
        first, last = (int(limit, 16) for limit in limits.split("-"))
        ends |= {first, last}
        if name and name[0].startswith(RAM):
            pages.append((first, int(offset, 16)))
    ends = choice.sample(sorted(ends), min(len(ends), 1000))
    pages = choice.sample(pages, min(len(pages), 500))
    numbers = [len(ends), *ends, len(pages), *(number for page in pages for number in page)]
    return "".join(f"{number:x}\n" for number in numbers)


def build_guests(folder):
    builder = load_builder()
    for bits in (64, 32):
        builder.build(f"isolation/isolation{bits}", folder / str(bits))


def run_guest(folder, bits, mmu, seed, layouts=SHORT[0], **keywords):
    """What a guest said at its end, and the VMM: exit status, the guest's words, the VMM's words, questions answered."""
    log = folder / "log"
    log.unlink(missing_ok=True)
    process = subprocess.Popen(
        [*machine.VMM, "-cpu", "max", "-kernel", folder / str(bits), "-m", "64M", "-display", "none", "-no-reboot"]
        + ["-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4", "--mmu", mmu, "--stats"]
        + ["-device", "isa-debugcon,iobase=0xe9,chardev=log", "-chardev", f"file,id=log,path={log}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **keywords,
    )
    limit = threading.Timer(SECONDS * machine.PATIENCE, process.kill)
    limit.start()
    choice = random.Random(seed)
    asked = 0
    try:
        while process.stdout.read(1) == b"?":
            if asked == 0:
                text = "".join(f"{number:x}\n" for number in (seed, layouts, SHORT[1], LOOP if mmu == "auto" else 0))
            else:
                text = host_lines(process.pid, choice)
            asked += 1
            process.stdin.write(text.encode())
            process.stdin.flush()
        _, errors = process.communicate()
    finally:
        limit.cancel()
        process.kill()
    return process.returncode, log.read_text() if log.exists() else "", errors.decode(errors="replace"), asked


class Isolation(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not machine.IS_PENUMBRA:
            raise unittest.SkipTest("about Penumbra's way to memory")
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        build_guests(cls.folder)

    def run_guest(self, bits, mmu, seed):
        status, text, errors, asked = run_guest(self.folder, bits, mmu, seed)
        self.assertEqual(status, ENDED, f"{errors[-2000:]}\n{text[-2000:]}")
        self.assertEqual(asked, 1 + 2 * SHORT[0])
        self.assertNotIn("wrong:", text)
        counts = re.fullmatch(COUNTS, text)
        self.assertTrue(counts, text[-2000:])
        probes, faults, loads, stores = map(int, counts.groups())
        pages = SHORT[0] * SHORT[1]
        self.assertGreater(probes, pages * PROBES_OF_PAGE * 0.8)
        self.assertGreater(min(faults, loads, stores), probes / 100)
        return probes, int(re.search(FILLS, errors)[1])

    def run_mode(self, bits, mmu):
        total = 0
        for seed in range(SEED, SEED + ROUNDS):
            with self.subTest(seed=seed):
                probes, fills = self.run_guest(bits, mmu, seed)
                total += probes
                if mmu == "tlb":
                    self.assertEqual(fills, 0)
                else:
                    self.assertGreater(fills, SHORT[0] * SHORT[1])
        print(f"     {bits}-bit code, --mmu {mmu}: {total} probes", flush=True)


def add_tests():
    for bits in (64, 32):
        for mmu in ("windows", "auto", "tlb"):

            def test(self, bits=bits, mmu=mmu):
                self.run_mode(bits, mmu)

            setattr(Isolation, f"test_{bits}_{mmu}", test)


add_tests()
