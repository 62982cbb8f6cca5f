#include "frontend/options.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include "core/trace_log.h"
#include "frontend/user_error.h"

namespace penumbra {
namespace {

Command parse(std::vector<const char*> words) {
  return parse_command_line(words);
}

RunOptions run(std::vector<const char*> words) {
  words.insert(words.begin(), {"run", "-kernel", "K"});
  return std::get<RunOptions>(parse(words));
}

// The message, which must be one line.
std::string refusal(const std::vector<const char*>& words) {
  try {
    parse(words);
  } catch (const UserError& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    return message;
  }
  return "";
}

std::string run_refusal(std::vector<const char*> words) {
  words.insert(words.begin(), {"run", "-kernel", "K"});
  return refusal(words);
}

void expect_named(const std::string& message, const std::string& what) {
  EXPECT_NE(message.find(what), std::string::npos) << "'" << message << "' does not name " << what;
}

TEST(Options, OneDashOrTwoAndEqualsSignOrNot) {
  for (const std::vector<const char*>& words : std::vector<std::vector<const char*>>{
           {"-append", "a=1 b", "-m", "1G", "-no-reboot"},
           {"--append", "a=1 b", "--m", "1G", "--no-reboot"},
           {"--append=a=1 b", "-m=1G", "-no-reboot"},
           {"-append=a=1 b", "--m=1G", "--no-reboot"},
       }) {
    const RunOptions options = run(words);
    EXPECT_EQ(options.kernel, "K");
    EXPECT_EQ(options.append, "a=1 b");
    EXPECT_EQ(options.ram_bytes, uint64_t{1} << 30);
    EXPECT_FALSE(options.reboot);
  }
}

TEST(Options, AValueMayBeEmptyOrLookLikeAnOption) {
  EXPECT_EQ(run({"-append", ""}).append, "");
  EXPECT_EQ(run({"-append", "-m 5"}).append, "-m 5");
  EXPECT_EQ(run({"-append", "--nographic"}).append, "--nographic");
  EXPECT_EQ(run({"-append", "[a,b]"}).append, "[a,b]");
  EXPECT_EQ(run({"-cpu", "-x"}).cpu, "-x");
}

TEST(Options, Defaults) {
  const RunOptions options = run({});
  EXPECT_EQ(options.ram_bytes, uint64_t{512} << 20);
  EXPECT_EQ(options.cpu, "max");
  EXPECT_TRUE(options.reboot);
  ASSERT_EQ(options.serials.size(), 1u);
  EXPECT_EQ(options.serials[0].kind, CharacterTarget::Kind::Stdio);
  EXPECT_FALSE(options.debug_exit);
  EXPECT_EQ(options.trace_topics, 0u);
  EXPECT_FALSE(options.stats);
}

TEST(Options, TheLastOneCounts) {
  EXPECT_EQ(run({"-m", "1G", "-m", "2G", "-nographic", "-nographic"}).ram_bytes, uint64_t{2} << 30);
}

TEST(Options, MemorySizes) {
  EXPECT_EQ(parse_memory_size("1024"), uint64_t{1} << 30);
  EXPECT_EQ(parse_memory_size("512M"), uint64_t{512} << 20);
  EXPECT_EQ(parse_memory_size("512m"), uint64_t{512} << 20);
  EXPECT_EQ(parse_memory_size("1g"), uint64_t{1} << 30);
  EXPECT_EQ(parse_memory_size("size=2G"), uint64_t{2} << 30);
  EXPECT_EQ(parse_memory_size("2048K"), uint64_t{2} << 20);
  EXPECT_EQ(parse_memory_size("1048577B"), (uint64_t{1} << 20) + 4096);
  for (const char* bad : {"0", "-5", "", "12Q", "1GB", "many", "G", "0x10", "1.5G", "1 G", "1023K", "10T",
                          "99999999999999999999", "99999999999999999999G", "18446744073709551615"}) {
    EXPECT_THROW(parse_memory_size(bad), UserError) << bad;
    expect_named(run_refusal({"-m", bad}), "-m");
  }
}

TEST(Options, Processors) {
  run({"-smp", "1"});
  run({"-smp", "cpus=1"});
  run({"-smp", "1,sockets=1,cores=1,threads=1,maxcpus=1"});
  for (const char* bad : {"2", "0", "cpus=4", "1,cores=2", "1,maxcpus=2", "x", "1,hats=1"})
    expect_named(run_refusal({"-smp", bad}), "-smp");
}

TEST(Options, Serials) {
  const RunOptions options = run({"-serial", "null", "-serial", "file:out,put"});
  ASSERT_EQ(options.serials.size(), 2u);
  EXPECT_EQ(options.serials[0].kind, CharacterTarget::Kind::Null);
  EXPECT_EQ(options.serials[1], (CharacterTarget{CharacterTarget::Kind::File, "out,put"}));
  EXPECT_EQ(run({"-serial", "mon:stdio"}).serials[0].kind, CharacterTarget::Kind::Stdio);
  EXPECT_EQ(run({"-serial", "chardev:c", "-chardev", "file,id=c,path=F"}).serials[0].path, "F");
  expect_named(run_refusal({"-serial", "pigeon"}), "pigeon");
  expect_named(run_refusal({"-serial", "file:"}), "-serial");
  expect_named(run_refusal({"-serial", "chardev:none"}), "none");
  expect_named(run_refusal({"-serial", "stdio", "-serial", "stdio"}), "stdio");
  EXPECT_EQ(run({"-serial", "null", "-serial", "null", "-serial", "null", "-serial", "null"}).serials.size(),
            4u);
  expect_named(run_refusal({"-serial", "null", "-serial", "null", "-serial", "null", "-serial", "null",
                            "-serial", "null"}),
               "-serial");
}

TEST(Options, DebugExit) {
  const RunOptions options = run({"-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"});
  ASSERT_TRUE(options.debug_exit);
  EXPECT_EQ(options.debug_exit->port, 0xf4);
  EXPECT_EQ(options.debug_exit->ports, 4);
  // As in QEMU.
  EXPECT_EQ(run({"-device", "isa-debug-exit"}).debug_exit->port, 0x501);
  EXPECT_EQ(run({"-device", "isa-debug-exit"}).debug_exit->ports, 2);
  for (const char* bad :
       {"isa-debug-exit,iobase=0x10000", "isa-debug-exit,iobase=", "isa-debug-exit,iosize=0",
        "isa-debug-exit,iobase=0xffff,iosize=2", "isa-debug-exit,colour=red", "isa-debug-exit,iobase",
        "flux-capacitor", "", ",", "=", "id=x"}) {
    expect_named(run_refusal({"-device", bad}), "-device");
  }
}

TEST(Options, DebugConsoles) {
  // The order of -device and -chardev does not matter.
  const RunOptions options = run({"-device", "isa-debugcon,iobase=0x402,chardev=c", "-chardev",
                                  "file,id=c,path=a,,b", "-debugcon", "file:F"});
  ASSERT_EQ(options.debug_consoles.size(), 2u);
  EXPECT_EQ(options.debug_consoles[0].port, 0xe9);
  EXPECT_EQ(options.debug_consoles[0].target.path, "F");
  EXPECT_EQ(options.debug_consoles[1].port, 0x402);
  EXPECT_EQ(options.debug_consoles[1].target.path, "a,b");
  expect_named(run_refusal({"-device", "isa-debugcon,iobase=0xe9,chardev=nowhere"}), "nowhere");
  expect_named(run_refusal({"-device", "isa-debugcon,iobase=0xe9"}), "chardev");
  expect_named(run_refusal({"-chardev", "file,path=x"}), "id");
  expect_named(run_refusal({"-chardev", "file,id=x"}), "path");
  expect_named(run_refusal({"-chardev", "null,id=x", "-chardev", "null,id=x"}), "'x'");
  expect_named(run_refusal({"-chardev", "socket,id=x"}), "socket");
}

TEST(Options, TraceTopics) {
  const RunOptions options = run({"-d", "int,in_asm,out_asm,exec", "-D", "log"});
  EXPECT_EQ(options.trace_topics,
            TraceLog::kInterrupts | TraceLog::kGuestCode | TraceLog::kHostCode | TraceLog::kExecution);
  EXPECT_EQ(options.trace_file, "log");
  EXPECT_TRUE(options.translator.trace_guest_code);
  EXPECT_TRUE(options.translator.trace_host_code);
  EXPECT_TRUE(options.translator.trace_execution);
  EXPECT_FALSE(run({"-d", "int"}).translator.trace_guest_code);
  EXPECT_TRUE(run({"-d", "cpu"}).translator.trace_execution);
  EXPECT_FALSE(run({"-d", "int"}).translator.flag_liveness);
  EXPECT_FALSE(run({"-singlestep"}).translator.long_blocks);
  for (const char* bad : {"", "int,", "everything", "int,,exec"})
    expect_named(run_refusal({"-d", bad}), "-d");
}

TEST(Options, TripleFault) {
  EXPECT_FALSE(run({}).triple_fault);
  EXPECT_FALSE(run({}).translator.record_blocks);
  EXPECT_EQ(run({"--on-triple-fault", "stop"}).triple_fault, MachineOptions::TripleFault::Stop);
  EXPECT_EQ(run({"--on-triple-fault", "reset"}).triple_fault, MachineOptions::TripleFault::Reset);
  EXPECT_TRUE(run({"--on-triple-fault", "exit"}).translator.record_blocks);
  EXPECT_FALSE(run({"--on-triple-fault", "exit", "--jit", "no-record-blocks"}).translator.record_blocks);
  expect_named(run_refusal({"--on-triple-fault", "panic"}), "panic");
}

TEST(Options, TranslatorSwitches) {
  EXPECT_FALSE(run({"--jit", "no-chain,no-soft-tlb"}).translator.chain);
  expect_named(run_refusal({"--jit", "no-brakes"}), "no-brakes");
}

TEST(Options, Clock) {
  EXPECT_TRUE(run({"-rtc", "base=localtime"}).local_time);
  EXPECT_FALSE(run({"-rtc", "base=utc"}).local_time);
  expect_named(run_refusal({"-rtc", "base=sundial"}), "sundial");
}

TEST(Options, RefusalsNameWhatIsWrong) {
  for (const char* unknown : {"-frobnicate", "--frobnicate", "--frobnicate=1", "-", "--", "-kern"})
    expect_named(run_refusal({unknown}), unknown);
  expect_named(run_refusal({"stray"}), "stray");
  expect_named(run_refusal({"-m"}), "-m");
  expect_named(run_refusal({"-nographic=yes"}), "-nographic");
  expect_named(run_refusal({"-display", "window"}), "window");
  expect_named(refusal({"run", "-bios", "B", "-initrd", "I"}), "-initrd");
  expect_named(refusal({"run", "-bios", "B", "-append", "A"}), "-append");
  expect_named(refusal({"fly"}), "fly");
}

TEST(Options, ParallelPort) {
  EXPECT_FALSE(run({}).parallel);
  EXPECT_FALSE(run({"-parallel", "none"}).parallel);
  EXPECT_EQ(run({"-parallel", "file:F"}).parallel->path, "F");
  expect_named(run_refusal({"-parallel", "null", "-parallel", "file:G"}), "file:G");
}

TEST(Options, Flash) {
  const auto drives =
      run({"-drive", "if=pflash,unit=1,file=V", "-drive", "if=pflash,readonly=on,format=raw,file=C"}).drives;
  EXPECT_EQ(drives[0].index, 1u);
  EXPECT_EQ(drives[1].index, 0u);
  EXPECT_TRUE(drives[1].image.read_only);
  const auto short_forms = run({"-pflash", "a,b", "-pflash", "c"}).drives;
  EXPECT_EQ(short_forms[0].image.path, "a,b");
  EXPECT_EQ(short_forms[0].image.format, ImageOptions::Format::Raw);
  EXPECT_EQ(short_forms[1].index, 1u);
  expect_named(run_refusal({"-drive", "if=pflash,unit=1,file=V"}), "unit=0");
  expect_named(run_refusal({"-drive", "if=pflash,unit=0,file=V", "-drive", "if=pflash,unit=0,file=W"}),
               "file=W");
  expect_named(run_refusal({"-drive", "if=pflash,unit=2,file=V"}), "unit=2");
  expect_named(run_refusal({"-pflash", "A", "-pflash", "B", "-pflash", "C"}), "-pflash C");
  expect_named(run_refusal({"-pflash", "F", "-bios", "B"}), "-bios");
}

TEST(Options, BootMenuAndTimes) {
  const RunOptions options = run({"-boot", "order=dc,menu=on,splash-time=1500,reboot-timeout=-1,strict=on"});
  EXPECT_EQ(options.boot_order, "dc");
  EXPECT_TRUE(options.boot_menu);
  EXPECT_EQ(options.boot_menu_wait, 1500);
  EXPECT_EQ(options.boot_fail_wait, UINT32_MAX);
  expect_named(run_refusal({"-boot", "splash-time=70000"}), "70000");
}

TEST(Options, Smbios) {
  const RunOptions options =
      run({"-smbios", "type=0,vendor=V,release=2.7", "-smbios",
           "type=1,manufacturer=M,product=P,uuid=01234567-89ab-cdef-0123-456789abcdef", "-smbios",
           "type=11,value=one,value=two", "-smbios", "type=17,loc_pfx=SLOT"});
  EXPECT_EQ(options.smbios.firmware->vendor, "V");
  EXPECT_EQ(options.smbios.system.manufacturer, "M");
  EXPECT_EQ(options.smbios.system.product, "P");
  EXPECT_EQ(options.smbios.uuid[0], 0x01);
  EXPECT_EQ(options.smbios.uuid[15], 0xef);
  EXPECT_EQ(options.smbios.oem_strings, (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(options.smbios.memory.location, "SLOT");
  expect_named(run_refusal({"-smbios", "type=9"}), "type=9");
  expect_named(run_refusal({"-smbios", "type=1,colour=red"}), "colour");
  expect_named(run_refusal({"-uuid", "1234"}), "1234");
}

TEST(Options, CalledAsQemu) {
  for (const char* name : {"qemu-system-x86_64", "/usr/bin/qemu-system-x86_64", "./qemu-system-i386"})
    EXPECT_TRUE(is_qemu_name(name));
  for (const char* name : {"penumbra", "/qemu-system-x86_64/penumbra", ""}) EXPECT_FALSE(is_qemu_name(name));
  const std::vector<const char*> words = {"-machine", "pc,accel=tcg", "-m", "1G", "-hda", "D"};
  EXPECT_EQ(std::get<RunOptions>(parse_qemu_command_line(words)).ram_bytes, uint64_t{1} << 30);
  expect_named(run_refusal({"-M", "q35"}), "q35");
  expect_named(run_refusal({"-accel", "kvm"}), "kvm");
}

TEST(Options, Explain) {
  const auto options = std::get<ExplainOptions>(parse({"explain", "F", "--mode", "16", "--base", "0x7c00"}));
  EXPECT_EQ(options.path, "F");
  EXPECT_EQ(options.mode, 16u);
  EXPECT_EQ(options.base, 0x7c00u);
  EXPECT_EQ(std::get<ExplainOptions>(parse({"explain", "-mode=64", "F"})).mode, 64u);
  expect_named(refusal({"explain", "--mode", "64"}), "file");
  expect_named(refusal({"explain", "F"}), "--mode");
  expect_named(refusal({"explain", "F", "--mode", "48"}), "48");
  expect_named(refusal({"explain", "F", "--mode", "16", "--base", "here"}), "here");
  expect_named(refusal({"explain", "F", "G", "--mode", "16"}), "G");
}

TEST(Options, Help) {
  for (const char* word : {"help", "-h", "--help", "-help"})
    EXPECT_NE(std::get<ShowText>(parse({word})).text.find("penumbra run"), std::string::npos);
  EXPECT_NE(std::get<ShowText>(parse({})).text.find("penumbra run"), std::string::npos);
  for (const char* word : {"-h", "--help", "-help"}) {
    EXPECT_NE(std::get<ShowText>(parse({"run", word})).text.find("--kernel"), std::string::npos);
    EXPECT_NE(std::get<ShowText>(parse({"explain", word})).text.find("--base"), std::string::npos);
  }
  EXPECT_NE(std::get<ShowText>(parse({"--version"})).text.find("penumbra"), std::string::npos);
}

TEST(Options, WhereGdbConnects) {
  EXPECT_FALSE(run({}).gdb);
  EXPECT_FALSE(run({"-gdb", "none"}).gdb);
  const GdbEndpoint usual{
      .socket = {.kind = StreamEndpoint::Kind::Tcp, .host = "", .port = "1234", .path = ""}, .arch = {}};
  EXPECT_EQ(run({"-s"}).gdb, usual);
  EXPECT_EQ(run({"-gdb", "tcp::1234"}).gdb, usual);
  EXPECT_EQ(run({"-gdb", "tcp:[::1]:99"}).gdb->socket.host, "::1");
  EXPECT_EQ(run({"-gdb", "tcp:localhost:99"}).gdb->socket.port, "99");
  EXPECT_EQ(run({"-gdb", "unix:/tmp/a,,b,server=on,wait=off"}).gdb->socket.path, "/tmp/a,b");
  EXPECT_EQ(run({"-gdb", "tcp::1,arch=i386"}).gdb->arch, GdbArch::I386);
  EXPECT_FALSE(run({"-s"}).paused);
  EXPECT_TRUE(run({"-s", "-S"}).paused);
  for (const char* wrong : {"", "stdio", "tcp:1234", "tcp::x", "tcp::65536", "unix:", "tcp::1,arch=arm",
                            "tcp::1,server=off", "tcp::1,nonsense=1"}) {
    expect_named(run_refusal({"-gdb", wrong}), "-gdb");
  }
  expect_named(run_refusal({"-S"}), "-S");
}

TEST(Options, WhereCommandsComeFrom) {
  EXPECT_FALSE(run({}).monitor);
  EXPECT_FALSE(run({"-monitor", "none"}).monitor);
  EXPECT_TRUE(run({"-serial", "null", "-monitor", "stdio"}).monitor->stdio);
  const auto old = run({"-monitor", "unix:/tmp/m,server,nowait"}).monitor;
  EXPECT_EQ(old->socket.path, "/tmp/m");
  EXPECT_EQ(run({"-qmp", "tcp:localhost:4444,server=on,wait=off"}).qmp->socket.port, "4444");
  expect_named(run_refusal({"-qmp", "stdio"}), "-qmp");
  expect_named(run_refusal({"-monitor", "pty"}), "-monitor");
  expect_named(run_refusal({"-monitor", "stdio"}), "-monitor");
  EXPECT_TRUE(run({"-S", "-monitor", "tcp::0"}).paused);
}

TEST(Options, Screen) {
  EXPECT_TRUE(run({}).vga);
  EXPECT_FALSE(run({"-vga", "none"}).vga);
  expect_named(run_refusal({"-vga", "cirrus"}), "-vga");
  EXPECT_TRUE(run({}).serial_console) << "there is no window";
  EXPECT_FALSE(run({"-display", "none"}).serial_console);
  EXPECT_TRUE(run({"-display", "none", "-nographic"}).serial_console);
  EXPECT_TRUE(run({"-display", "none", "-machine", "pc,graphics=off"}).serial_console);
  EXPECT_FALSE(run({"-display", "none", "-machine", "pc,graphics=on"}).serial_console);
}

TEST(Options, Displays) {
  using enum DisplayOptions::Kind;
  EXPECT_EQ(run({}).display.kind, None);
  EXPECT_EQ(run({"-display", "none"}).display.kind, None);
  EXPECT_EQ(run({"-display", "sdl"}).display.kind, Sdl);
  const DisplayOptions vnc = run({"-display", "vnc=127.0.0.1:12"}).display;
  EXPECT_EQ(vnc.kind, Vnc);
  EXPECT_EQ(vnc.host, "127.0.0.1");
  EXPECT_EQ(vnc.number, 12u);
  for (const char* wrong : {"", "gtk", "vnc=", "vnc=:", "vnc=:x", "vnc=:70000"}) {
    expect_named(run_refusal({"-display", wrong}), "-display");
  }
  expect_named(run_refusal({"-vga", "none", "-display", "sdl"}), "-display");
}

TEST(Options, Drives) {
  const RunOptions options =
      run({"-nodefaults", "-hda", "a.img", "-drive", "file=b.img,format=raw,cache=none,snapshot=on,serial=S",
           "-cdrom", "c.iso", "-drive", "if=none,id=x,file=d,,1.img,readonly=on,discard=unmap"});
  ASSERT_EQ(options.drives.size(), 4u);
  EXPECT_EQ(options.drives[0].image.path, "a.img");
  EXPECT_EQ(options.drives[0].index, 0u);
  EXPECT_EQ(options.drives[0].image.format, ImageOptions::Format::Probe);
  EXPECT_TRUE(options.drives[1].cdrom);
  EXPECT_EQ(options.drives[1].index, 2u);
  EXPECT_TRUE(options.drives[1].image.read_only);
  EXPECT_EQ(options.drives[2].index, 1u) << "the first that is free";
  EXPECT_EQ(options.drives[2].image.cache, ImageOptions::Cache::None);
  EXPECT_EQ(options.drives[2].image.format, ImageOptions::Format::Raw);
  EXPECT_TRUE(options.drives[2].image.snapshot);
  EXPECT_EQ(options.drives[2].serial, "S");
  EXPECT_EQ(options.drives[3].interface, DriveOptions::Interface::None);
  EXPECT_EQ(options.drives[3].image.path, "d,1.img");
  EXPECT_TRUE(options.drives[3].image.read_only);
  EXPECT_TRUE(options.drives[3].image.discard);
}

// QEMU's, so that "change ide1-cd0 FILE" works in any machine.
TEST(Options, EmptyDrivesUnlessOneIsNamed) {
  const auto empty = [](std::initializer_list<const char*> words) {
    std::string found;
    for (const DriveOptions& drive : run(words).drives) {
      if (!drive.image.path.empty()) continue;
      EXPECT_EQ(drive.image.read_only, drive.cdrom);
      found += (drive.cdrom ? "cd" : "floppy") + std::to_string(drive.index) + " ";
    }
    return found;
  };
  EXPECT_EQ(empty({}), "cd2 floppy0 ");
  EXPECT_EQ(empty({"-hda", "a"}), "cd2 floppy0 ");
  EXPECT_EQ(empty({"-cdrom", "a"}), "floppy0 ");
  EXPECT_EQ(empty({"-hdc", "a", "-fdb", "b"}), "floppy0 ");
  EXPECT_EQ(empty({"-fda", "a"}), "cd2 ");
  EXPECT_EQ(empty({"-drive", "if=none,id=d,file=a", "-device", "ide-hd,drive=d"}), "floppy0 ");
  EXPECT_EQ(empty({"-drive", "if=none,id=d,file=a", "-device", "floppy,drive=d"}), "cd2 ");
  EXPECT_EQ(empty({"-drive", "media=cdrom"}), "cd0 cd2 floppy0 ");
}

TEST(Options, NoDefaults) {
  const RunOptions options = run({"-nodefaults"});
  EXPECT_TRUE(options.drives.empty());
  EXPECT_TRUE(options.networks.empty());
  EXPECT_TRUE(options.serials.empty());
  EXPECT_FALSE(options.vga);
  EXPECT_TRUE(run({"-nodefaults", "-vga", "std"}).vga);
}

TEST(Options, DrivesThatCannotBe) {
  expect_named(run_refusal({"-drive", "if=ide"}), "file=");
  expect_named(run_refusal({"-drive", "file=a,if=scsi"}), "if=scsi");
  expect_named(run_refusal({"-drive", "file=a,format=vmdk"}), "format=vmdk");
  expect_named(run_refusal({"-drive", "file=a,cache=some"}), "cache=some");
  expect_named(run_refusal({"-drive", "file=a,index=4"}), "index=4");
  expect_named(run_refusal({"-drive", "file=a,media=tape"}), "media=tape");
  expect_named(run_refusal({"-drive", "file=a,speed=1"}), "speed");
  expect_named(run_refusal({"-hda", "a", "-drive", "file=b,index=0"}), "index=0");
  expect_named(run_refusal({"-drive", "file=a,if=none,id=x", "-drive", "file=b,if=none,id=x"}), "'x'");
  expect_named(run_refusal({"-boot", "order=z"}), "'z'");
  expect_named(run_refusal({"-boot", "menu=perhaps"}), "menu=perhaps");
}

TEST(Options, ImageFormats) {
  const RunOptions options = run(
      {"-nodefaults", "-drive", "file=a", "-drive", "file=b,format=raw", "-drive", "file=c,format=qcow2"});
  ASSERT_EQ(options.drives.size(), 3u);
  EXPECT_EQ(options.drives[0].image.format, ImageOptions::Format::Probe);
  EXPECT_EQ(options.drives[1].image.format, ImageOptions::Format::Raw);
  EXPECT_EQ(options.drives[2].image.format, ImageOptions::Format::Qcow2);
}

TEST(Options, VirtioDisks) {
  const RunOptions options = run({"-nodefaults", "-drive", "if=virtio,file=a.img", "-device",
                                  "virtio-blk-pci,drive=x,serial=S", "-drive", "if=none,id=x,file=b.img"});
  ASSERT_EQ(options.drives.size(), 2u);
  for (const DriveOptions& drive : options.drives)
    EXPECT_EQ(drive.interface, DriveOptions::Interface::Virtio);
  EXPECT_EQ(options.drives[1].serial, "S");
  expect_named(run_refusal({"-device", "virtio-blk-pci,drive=x"}), "'x'");
  expect_named(run_refusal({"-device", "virtio-blk-pci"}), "drive=");
  expect_named(run_refusal({"-drive", "file=a,id=x", "-device", "virtio-blk-pci,drive=x"}), "'x'");
  expect_named(run_refusal({"-drive", "file=a,if=virtio,media=cdrom"}), "CD-ROM");
}

TEST(Options, BlockSizes) {
  const auto sizes = [](const char* device) {
    return run({"-drive", "if=none,id=d,file=a", "-device", device}).drives[0].sizes;
  };
  const BlockSizes all = sizes(
      "virtio-blk-pci,drive=d,logical_block_size=4096,min_io_size=8192,opt_io_size=65536,"
      "discard_granularity=16384");
  EXPECT_EQ(all.logical, 4096u);
  EXPECT_EQ(all.physical, 4096u) << "never less";
  EXPECT_EQ(all.least_request, 8192u);
  EXPECT_EQ(all.best_request, 65536u);
  EXPECT_EQ(all.discard, 16384u);
  EXPECT_EQ(sizes("ide-hd,drive=d,physical_block_size=4096").physical, 4096u);
  const auto refused = [](const char* device) {
    return run_refusal({"-drive", "if=none,id=d,file=a", "-device", device});
  };
  expect_named(refused("ide-hd,drive=d,logical_block_size=4096"), "logical_block_size=4096");
  expect_named(refused("ide-hd,drive=d,min_io_size=4096"), "min_io_size");
  expect_named(refused("virtio-blk-pci,drive=d,physical_block_size=1000"), "physical_block_size=1000");
  expect_named(refused("virtio-blk-pci,drive=d,logical_block_size=256"), "from 512");
  expect_named(refused("virtio-blk-pci,drive=d,logical_block_size=4096,opt_io_size=512"), "no multiple");
}

TEST(Options, SharedFolders) {
  using Security = SharedFolderOptions::Security;
  const RunOptions options =
      run({"-virtfs", "local,path=/a,mount_tag=first,security_model=mapped-xattr,id=x", "-virtfs",
           "local,path=/b,,c,mount_tag=second,security_model=none,readonly", "-fsdev",
           "local,id=f,path=/d,security_model=passthrough,readonly=on,multidevs=remap", "-device",
           "virtio-9p-pci,fsdev=f,mount_tag=third,id=y"});
  ASSERT_EQ(options.shares.size(), 3u);
  EXPECT_EQ(options.shares[0].folder.path, "/a");
  EXPECT_EQ(options.shares[0].tag, "first");
  EXPECT_EQ(options.shares[0].folder.security, Security::Mapped);
  EXPECT_FALSE(options.shares[0].folder.read_only);
  EXPECT_EQ(options.shares[1].folder.path, "/b,c");
  EXPECT_EQ(options.shares[1].folder.security, Security::None);
  EXPECT_TRUE(options.shares[1].folder.read_only);
  EXPECT_EQ(options.shares[2].tag, "third");
  EXPECT_EQ(options.shares[2].folder.security, Security::Passthrough);
  EXPECT_TRUE(options.shares[2].folder.read_only);
}

TEST(Options, SharedFoldersThatCannotBe) {
  expect_named(run_refusal({"-virtfs", "local,path=/a,security_model=none"}), "mount_tag=");
  expect_named(run_refusal({"-virtfs", "local,mount_tag=t,security_model=none"}), "path=");
  expect_named(run_refusal({"-virtfs", "local,path=/a,mount_tag=t"}), "security_model=");
  expect_named(run_refusal({"-virtfs", "local,path=/a,mount_tag=t,security_model=mapped-file"}),
               "mapped-file");
  expect_named(run_refusal({"-virtfs", "proxy,path=/a,mount_tag=t,security_model=none"}), "local");
  expect_named(run_refusal({"-virtfs", "local,path=/a,mount_tag=t,security_model=none,fmode=0600"}), "fmode");
  expect_named(run_refusal({"-virtfs", "local,path=/a,mount_tag=,security_model=none"}), "mount_tag=");
  expect_named(run_refusal({"-virtfs",
                            "local,path=/a,mount_tag=123456789012345678901234567890123,security_model=none"}),
               "32");
  expect_named(run_refusal({"-virtfs", "local,path=/a,mount_tag=t,security_model=none,readonly=maybe"}),
               "readonly=maybe");
  expect_named(run_refusal({"-device", "virtio-9p-pci,fsdev=f,mount_tag=t"}), "'f'");
  expect_named(
      run_refusal({"-fsdev", "local,id=f,path=/a,security_model=none", "-device", "virtio-9p-pci,fsdev=f"}),
      "mount_tag=");
  const char* share = "local,path=/a,mount_tag=t,security_model=none";
  expect_named(run_refusal({"-virtfs", share, "-virtfs", share}), "'t' is taken");
}

TEST(Options, DrivesWhoseMediumComesOutReportTheirErrors) {
  for (const char* drive :
       {"file=A,if=floppy,werror=stop", "file=A,media=cdrom,rerror=stop", "file=A,if=floppy,rerror=ignore"})
    expect_named(run_refusal({"-drive", drive}), "only reports");
  expect_named(run_refusal({"-drive", "file=A,if=none,id=d,rerror=stop", "-device", "ide-cd,drive=d"}),
               "only reports");
  EXPECT_EQ(run({"-nodefaults", "-drive", "file=A,if=floppy,werror=report"}).drives.size(), 1u);
  EXPECT_EQ(run({"-drive", "file=A,if=none,id=d,media=cdrom", "-device", "ide-cd,drive=d,id=cd"})
                .drives[0]
                .device_id,
            "cd");
}

TEST(Options, AhciControllersAndTheirDrives) {
  using enum DriveOptions::Interface;
  const RunOptions options = run(
      {"-nodefaults", "-drive", "if=none,id=a,file=a.img", "-drive", "if=none,id=b,file=b.iso,media=cdrom",
       "-drive", "if=none,id=c,file=c.img", "-device", "ich9-ahci,id=first", "-device", "ahci,id=second",
       "-device", "ide-hd,drive=a,bus=second.3,serial=S", "-device", "ide-cd,drive=b,bus=first.0", "-device",
       "ide-cd,bus=first.1", "-device", "ide-hd,drive=c,bus=ide.1,unit=1"});
  EXPECT_EQ(options.ahci_controllers, 2u);
  ASSERT_EQ(options.drives.size(), 4u);
  const auto expect = [&](unsigned i, DriveOptions::Interface interface, unsigned controller, unsigned index,
                          bool cdrom) {
    EXPECT_EQ(options.drives[i].interface, interface) << i;
    EXPECT_EQ(options.drives[i].controller, controller) << i;
    EXPECT_EQ(options.drives[i].index, index) << i;
    EXPECT_EQ(options.drives[i].cdrom, cdrom) << i;
    EXPECT_EQ(options.drives[i].image.read_only, cdrom) << i;
  };
  expect(0, Ahci, 1, 3, false);
  expect(1, Ahci, 0, 0, true);
  expect(2, Ide, 0, 3, false);
  expect(3, Ahci, 0, 1, true);
  EXPECT_EQ(options.drives[0].serial, "S");

  const std::vector<const char*> two = {"-drive",  "if=none,id=a,file=a", "-drive", "if=none,id=b,file=b",
                                        "-device", "ich9-ahci,id=x"};
  const auto with = [&two](std::vector<const char*> words) {
    words.insert(words.begin(), two.begin(), two.end());
    return run_refusal(words);
  };
  expect_named(with({"-device", "ide-hd,drive=a,bus=x.6"}), "'6'");
  expect_named(with({"-device", "ide-hd,drive=a,bus=y.0"}), "'y.0'");
  expect_named(with({"-device", "ide-hd,drive=a,bus=x"}), "''");
  expect_named(with({"-device", "ide-hd,drive=c,bus=x.0"}), "'c'");
  expect_named(with({"-device", "ide-hd,bus=x.0"}), "drive=");
  expect_named(with({"-device", "ide-hd,drive=a,bus=x.0", "-device", "ide-hd,drive=b,bus=x.0"}),
               "has a drive");
  expect_named(with({"-device", "ide-hd,drive=a,bus=x.0", "-device", "ide-hd,drive=a,bus=x.1"}), "if=none");
}

TEST(Options, BootOrder) {
  EXPECT_EQ(run({}).boot_order, "cad");
  EXPECT_EQ(run({"-boot", "d"}).boot_order, "d");
  const RunOptions options = run({"-boot", "order=dc,menu=on"});
  EXPECT_EQ(options.boot_order, "dc");
  EXPECT_TRUE(options.boot_menu);
}

// --- Networks

TEST(Options, NicIsACardAndItsNetwork) {
  const RunOptions options = run(
      {"-nic", "user,model=e1000,hostfwd=tcp::2222-:22,hostfwd=udp:127.0.0.1:53-10.0.2.16:5353,restrict=on"});
  ASSERT_EQ(options.networks.size(), 1u);
  const UserNetworkOptions& user = std::get<UserNetworkOptions>(options.networks[0].kind);
  EXPECT_TRUE(user.restricted);
  ASSERT_EQ(user.forwards.size(), 2u);
  EXPECT_FALSE(user.forwards[0].udp);
  EXPECT_EQ(user.forwards[0].host_port, 2222);
  EXPECT_EQ(user.forwards[0].guest_port, 22);
  EXPECT_EQ(user.forwards[0].host.s_addr, 0u);
  EXPECT_TRUE(user.forwards[1].udp);
  EXPECT_EQ(user.forwards[1].host.s_addr, htonl(0x7f00'0001));
  EXPECT_EQ(user.forwards[1].guest.s_addr, htonl(0x0a00'0210));
  EXPECT_EQ(user.forwards[1].guest_port, 5353);
  ASSERT_EQ(options.network_cards.size(), 1u);
  EXPECT_EQ(options.network_cards[0].address, (MacAddress{0x52, 0x54, 0, 0x12, 0x34, 0x56}));
}

TEST(Options, NetdevAndDevice) {
  const RunOptions options =
      run({"-device", "e1000,netdev=n1,mac=52:54:00:12:34:56,addr=0x5", "-device", "e1000,netdev=n0",
           "-netdev", "user,id=n0", "-netdev", "user,id=n1,net=192.168.5.0/24,dhcpstart=192.168.5.40",
           "-object", "filter-dump,id=f,netdev=n1,file=x,,y,maxlen=100"});
  ASSERT_EQ(options.networks.size(), 2u);
  const UserNetworkOptions& user = std::get<UserNetworkOptions>(options.networks[1].kind);
  EXPECT_EQ(user.network.s_addr, htonl(0xc0a8'0500));
  EXPECT_EQ(user.mask.s_addr, htonl(0xffff'ff00));
  EXPECT_EQ(user.host.s_addr, htonl(0xc0a8'0502));
  EXPECT_EQ(user.first_lease.s_addr, htonl(0xc0a8'0528));
  ASSERT_EQ(options.network_cards.size(), 2u);
  EXPECT_EQ(options.network_cards[0].network, 1u);
  EXPECT_EQ(options.network_cards[0].place, 5u);
  EXPECT_EQ(options.network_cards[1].address[5], 0x57) << "the next one that is free";
  ASSERT_EQ(options.packet_dumps.size(), 1u);
  EXPECT_EQ(options.packet_dumps[0].path, "x,y");
  EXPECT_EQ(options.packet_dumps[0].network, 1u);
  EXPECT_EQ(options.packet_dumps[0].limit, 100u);
}

TEST(Options, OneCardUnlessNetworksAreNamed) {
  const RunOptions options = run({});
  ASSERT_EQ(options.network_cards.size(), 1u);
  EXPECT_EQ(options.network_cards[0].model, PcBoardOptions::NetworkCard::Model::E1000);
  EXPECT_TRUE(std::holds_alternative<UserNetworkOptions>(options.networks.at(0).kind));
  EXPECT_TRUE(run({"-nic", "none"}).network_cards.empty());
  EXPECT_TRUE(run({"-netdev", "user,id=n0"}).network_cards.empty());
}

TEST(Options, Tap) {
  const RunOptions options = run({"-netdev", "tap,id=n0,ifname=tap7,script=no,downscript=no", "-nic",
                                  "tap,fd=5", "-device", "virtio-net-pci,netdev=n0,romfile="});
  EXPECT_EQ(std::get<TapNetworkOptions>(options.networks.at(0).kind).interface, "tap7");
  EXPECT_EQ(std::get<TapNetworkOptions>(options.networks.at(1).kind).fd, 5);
  EXPECT_EQ(options.network_cards.at(0).rom_file, std::nullopt);
  EXPECT_EQ(options.network_cards.at(1).rom_file, "");
}

TEST(Options, VirtioPortsHaveQemusNumbers) {
  const RunOptions options = run({"-chardev", "file,id=c,path=x", "-device", "virtio-serial-pci", "-device",
                                  "virtconsole,chardev=c", "-device", "virtserialport,chardev=c,name=a",
                                  "-device", "virtserialport,chardev=c,nr=5,bus=virtio-serial0.0", "-device",
                                  "virtconsole,chardev=c", "-device", "virtio-balloon-pci"});
  EXPECT_TRUE(options.balloon);
  ASSERT_EQ(options.virtio_ports.size(), 4u);
  const unsigned numbers[] = {0, 1, 5, 2};
  for (size_t i = 0; i < 4; i++) EXPECT_EQ(options.virtio_ports[i].number, numbers[i]);
  EXPECT_TRUE(options.virtio_ports[0].console);
  EXPECT_EQ(options.virtio_ports[1].name, "a");
  EXPECT_EQ(options.virtio_ports[1].target.path, "x");
  expect_named(run_refusal({"-chardev", "null,id=c", "-device", "virtconsole,chardev=c"}),
               "virtio-serial-pci");
  expect_named(run_refusal({"-device", "virtio-serial-pci", "-device", "virtconsole,chardev=c"}), "'c'");
  for (const char* port : {"virtserialport,chardev=c,nr=0", "virtserialport,chardev=c,nr=31",
                           "virtconsole,chardev=c,bus=other.0"})
    expect_named(run_refusal({"-chardev", "null,id=c", "-device", "virtio-serial-pci", "-device", port}),
                 "-device");
}

TEST(Options, OldNetIsACardAndANetwork) {
  const RunOptions options =
      run({"-net", "nic,model=virtio,macaddr=52:54:00:00:00:07", "-net", "user,hostfwd=tcp::2222-:22"});
  ASSERT_EQ(options.networks.size(), 1u);
  ASSERT_EQ(options.network_cards.size(), 1u);
  EXPECT_EQ(options.network_cards[0].model, PcBoardOptions::NetworkCard::Model::VirtioNet);
  EXPECT_EQ(options.network_cards[0].address, (MacAddress{0x52, 0x54, 0, 0, 0, 7}));
  EXPECT_EQ(run({"-net", "user", "-net", "nic"}).network_cards.size(), 1u) << "in any order";
  EXPECT_TRUE(run({"-net", "none"}).network_cards.empty());
  EXPECT_EQ(run({"-netdev", "user,id=n", "-net", "nic,netdev=n"}).network_cards.size(), 1u);
  expect_named(run_refusal({"-net", "nic"}), "network");
  expect_named(run_refusal({"-net", "user"}), "card");
  expect_named(run_refusal({"-net", "nic", "-net", "nic", "-net", "user"}), "one card");
  expect_named(run_refusal({"-net", "nic", "-net", "user", "-net", "tap"}), "one network");
  expect_named(run_refusal({"-net", "nic,model=ne2k_pci", "-net", "user"}), "ne2k_pci");
}

TEST(Options, BootIndices) {
  const RunOptions options = run({"-drive",  "if=none,id=a,file=a",
                                  "-drive",  "if=none,id=b,file=b",
                                  "-drive",  "if=none,id=c,file=c",
                                  "-drive",  "if=none,id=d,file=d,media=cdrom",
                                  "-device", "ide-hd,drive=a,bootindex=3",
                                  "-device", "virtio-blk-pci,drive=b,bootindex=0",
                                  "-device", "floppy,drive=c,unit=1,bootindex=2",
                                  "-device", "ide-cd,drive=d,bootindex=-1",
                                  "-netdev", "user,id=n",
                                  "-device", "e1000,netdev=n,bootindex=1",
                                  "-boot",   "strict=on"});
  EXPECT_EQ(options.drives[0].boot_index, 3u);
  EXPECT_EQ(options.drives[1].boot_index, 0u);
  EXPECT_EQ(options.drives[2].boot_index, 2u);
  EXPECT_EQ(options.drives[2].interface, DriveOptions::Interface::Floppy);
  EXPECT_EQ(options.drives[2].index, 1u);
  EXPECT_EQ(options.drives[3].boot_index, std::nullopt);
  EXPECT_EQ(options.network_cards[0].boot_index, 1u);
  EXPECT_TRUE(options.boot_strict);
  expect_named(run_refusal({"-drive", "if=none,id=a,file=a", "-device", "ide-hd,drive=a,bootindex=x"}),
               "bootindex=x");
  expect_named(run_refusal({"-drive", "if=none,id=a,file=a", "-device", "ide-hd,drive=a,bootindex=1",
                            "-netdev", "user,id=n", "-device", "e1000,netdev=n,bootindex=1"}),
               "bootindex=1");
  expect_named(
      run_refusal({"-fdb", "b", "-drive", "if=none,id=a,file=a", "-device", "floppy,drive=a,unit=1"}),
      "has a drive");
  expect_named(run_refusal({"-drive", "if=none,id=a,file=a", "-device", "floppy,drive=a,unit=2"}), "unit=2");
}

TEST(Options, NetworksThatMakeNoSense) {
  const std::pair<std::vector<const char*>, const char*> cases[] = {
      {{"-nic", "user,model=ne2k_pci"}, "ne2k_pci"},
      {{"-nic", "vde"}, "vde"},
      {{"-nic", "tap,script=/bin/up"}, "script=/bin/up"},
      {{"-nic", "tap,fd=one"}, "fd=one"},
      {{"-nic", "tap,fd=5,ifname=tap0"}, "exclude"},
      {{"-nic", "user,fish=1"}, "fish"},
      {{"-nic", "user,mac=1:2"}, "mac=1:2"},
      {{"-nic", "user,mac=01:00:00:00:00:00"}, "group"},
      {{"-nic", "user,hostfwd=tcp::22"}, "hostfwd=tcp::22"},
      {{"-nic", "user,hostfwd=sctp::22-:22"}, "sctp"},
      {{"-nic", "user,hostfwd=tcp::99999-:22"}, "99999"},
      {{"-nic", "user,hostfwd=tcp::22-:"}, "port number"},
      {{"-nic", "user,hostfwd=tcp:here:22-:22"}, "here"},
      {{"-nic", "user,restrict=maybe"}, "restrict=maybe"},
      {{"-nic", "user,net=10.0.2.0/40"}, "net=10.0.2.0/40"},
      {{"-nic", "user,net=10.0.2.0/255.0.255.0"}, "mask"},
      {{"-nic", "user,dhcpstart=10.9.9.9"}, "dhcpstart=10.9.9.9"},
      {{"-netdev", "user"}, "id="},
      {{"-netdev", "user,id=n", "-netdev", "user,id=n"}, "taken"},
      {{"-device", "e1000,netdev=n7"}, "n7"},
      {{"-device", "e1000"}, "netdev"},
      {{"-netdev", "user,id=n", "-device", "e1000,netdev=n", "-device", "e1000,netdev=n"}, "card already"},
      {{"-netdev", "user,id=n", "-device", "e1000,netdev=n,addr=20"}, "addr=20"},
      {{"-object", "filter-dump,id=f,netdev=n7,file=x"}, "n7"},
      {{"-object", "rng-random,id=r"}, "rng-random"},
  };
  for (const auto& [words, named] : cases) expect_named(run_refusal(words), named);
}

}  // namespace
}  // namespace penumbra
