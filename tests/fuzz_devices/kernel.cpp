// -kernel, -initrd and -append of any content, started directly or by firmware.
#include <memory>
#include <stdexcept>
#include <string>

#include "core/machine.h"
#include "frontend/boot.h"
#include "tests/fuzz_devices/input.h"
#include "tests/fuzz_devices/scratch_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penumbra;
  static const ScratchFile kernel, initrd;
  static Machine machine([] {
    MachineOptions options;
    options.ram_bytes = uint64_t{32} << 20;
    options.cpu = "base";
    return options;
  }());
  Input input(data, size);
  const uint8_t flags = input.byte();
  const auto words = input.bytes(input.byte());
  BootRequest request{.kernel = kernel.path(),
                      .initrds = {},
                      .append = {words.begin(), words.end()},
                      .bios = {},
                      .flash = (flags & 1) != 0};
  initrd.set(words);
  for (unsigned i = flags >> 1 & 3; i > 0; i--)
    request.initrds.push_back(initrd.path() + (flags & 8 ? " words" : ""));
  kernel.set(input.rest());
  try {
    const std::unique_ptr<Boot> boot = make_boot(request, machine.map());
    FwCfg fw_cfg(machine.map());
    boot->describe(fw_cfg);
    machine.vcpu().reset();
    boot->start(machine);
  } catch (const std::runtime_error&) {
  }
  return 0;
}
