#include "frontend/loaded_boot.h"

#include "core/little_endian.h"
#include "core/vcpu.h"
#include "core/vcpu_state.h"

namespace penumbra {

namespace {

// Present, DPL 0, accessed, 4 GiB.
constexpr uint16_t kCode32Attributes = 0xc09b, kCode64Attributes = 0xa09b, kDataAttributes = 0xc093;
constexpr size_t kGdtBytes = EntryState::kData + 8;

// Base 0, limit FFFFF in pages (SDM vol. 3, figure 3-8).
constexpr uint64_t flat_descriptor(uint16_t attributes) {
  return 0x000f'0000'0000'ffff | uint64_t{attributes} << 40;
}

constexpr Segment flat_segment(uint16_t selector, uint16_t attributes) {
  return {.base = 0, .limit = 0xffff'ffff, .selector = selector, .attributes = attributes};
}

}  // namespace

std::vector<std::byte> boot_gdt(bool code64) {
  std::vector<std::byte> gdt(kGdtBytes);
  store_field(std::span(gdt), EntryState::kCode,
              flat_descriptor(code64 ? kCode64Attributes : kCode32Attributes));
  store_field(std::span(gdt), EntryState::kData, flat_descriptor(kDataAttributes));
  return gdt;
}

void EntryState::apply(Vcpu& vcpu) const {
  VcpuState& state = vcpu.state();
  const bool code64 = cr3 != 0;
  state.gpr = gpr;
  state.rip = rip;
  state.rflags = flag::kFixed1;
  state.segments.fill(flat_segment(kData, kDataAttributes));
  state.segments[kCs] = flat_segment(kCode, code64 ? kCode64Attributes : kCode32Attributes);
  state.gdtr = {.base = gdt, .limit = kGdtBytes - 1};
  state.idtr = {.base = 0, .limit = 0};
  // Xen's PVH entry demands a busy 32-bit TSS of this size; the other protocols do not care.
  state.tr = {.base = 0, .limit = 0x67, .selector = 0, .attributes = 0x8b};
  state.cr0 = cr0::kPe | cr0::kEt;
  if (code64) {
    state.cr0 |= cr0::kPg;
    state.cr3 = cr3;
    state.cr4 = cr4::kPae;
    state.efer = efer::kLme | efer::kLma;
  }
  state.cpl = 0;
  vcpu.update_mode();
}

void LoadedBoot::start(Machine& machine) {
  memory_.copy_to(machine.map());
  entry_.apply(machine.vcpu());
}

}  // namespace penumbra
