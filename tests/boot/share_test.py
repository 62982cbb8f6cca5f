"""Folders that are shared by virtio-9p: Linux' driver reads and writes them, and does not get out of them."""

import hashlib
import os
import pathlib
import random
import shutil
import stat
import tempfile
import unittest

import dmesg
import machine
from network_test import in_order

HERE = pathlib.Path(__file__).parent
SECONDS = 180
MIB = 1 << 20


class Share(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def test_amd64(self):
        self.share("amd64")

    def test_i686(self):
        self.share("i686")

    def models(self):
        try:
            os.setxattr(self.folder, "user.penumbra.test", b"x")
        except OSError:
            return ["none", "passthrough"]
        return ["mapped-xattr", "none"]

    def share(self, guest):
        modules = machine.CACHE / "guests" / guest / "modules"
        if not (modules / "9p.ko").exists():
            self.skipTest("roms/guests/modules fetches the kernel")
        root, secret = self.folder / "root" / "share", self.folder / "secret"
        root.mkdir(parents=True)
        secret.write_text("of the host")
        order = in_order(modules, ["virtio_pci", "9pnet_virtio", "9p"])
        for name in order:
            shutil.copy(modules / f"{name}.ko", root)
        (root / "modules").write_text("".join(f"insmod /share/{name}.ko\n" for name in order))
        models = self.models()
        (root / "tags").write_text(" ".join(["fixed", *models]))
        machine.build_initrd(guest, HERE / "share.sh", self.folder / "initrd.gz", [self.folder / "root"])

        big = random.Random(guest).randbytes(3 * MIB + 17)
        folders = {tag: self.folder / f"{tag} folder, shared" for tag in ["fixed", *models]}
        for folder in folders.values():
            folder.mkdir()
            (folder / "big").write_bytes(big)
            (folder / "note").write_text("as it was")
            (folder / "escape").symlink_to(secret)
            (folder / "up").symlink_to("..")
        options = []
        for tag in models:
            path = str(folders[tag]).replace(",", ",,")
            options += ["-virtfs", f"local,path={path},mount_tag={tag},security_model={tag}"]
        path = str(folders["fixed"]).replace(",", ",,")
        options += ["-fsdev", f"local,id=f,path={path},security_model=none,readonly=on"]
        options += ["-device", "virtio-9p-pci,fsdev=f,mount_tag=fixed"]
        command = machine.command_line(
            *("-kernel", modules / "vmlinuz", "-initrd", self.folder / "initrd.gz", "-append", "console=ttyS0 quiet"),
            *("-m", "512M", "-nographic", "-no-reboot", "-nic", "none", *options),
        )
        with machine.Terminal(command) as terminal:
            terminal.expect("(?m)^@@ end", SECONDS)
            self.assertEqual(terminal.wait(60), 0)
            log = terminal.text

        lines = log.splitlines()
        self.assertIn("fixed: as it was", lines)
        self.assertEqual(sum(line.startswith("refused: ") for line in lines), 7, log)
        self.assertEqual(sorted(path.name for path in folders["fixed"].iterdir()), ["big", "escape", "note", "up"])
        for tag in models:
            self.looks_right(tag, folders[tag], lines, big)
        self.assertEqual(secret.read_text(), "of the host")
        self.assertEqual(dmesg.trouble(log[log.index("unmounted") : log.index("@@ end")]), [])

    def looks_right(self, tag, folder, lines, big):
        said = {line.split(": ", 1)[0][len(tag) + 1 :]: line.split(": ", 1)[1] for line in lines if line.startswith(f"{tag} ") and ": " in line}
        self.assertEqual(said["sum"], hashlib.sha256(big).hexdigest())
        self.assertEqual((folder / "copy").read_bytes(), big)
        made = (folder / "made").read_bytes()
        self.assertEqual((len(made), hashlib.sha256(made).hexdigest()), (61 * 50000, said["made"]))
        self.assertEqual(said["moved"], "deep more ")
        self.assertEqual((folder / "first" / "moved").read_text(), "deep\nmore\n")
        self.assertFalse((folder / "one").exists())
        self.assertEqual(said["link"], "first/moved, 2 lines; the guest's own; 2")
        # What a link of the host's names is looked for in the guest, where there is no such thing.
        nowhere = "No such file" if machine.IS_PENUMBRA else "No such file|symbolic links"  # QEMU does not read them when it maps
        self.assertRegex(said["escape"], nowhere)
        self.assertTrue(said["above"].startswith("0 "), said["above"])
        self.assertRegex(said["above"], nowhere)
        modes = os.stat(folder / "modes")
        # Without mapping, owners are set as far as the host lets this user.
        owner = "1234 567" if tag == "mapped-xattr" or os.getuid() == 0 else f"{modes.st_uid} {modes.st_gid}"
        self.assertEqual(said["modes"], f"4750 {owner} 981173106")
        self.assertEqual(modes.st_mtime, 981173106)
        if tag == "mapped-xattr":
            self.assertEqual((stat.S_IMODE(modes.st_mode), modes.st_uid), (0o600, os.getuid()))
            self.assertEqual(os.getxattr(folder / "modes", "user.virtfs.uid"), (1234).to_bytes(4, "little"))
            self.assertEqual(os.getxattr(folder / "modes", "user.virtfs.mode"), (0o104750).to_bytes(4, "little"))
            self.assertEqual((folder / "link").read_text(), "first/moved")
            self.assertTrue(stat.S_ISREG(os.lstat(folder / "pipe").st_mode))
        else:
            self.assertEqual(stat.S_IMODE(modes.st_mode), 0o4750)
            self.assertEqual(os.readlink(folder / "link"), "first/moved")
            if machine.IS_PENUMBRA:  # QEMU takes the FIFO away again when it cannot open it
                self.assertTrue(stat.S_ISFIFO(os.lstat(folder / "pipe").st_mode))
        self.assertEqual((said["sized"], os.stat(folder / "sized").st_size), ("1000", 1000))
        if machine.IS_PENUMBRA or tag == "mapped-xattr":
            self.assertEqual(said["pipe"], "through the pipe")
        self.assertEqual((said["many"], said["fewer"]), ("300 300", "210"))
        self.assertEqual(len(list((folder / "many").iterdir())), 210)
        self.assertIn(f"{tag} rmdir", lines)
        self.assertEqual((said["unnamed"], (folder / "unnamed").exists()), ("still", False))
        self.assertIn(f"{tag} df", lines)
        self.assertIn(f"{tag} unmounted", lines)
