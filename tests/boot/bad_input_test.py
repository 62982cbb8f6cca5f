"""What is wrong with the command line or its files is said in one line, with exit status 2 and no core dump."""

import os
import pathlib
import resource
import socket
import subprocess
import tempfile
import unittest

import machine

KERNEL_OPTIONS = ("-append", "console=ttyS0", "-m", "256M", "-nographic", "-no-reboot")


@unittest.skipUnless(machine.IS_PENUMBRA, "the wording and the exit status are Penumbra's own")
class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.path = pathlib.Path(cls.folder.name)
        cls.kernel = machine.kernel("amd64")
        cls.image = cls.kernel.read_bytes()

    def file(self, name, content):
        path = self.path / name
        path.write_bytes(content)
        return path

    def refused(self, *options, naming, cpu="max", within=()):
        status, output, errors = machine.run(
            [*within, *machine.command_line(*options, cpu=cpu)],
            30,
            cwd=self.path,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2),
        )
        self.assertEqual(status, 2, errors + output[-500:])
        self.assertEqual(len(errors.splitlines()), 1, errors)
        self.assertIn(str(naming), errors)
        self.assertEqual(output, "")
        self.assertEqual([name for name in os.listdir(self.path) if name.startswith("core")], [])

    def kernel_refused(self, path):
        self.refused("-kernel", path, *KERNEL_OPTIONS, naming=path)

    def test_shared_folder(self):
        boot = ("-kernel", self.kernel, *KERNEL_OPTIONS)
        share = "local,mount_tag=t,security_model=none,path="
        for path in (self.path / "absent", self.file("plain", b"no folder")):
            self.refused(*boot, "-virtfs", f"{share}{path}", naming=path)
        self.refused(*boot, "-virtfs", f"local,path={self.path},security_model=none", naming="mount_tag=")
        self.refused(*boot, "-virtfs", f"local,path={self.path},mount_tag=t", naming="security_model=")
        self.refused(*boot, "-virtfs", "local,path=/proc,mount_tag=t,security_model=mapped", naming="extended attributes")
        self.refused(*boot, "-device", "virtio-9p-pci,fsdev=none,mount_tag=t", naming="'none'")

    def test_missing_kernel(self):
        self.kernel_refused(self.path / "absent")

    def test_empty_kernel(self):
        self.kernel_refused(self.file("empty", b""))

    def test_kernel_truncated_in_the_boot_sector(self):
        self.kernel_refused(self.file("tiny", self.image[:300]))

    def test_kernel_truncated_in_the_header(self):
        self.kernel_refused(self.file("header", self.image[:0x210]))

    def test_kernel_truncated_in_the_setup_code(self):
        self.kernel_refused(self.file("setup", self.image[:5000]))

    def test_kernel_truncated_in_the_middle(self):
        self.kernel_refused(self.file("half", self.image[: len(self.image) // 2]))

    def test_text_file_as_kernel(self):
        self.kernel_refused(self.file("text", b"This is no kernel.\n" * 5000))

    def test_truncated_elf_kernel(self):
        elf = (machine.CACHE / "guests" / "amd64" / "vmlinux").read_bytes()
        self.kernel_refused(self.file("elf", elf[:100000]))

    def test_folder_as_kernel(self):
        self.kernel_refused(self.path)

    def test_missing_initrd(self):
        initrd = self.path / "absent"
        self.refused("-kernel", self.kernel, "-initrd", initrd, *KERNEL_OPTIONS, naming=initrd)

    def test_initrd_larger_than_ram(self):
        initrd = self.path / "huge"
        with open(initrd, "wb") as file:
            file.truncate(300 << 20)
        self.refused("-kernel", self.kernel, "-initrd", initrd, *KERNEL_OPTIONS, naming=initrd)

    def test_memory_sizes(self):
        for size in ("0", "10T", "-5", "12Q", "many", "", "99999999999999999999G"):
            with self.subTest(size=size):
                self.refused("-kernel", self.kernel, "-nographic", "-m", size, naming="-m")

    def test_memory_too_small_for_the_kernel(self):
        self.refused("-kernel", self.kernel, "-nographic", "-m", "4M", naming=self.kernel)

    def test_unknown_option(self):
        for option in ("-frobnicate", "--frobnicate"):
            with self.subTest(option=option):
                self.refused("-kernel", self.kernel, option, naming="frobnicate")

    def test_option_without_its_value(self):
        self.refused("-kernel", self.kernel, "-m", naming="-m")

    def test_more_than_one_processor(self):
        self.refused("-kernel", self.kernel, "-smp", "4", "-nographic", naming="-smp")

    def test_unknown_cpu_model(self):
        self.refused("-kernel", self.kernel, "-cpu", "z80", "-nographic", naming="z80", cpu=None)

    def test_unknown_device(self):
        self.refused("-kernel", self.kernel, "-device", "flux-capacitor", "-nographic", naming="flux-capacitor")

    def test_unknown_serial(self):
        self.refused("-kernel", self.kernel, "-serial", "carrier-pigeon", naming="carrier-pigeon")

    def test_serial_file_that_cannot_be_made(self):
        target = self.path / "absent" / "log"
        self.refused("-kernel", self.kernel, "-serial", f"file:{target}", naming=target)

    def test_debug_console_without_its_chardev(self):
        self.refused(
            *("-kernel", self.kernel, "-nographic", "-device", "isa-debugcon,iobase=0xe9,chardev=nowhere"),
            naming="nowhere",
        )

    def test_unknown_network_card(self):
        self.refused("-kernel", self.kernel, "-nic", "user,model=ne2k_pci", "-nographic", naming="ne2k_pci")

    def test_port_in_use(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            forward = f"hostfwd=tcp:127.0.0.1:{server.getsockname()[1]}-:22"
            self.refused("-kernel", self.kernel, "-nic", f"user,{forward}", "-nographic", naming=forward)

    def test_tap_interface_that_is_not_to_be_had(self):
        for tap, naming in (("ifname=" + 16 * "x", "too long"), ("fd=99", "fd=99"), ("ifname=t0,script=/bin/up", "/bin/up")):
            with self.subTest(tap):
                self.refused("-kernel", self.kernel, "-nic", f"tap,{tap}", "-nographic", naming=naming)

    def test_tap_without_the_right_to_make_interfaces(self):
        without_rights = ["unshare", "--user"]
        if subprocess.run([*without_rights, "true"], capture_output=True).returncode:
            self.skipTest("this host lets nobody make namespaces")
        command = machine.command_line("-kernel", self.kernel, "-nic", "tap,ifname=penumbra7,script=no", "-nographic")
        status, _, errors = machine.run([*without_rights, *command], 30)
        self.assertEqual(status, 2, errors)
        self.assertRegex(errors, r"^penumbra: -nic tap,ifname=penumbra7,script=no: .*not permitted\n$")

    def test_network_rom_that_is_not_there(self):
        rom = self.path / "absent.rom"
        options = ("-netdev", "user,id=n", "-device", f"e1000,netdev=n,romfile={rom}")
        self.refused("-kernel", self.kernel, *options, "-nographic", naming=rom)

    def test_packet_dump_that_cannot_be_made(self):
        dump = self.path / "absent" / "dump"
        options = ("-nic", "user,id=n", "-object", f"filter-dump,id=f,netdev=n,file={dump}")
        self.refused("-kernel", self.kernel, *options, "-nographic", naming=dump)

    def test_missing_rom(self):
        self.refused("-bios", self.path / "absent", "-nographic", naming=self.path / "absent")

    def test_empty_rom(self):
        rom = self.file("rom", b"")
        self.refused("-bios", rom, "-nographic", naming=rom)

    def test_flash_images_that_no_chip_can_have(self):
        vars = self.file("vars.fd", bytes(4096))
        for bad in (self.path / "absent.fd", self.path, self.file("empty.fd", b""), self.file("odd.fd", bytes(65536 + 512)),
                    self.file("large.fd", bytes(9 << 20))):
            with self.subTest(bad):
                self.refused("-pflash", bad, "-nographic", naming=bad)
                self.refused("-pflash", vars, "-pflash", bad, "-nographic", naming=bad)
        self.refused("-drive", f"if=pflash,unit=1,file={vars}", "-nographic", naming="unit=0")

    def test_missing_image(self):
        image = self.path / "absent.img"
        self.refused("-hda", image, "-nographic", naming=image)
        self.refused("-cdrom", image, "-nographic", naming=image)

    def test_folder_as_image(self):
        self.refused("-hda", self.path, "-nographic", naming=self.path)

    def test_image_of_another_format(self):
        image = self.file("zeros.img", bytes(65536))
        self.refused("-drive", f"file={image},format=qcow2", "-nographic", naming=image)

    def test_read_only_folder(self):
        """A folder that even its owner may not write to."""
        folder = self.path / "read-only"
        folder.mkdir()
        image = self.file("read-only/disk.img", bytes(65536))
        mounts = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} && exec \"$@\""
        within = ("unshare", "-rm", "sh", "-c", mounts, "sh")
        if subprocess.run([*within, "true"], capture_output=True).returncode != 0:
            self.skipTest("no mounts here")
        self.refused("-hda", image, "-nographic", naming=image, within=within)
        self.refused("-serial", f"file:{folder}/out", "-display", "none", naming=f"{folder}/out", within=within)
        dump = ("-nic", "user,id=n", "-object", f"filter-dump,id=f,netdev=n,file={folder}/dump")
        self.refused(*dump, "-nographic", naming=f"{folder}/dump", within=within)
        snapshot = ("env", f"TMPDIR={folder}")
        self.refused("-snapshot", "-hda", self.file("other.img", bytes(65536)), "-nographic", naming=folder, within=(*within, *snapshot))

    def test_image_of_a_format_that_is_not_there(self):
        self.refused("-drive", "file=x,format=vhdx", "-nographic", naming="vhdx")

    def test_image_that_another_machine_has(self):
        image = self.file("disk.img", bytes(65536))
        with subprocess.Popen(
            machine.command_line("-hda", image, "-m", "16M", "-nographic"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        ) as holder:
            try:
                holder.stdout.read(1)  # the first byte of its BIOS: it has opened its image
                self.refused("-hda", image, "-m", "16M", "-nographic", naming=image)
            finally:
                holder.kill()
