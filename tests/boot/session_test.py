"""A scripted shell session in each guest, its output compared with what the host computes."""

import gzip
import hashlib
import pathlib
import random
import re
import tempfile
import time
import unittest

import dmesg
import machine

HERE = pathlib.Path(__file__).parent
SESSION_SECONDS = 240


def guest_data():
    """1.5 MiB that compresses to about half, the same on every run."""
    source = random.Random(2)
    words = [source.randbytes(8) for _ in range(500)]
    return b"".join(source.choice(words) if source.random() < 0.6 else source.randbytes(8) for _ in range(196608))


def squares_by_residue():
    counts = {}
    for n in range(1, 2001):
        counts[n * n % 1009] = counts.get(n * n % 1009, 0) + 1
    return "".join(f"{counts[key]:7d} {key}\n" for key in sorted(counts))


def pipeline():
    lines = [str(n).translate(str.maketrans("0123456789", "abcdefghij")) for n in range(1, 20001)]
    return "".join(line[::-1] + "\n" for line in sorted(lines, reverse=True))


def background():
    sums = ""
    for i in range(1, 9):
        text = "".join(f"{n}\n" for n in range(1, i * 1000 + 1))
        sums += hashlib.md5(text.encode()).hexdigest() + "  -\n"
    return sums


def digest(name, data):
    return hashlib.new(name, data if isinstance(data, bytes) else data.encode()).hexdigest() + "  -\n"


class Session:
    """One test class a guest: the guest boots once, and each test looks at one part of the session."""

    guest = None
    options = ()

    @classmethod
    def setUpClass(cls):
        cls.data = guest_data()
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "root" / "data").mkdir(parents=True)
            (folder / "root" / "data" / "file").write_bytes(cls.data)
            (folder / "root" / "data" / "file.gz").write_bytes(gzip.compress(cls.data, 6, mtime=0))
            machine.build_initrd(cls.guest, HERE / "session.sh", folder / "initrd.gz", [folder / "root"])
            cls.started = time.time()
            cls.status, cls.log, cls.errors = machine.run(
                machine.linux(cls.guest, folder / "initrd.gz", *cls.options, append="console=ttyS0 quiet"),
                SESSION_SECONDS,
            )
            cls.ended = time.time()
        parts = re.split(r"^@@ (\S+)\n", cls.log, flags=re.MULTILINE)
        cls.parts = dict(zip(parts[1::2], parts[2::2]))

    def part(self, name):
        self.assertIn(name, self.parts, f"the session did not get there; its end:\n{self.log[-1500:]}{self.errors}")
        return self.parts[name]

    def test_ends_well(self):
        self.assertIn("== script ended: 0 ==", self.log, self.log[-1500:])
        self.assertEqual(self.status, 0, self.errors)

    def test_mounts(self):
        self.assertEqual(
            sorted(line.split()[1] for line in self.part("mounts").splitlines()), ["/dev", "/proc", "/sys", "/tmp"]
        )

    def test_uname(self):
        machine_name = {"amd64": "x86_64", "i686": "i686"}[self.guest]
        self.assertEqual(self.part("machine"), machine_name + "\n")
        self.assertRegex(self.part("uname"), r"^Linux \S+ 6\.1\.\S+ #1 SMP.* Debian .*" + machine_name)

    def test_cpuinfo(self):
        text = self.part("cpuinfo")
        flags = re.search(r"^flags\s*: (.*)$", text, re.MULTILINE)[1].split()
        for flag in ("fpu", "tsc", "cx8", "cmov", "mmx", "fxsr", "sse", "sse2"):
            self.assertIn(flag, flags)
        if self.guest == "amd64":
            self.assertIn("lm", flags)
        self.assertEqual(text.count("processor\t"), 1)
        self.assertNotIn("cpu_meltdown", text)

    def test_memory(self):
        total = int(re.search(r"MemTotal:\s+(\d+)", self.part("memory"))[1])
        self.assertGreater(total, 950 * 1024 if self.guest == "amd64" else 850 * 1024)
        self.assertLess(total, 1024 * 1024)

    def test_timer_interrupts_come(self):
        self.assertRegex(self.part("interrupts"), r"(?m)^\s*(0|LOC):\s+[1-9]")

    def test_date_is_the_hosts(self):
        now = int(self.part("date"))
        self.assertGreater(now, self.started - 5)
        self.assertLess(now, self.ended + 5)

    def test_sleep_takes_its_time(self):
        before, after = map(float, self.part("sleep").split())
        self.assertGreater(after - before, 1.95)
        self.assertLess(after - before, 4)

    def test_forks(self):
        self.assertEqual(self.part("forks"), "200\n")

    def test_execs(self):
        self.assertEqual(self.part("execs"), f"{sum(i * i for i in range(100))}\n")

    def test_pipes(self):
        self.assertEqual(self.part("pipes"), digest("md5", squares_by_residue()))

    def test_pipeline(self):
        self.assertEqual(self.part("pipeline"), digest("sha256", pipeline()))

    def test_background_jobs(self):
        self.assertEqual(self.part("background"), digest("md5", background()))

    def test_signals(self):
        # 128 + SIGSEGV; the shell also names the signal.
        lines = self.part("signals").splitlines()
        self.assertEqual((lines[0], lines[-1]), ("caught", "139"))

    def test_floating_point(self):
        expected = sum(i % 97 / i for i in range(1, 20001))
        self.assertAlmostEqual(float(self.part("awk")), expected, places=8)

    def test_md5sum(self):
        self.assertEqual(self.part("md5sum"), digest("md5", self.data))

    def test_sha256sum(self):
        self.assertEqual(self.part("sha256sum"), digest("sha256", self.data))

    def test_sha512sum(self):
        self.assertEqual(self.part("sha512sum"), digest("sha512", self.data))

    def test_gunzip_of_the_hosts_archive(self):
        self.assertEqual(self.part("gunzip"), digest("sha256", self.data))

    def test_gzip_round_trip(self):
        self.assertEqual(self.part("gzip"), digest("sha256", self.data))

    def test_bzip2_round_trip(self):
        self.assertEqual(self.part("bzip2"), digest("sha256", self.data[:200000]))

    def test_files_on_tmpfs(self):
        self.assertEqual(self.part("tmpfs"), digest("sha256", self.data * 2))

    def test_tar_round_trip(self):
        self.assertEqual(self.part("cpio"), digest("sha256", self.data))

    def test_urandom(self):
        size, same, compressed = self.part("urandom").split()
        self.assertEqual((size, same), ("1048576", "differ"))
        self.assertGreater(int(compressed), 1048576)

    def test_kernel_log(self):
        log = self.part("dmesg")
        self.assertGreater(len(log.splitlines()), 50)
        self.assertEqual(dmesg.trouble(log), [])


class Amd64Session(Session, unittest.TestCase):
    guest = "amd64"


class I686Session(Session, unittest.TestCase):
    guest = "i686"


if machine.IS_PENUMBRA:

    class Amd64TlbSession(Amd64Session):
        options = ("--mmu", "tlb")

    class Amd64WindowsSession(Amd64Session):
        options = ("--mmu", "windows")

    class I686TlbSession(I686Session):
        options = ("--mmu", "tlb")

    class I686WindowsSession(I686Session):
        options = ("--mmu", "windows")
