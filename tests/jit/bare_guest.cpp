#include "tests/jit/bare_guest.h"

#include <cstring>

namespace penumbra::test {

namespace {

// Offsets in the XSAVE image (SDM vol. 1, 13.4).
constexpr size_t kMxcsrOffset = 24, kXmmOffset = 160, kXstateBvOffset = 512, kYmmHighOffset = 576;

}  // namespace

BareGuest::BareGuest(unsigned bits, const jit::TranslatorOptions& options)
    : bits_(bits), map_(16 << 20), tlb_(map_), state_(std::make_unique<VcpuState>()) {
  vcpu_ = std::make_unique<Vcpu>(*state_, map_, tlb_, io_, model_);
  vcpu_->reset();
  translator_ = std::make_unique<jit::Translator>(*vcpu_, options);
  build_page_tables();
}

void BareGuest::build_page_tables() {
  constexpr uint64_t kPresentWritableUser = 7;
  constexpr uint64_t kLarge = 0x80, kGlobal = 0x100;
  // 4-level: PML4 at 0x1000, PDPT at 0x2000, PD at 0x3000; 32-bit: page directory at 0x4000 (4 MiB page).
  map_.write({0x1000}, 8, 0x2000 | kPresentWritableUser);
  map_.write({0x2000}, 8, 0x3000 | kPresentWritableUser);
  // Not global: global pages of the lower half have no shadow window in 64-bit code.
  map_.write({0x3000 + (kCode >> 21) * 8}, 8, kPhysical | kPresentWritableUser | kLarge);
  map_.write({0x4000 + (kCode >> 22) * 4}, 4, kPhysical | kPresentWritableUser | kLarge | kGlobal);
}

void BareGuest::load(std::span<const uint8_t> image) {
  map_.write_bytes({kPhysical}, std::as_bytes(image));
}

std::span<std::byte> BareGuest::memory() {
  return {map_.page({kPhysical}).host, kBytes};
}

BareGuest::Outcome BareGuest::run(const Registers& start, uint8_t cpl) {
  VcpuState& s = *state_;
  vcpu_->reset();
  s.gpr = start.gpr;
  s.rip = start.rip;
  s.rflags = start.rflags;
  constexpr uint16_t kData = 0x93, kCode32 = 0x9b;  // present, DPL 0, writable data; execute/read code
  for (Segment& segment : s.segments) {
    segment = {
        .base = 0, .limit = ~0u, .selector = 0x10, .attributes = kData | Segment::kBig | Segment::kGranular};
  }
  s.segments[kCs] = {.base = 0, .limit = ~0u, .selector = 8, .attributes = kCode32 | Segment::kGranular};
  if (bits_ == 64) s.segments[kCs].attributes |= Segment::kLong;
  if (bits_ == 32) s.segments[kCs].attributes |= Segment::kBig;
  s.cr0 = cr0::kPe | cr0::kPg | cr0::kEt | cr0::kNe | cr0::kMp;
  s.cr4 = cr4::kOsfxsr | cr4::kOsxmmexcpt | cr4::kOsxsave | cr4::kPge | (bits_ == 64 ? cr4::kPae : cr4::kPse);
  if (bits_ == 64 && start.rflags & flag::kAc) s.cr4 |= cr4::kSmap;
  s.efer = bits_ == 64 ? efer::kLme | efer::kLma | efer::kSce : 0;
  s.cr3 = bits_ == 64 ? 0x1000 : 0x4000;
  s.xcr0 = model_.xcr0_mask();
  s.cpl = cpl;
  s.attention = 0;
  s.idtr = {.base = 0, .limit = 0};  // any exception ends in a triple fault, with the first one on record
  std::byte* image = s.guest_vector_state.data();
  std::memset(image, 0, kXsaveAreaBytes);
  const uint16_t control_word = 0x37f;
  std::memcpy(image, &control_word, 2);
  std::memcpy(image + kMxcsrOffset, &start.mxcsr, 4);
  const uint64_t components = model_.xcr0_mask();
  std::memcpy(image + kXstateBvOffset, &components, 8);
  for (unsigned i = 0; i < 16; ++i) {
    std::memcpy(image + kXmmOffset + i * 16, start.ymm[i].data(), 16);
    std::memcpy(image + kYmmHighOffset + i * 16, start.ymm[i].data() + 2, 16);
  }
  tlb_.flush_all();
  vcpu_->update_mode();
  const unsigned events_before = vcpu_->event_count();

  Outcome outcome;
  for (unsigned turn = 0; turn < 1000 && !s.attention; ++turn) translator_->run();
  if (s.attention & attention::kStop) {
    outcome.end = End::Exception;
    // The first of the exceptions that ended in the triple fault is the oldest recorded since the start.
    const unsigned count = vcpu_->event_count() - events_before;
    if (count > 0) {
      const EventRecord& first = vcpu_->event(count - 1);
      outcome.vector = first.vector;
      outcome.cr2 = first.cr2;
    }
  } else if (s.attention & attention::kHalt) {
    outcome.end = End::Halted;
  }
  outcome.registers.gpr = s.gpr;
  outcome.registers.rip = s.rip;
  outcome.registers.rflags = s.rflags;
  std::memcpy(&outcome.registers.mxcsr, image + kMxcsrOffset, 4);
  uint64_t in_use = 0;
  std::memcpy(&in_use, image + kXstateBvOffset, 8);
  for (unsigned i = 0; i < 16; ++i) {
    if (in_use & 2) std::memcpy(outcome.registers.ymm[i].data(), image + kXmmOffset + i * 16, 16);
    if (in_use & 4) std::memcpy(outcome.registers.ymm[i].data() + 2, image + kYmmHighOffset + i * 16, 16);
  }
  return outcome;
}

}  // namespace penumbra::test
