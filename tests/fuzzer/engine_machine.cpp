#include "tests/fuzzer/engine_machine.h"

namespace penumbra::fuzz {

namespace {

jit::TranslatorOptions make_options(std::string_view switches) {
  jit::TranslatorOptions options;
  options.code_cache_bytes = 4 << 20;
  options.mmu = jit::TranslatorOptions::Mmu::Tlb;
  if (switches == "windows") {
    options.mmu = jit::TranslatorOptions::Mmu::Windows;
    switches = "";
  }
  jit::apply_switches(options, switches);
  return options;
}

// Ends of the tables in guest physical memory: PML4, then page-directory-pointer tables and so on.
constexpr uint64_t kTables = 0x1000, kGdt = 0x20000;

}  // namespace

EngineMachine::EngineMachine(std::string name, std::string_view switches)
    : name_(std::move(name)),
      exact_fault_flags_(switches.find("no-flag-liveness") != std::string_view::npos),
      map_(16 << 20),
      tlb_(map_),
      state_(std::make_unique<VcpuState>()) {
  vcpu_ = std::make_unique<Vcpu>(*state_, map_, tlb_, io_, model_);
  vcpu_->reset();
  translator_ = std::make_unique<jit::Translator>(*vcpu_, make_options(switches));
  vcpu_->set_event_listener(this);
  ram_ = map_.page({kPhysical}).host;
  std::memset(ram_, 0xf4, area::kBytes);
  build_tables();
}

void EngineMachine::build_tables() {
  constexpr uint64_t kPresentWritableUser = 7, kPresentUser = 5, kAccessedDirty = 0x60,
                     kNoExecute = 1ull << 63;
  uint64_t next = kTables + area::kPage;
  for (const uint64_t base : {area::kLow, area::kHigh}) {
    for (uint64_t page = 0; page < area::kPages; ++page) {
      const uint64_t linear = base + page * area::kPage;
      uint64_t table = kTables;
      for (unsigned shift = 39; shift > 12; shift -= 9) {
        const uint64_t entry = table + (linear >> shift & 511) * 8;
        if (!(map_.read({entry}, 8) & 1)) {
          map_.write({entry}, 8, next | kPresentWritableUser);
          next += area::kPage;
        }
        table = map_.read({entry}, 8) & ~uint64_t{0xfff};
      }
      const area::Rights rights = area::rights(page);
      if (!rights.present) continue;
      map_.write({table + (linear >> 12 & 511) * 8}, 8,
                 (kPhysical + page * area::kPage) | (rights.write ? kPresentWritableUser : kPresentUser) |
                     kAccessedDirty | (rights.execute ? 0 : kNoExecute));
    }
  }
  // Linux' GDT as far as user code can load it.
  map_.write({kGdt + selector::kCode32 / 8 * 8}, 8, 0x00cf'fb00'0000'ffff);
  map_.write({kGdt + selector::kData / 8 * 8}, 8, 0x00cf'f300'0000'ffff);
  map_.write({kGdt + selector::kCode64 / 8 * 8}, 8, 0x00af'fb00'0000'ffff);
}

// Only the bytes that differ are written: code pages through the map, so that translations are dropped.
void EngineMachine::load(const Memory& memory) {
  for (uint64_t page = 0; page < area::kPages; ++page) {
    const area::Rights rights = area::rights(page);
    if (!rights.present) continue;
    const std::byte* wanted = memory.data() + page * area::kPage;
    std::byte* have = ram_ + page * area::kPage;
    if (std::memcmp(wanted, have, area::kPage) == 0) continue;
    if (!rights.execute) {
      std::memcpy(have, wanted, area::kPage);
      continue;
    }
    constexpr uint64_t kLine = 64;
    uint64_t first = 0, end = area::kPage;
    while (std::memcmp(wanted + first, have + first, kLine) == 0) first += kLine;
    while (std::memcmp(wanted + end - kLine, have + end - kLine, kLine) == 0) end -= kLine;
    map_.write_bytes({kPhysical + page * area::kPage + first}, std::span(wanted + first, end - first));
  }
}

void EngineMachine::event_delivered(const EventRecord& event) {
  if (ended_) return;
  ended_ = true;
  const VcpuState& s = *state_;
  outcome_.state.gpr = s.gpr;
  outcome_.state.rip = event.rip;
  outcome_.state.rflags = s.rflags;
  outcome_.state.fs_base = s.segments[kFs].base;
  outcome_.state.gs_base = s.segments[kGs].base;
  outcome_.state.vector = load_vector_state(s.guest_vector_state.data());
  outcome_.vector = event.vector;
  outcome_.error_code = event.has_error_code ? event.error_code : 0;
  outcome_.cr2 = event.cr2;
}

void EngineMachine::give_up() {
  gave_up_ = true;
  state_->attention.fetch_or(attention::kKick);
  translator_->interrupt();
}

Outcome EngineMachine::run(const Program& program, bool cold_tlb) {
  load(program.memory);
  VcpuState& s = *state_;
  s.gpr = program.start.gpr;
  s.rip = program.start.rip;
  s.rflags = program.start.rflags;
  constexpr uint16_t kUserData = 0xf3, kUserCode = 0xfb;  // present, DPL 3, accessed
  for (Segment& segment : s.segments) {
    segment = {.base = 0,
               .limit = ~0u,
               .selector = selector::kData,
               .attributes = kUserData | Segment::kBig | Segment::kGranular};
  }
  s.segments[kFs].base = program.start.fs_base;
  s.segments[kGs].base = program.start.gs_base;
  const bool wide = program.bits == 64;
  s.segments[kCs] = {.base = 0,
                     .limit = ~0u,
                     .selector = wide ? selector::kCode64 : selector::kCode32,
                     .attributes = static_cast<uint16_t>(kUserCode | Segment::kGranular |
                                                         (wide ? Segment::kLong : Segment::kBig))};
  s.gdtr = {.base = kGdt, .limit = 0x7f};
  s.idtr = {.base = 0, .limit = 0};  // any exception ends in a triple fault; the listener has seen the first
  // Too short to name an I/O permission map: no port is allowed.
  s.tr = {.base = 0, .limit = 0x65, .selector = 0x40, .attributes = 0x8b};
  s.cr0 = cr0::kPe | cr0::kPg | cr0::kEt | cr0::kNe | cr0::kMp | cr0::kAm | cr0::kWp;
  s.cr4 = cr4::kOsfxsr | cr4::kOsxmmexcpt | cr4::kOsxsave | cr4::kPae | cr4::kFsgsbase | cr4::kUmip;
  s.efer = efer::kLme | efer::kLma | efer::kSce | efer::kNxe;
  s.cr3 = kTables;
  s.xcr0 = model_.xcr0_mask();
  s.cpl = 3;
  s.attention = 0;
  s.interrupt_shadow = s.nmi_blocked = s.halted = false;
  std::memset(s.guest_vector_state.data(), 0, s.guest_vector_state.size());
  store_vector_state(program.start.vector, s.guest_vector_state.data());
  if (cold_tlb) tlb_.flush_all();
  vcpu_->update_mode();

  outcome_ = {};
  ended_ = false;
  gave_up_ = false;
  while (!(s.attention & attention::kStop) && !gave_up_) {
    s.attention = 0;
    translator_->run();
  }
  if (!ended_) outcome_.timeout = true;
  return outcome_;
}

}  // namespace penumbra::fuzz
