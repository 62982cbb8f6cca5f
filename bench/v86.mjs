// v86.mjs PACKAGE -kernel FILE -initrd FILE -append LINE -m MEGABYTESM: boots Linux in v86 as bench/compare's other
// VMMs do, with the serial console on standard output. PACKAGE is the npm package's folder. Other options are QEMU's
// and have no counterpart here.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [folder, ...words] = process.argv.slice(2);
const options = {};
for (const name of ["-kernel", "-initrd", "-append", "-m"]) {
  const at = words.indexOf(name);
  if (!folder || at < 0 || at + 1 === words.length) {
    console.error(`v86.mjs: ${name} and its value are missing`);
    process.exit(2);
  }
  options[name] = words[at + 1];
}

const build = path.join(folder, "build");
const { V86 } = await import(pathToFileURL(path.join(build, "libv86.mjs")));

// A copy, because Node's buffers of small files are parts of larger ones.
const image = (file) => ({ buffer: new Uint8Array(fs.readFileSync(file)).buffer });

const emulator = new V86({
  wasm_path: path.join(build, "v86.wasm"),
  bios: image("/usr/share/seabios/bios.bin"),
  vga_bios: image("/usr/share/seabios/vgabios-stdvga.bin"),
  bzimage: image(options["-kernel"]),
  initrd: image(options["-initrd"]),
  cmdline: options["-append"],
  memory_size: parseInt(options["-m"], 10) << 20,
  vga_memory_size: 8 << 20,
  net_device: { type: "none" },
  disable_speaker: true,
  acpi: true,
  autostart: true,
});
emulator.add_listener("serial0-output-byte", (byte) => fs.writeSync(1, Uint8Array.of(byte)));
