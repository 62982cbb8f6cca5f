#include "tests/fuzzer/engine_machine.h"

#include <algorithm>

#include "tests/fuzzer/descriptors.h"

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

// Guest physical memory: PML4, then page-directory-pointer tables and so on; GDT and LDT.
constexpr uint64_t kTables = 0x1000, kDescriptorPage = 0x2'0000;
// The descriptor tables' linear address is the kernel's half, as natively.
constexpr uint64_t kDescriptors = 0xffff'ff00'0000'0000, kGdt = 0, kLdt = 0x800;

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
  const auto map_page = [&](uint64_t linear, uint64_t leaf) {
    uint64_t table = kTables;
    for (unsigned shift = 39; shift > 12; shift -= 9) {
      const uint64_t entry = table + (linear >> shift & 511) * 8;
      if (!(map_.read({entry}, 8) & 1)) {
        map_.write({entry}, 8, next | kPresentWritableUser);
        next += area::kPage;
      }
      table = map_.read({entry}, 8) & ~uint64_t{0xfff};
    }
    map_.write({table + (linear >> 12 & 511) * 8}, 8, leaf);
  };
  for (const uint64_t base : {area::kLow, area::kHigh}) {
    for (uint64_t page = 0; page < area::kPages; ++page) {
      const area::Rights rights = area::rights(page);
      const uint64_t leaf = (kPhysical + page * area::kPage) |
                            (rights.write ? kPresentWritableUser : kPresentUser) | kAccessedDirty |
                            (rights.execute ? 0 : kNoExecute);
      map_page(base + page * area::kPage, rights.present ? leaf : 0);
    }
  }
  constexpr uint64_t kPresentWritable = 3;
  map_page(kDescriptors, kDescriptorPage | kPresentWritable | kAccessedDirty | kNoExecute);
  for (unsigned i = 0; i < kGdtEntries; ++i) map_.write({kDescriptorPage + kGdt + i * 8}, 8, gdt_entry(i));
  for (unsigned i = 0; i < std::size(ldt::kEntries); ++i) {
    map_.write({kDescriptorPage + kLdt + i * 8}, 8, ldt::kEntries[i]);
  }
}

// Only the bytes that differ are written: pages with code through the map, so that translations are dropped.
void EngineMachine::load(const Program& program) {
  for (uint64_t page = 0; page < area::kPages; ++page) {
    if (!accessible(program, page)) continue;
    const std::byte* wanted = program.memory.data() + page * area::kPage;
    std::byte* have = ram_ + page * area::kPage;
    if (std::memcmp(wanted, have, area::kPage) == 0) continue;
    if (!map_.tracker().holds_code(PhysAddr{kPhysical + page * area::kPage}.frame())) {
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

void EngineMachine::capture(uint64_t rip) {
  ended_ = true;
  const VcpuState& s = *state_;
  outcome_.state.gpr = s.gpr;
  outcome_.state.rip = rip;
  outcome_.state.rflags = s.rflags;
  outcome_.state.fs_base = s.segments[kFs].base;
  outcome_.state.gs_base = s.segments[kGs].base;
  outcome_.state.vector = load_vector_state(s.guest_vector_state.data());
  for (unsigned i = 0; i < s.segments.size(); ++i) outcome_.state.selectors[i] = s.segments[i].selector;
}

void EngineMachine::event_delivered(const EventRecord& event) {
  if (ended_) return;
  capture(event.rip);
  outcome_.vector = event.vector;
  outcome_.error_code = event.has_error_code ? event.error_code : 0;
  outcome_.cr2 = event.cr2;
  // Linux lets user code raise these only.
  const bool allowed = event.vector == vector::kBp || event.vector == vector::kOf;
  if (event.software && !allowed && paging_) {
    outcome_.state.rip = state_->rip;
    outcome_.error_code = event.vector * 8u + 2;
    outcome_.vector = vector::kGp;
  }
}

void EngineMachine::give_up() {
  gave_up_ = true;
  state_->attention.fetch_or(attention::kKick);
  translator_->interrupt();
}

void EngineMachine::load_protected(const Program& program) {
  VcpuState& s = *state_;
  for (unsigned i = 0; i < s.segments.size(); ++i) {
    const uint16_t chosen = program.start.selectors[i];
    s.segments[i] = is_null(chosen) ? null_segment(chosen) : descriptor_of(chosen).segment(chosen);
  }
  s.segments[kFs].base = program.start.fs_base;
  s.segments[kGs].base = program.start.gs_base;
  constexpr uint16_t kLdtAttributes = Segment::kPresent | system_type::kLdt;
  s.gdtr = {.base = kDescriptors + kGdt, .limit = kGdtEntries * 8 - 1};
  s.ldtr = {.base = kDescriptors + kLdt,
            .limit = std::size(ldt::kEntries) * 8 - 1,
            .selector = 0x50,
            .attributes = kLdtAttributes};
  // Too short to name an I/O permission map: no port is allowed.
  s.tr = {.base = 0, .limit = 0x65, .selector = 0x40, .attributes = 0x8b};
  s.cr0 = cr0::kPe | cr0::kPg | cr0::kEt | cr0::kNe | cr0::kMp | cr0::kAm | cr0::kWp;
  s.cr4 = cr4::kOsfxsr | cr4::kOsxmmexcpt | cr4::kOsxsave | cr4::kPae | cr4::kFsgsbase | cr4::kUmip;
  s.efer = efer::kLme | efer::kLma | efer::kSce | efer::kNxe;
  s.cr3 = kTables;
  s.cpl = 3;
}

void EngineMachine::load_real(const Program& program) {
  VcpuState& s = *state_;
  constexpr uint16_t kWritable = Segment::kPresent | Segment::kS | 3;
  for (unsigned i = 0; i < s.segments.size(); ++i) {
    const uint16_t chosen = program.start.selectors[i];
    s.segments[i] = {.base = chosen * 16u, .limit = 0xffff, .selector = chosen, .attributes = kWritable};
  }
  s.cr0 = cr0::kEt | cr0::kNe;
  s.cr4 = s.efer = s.cr3 = 0;
  s.cpl = 0;
}

void EngineMachine::start(const Program& program, bool cold_tlb) {
  load(program);
  VcpuState& s = *state_;
  s.gpr = program.start.gpr;
  s.rip = program.start.rip;
  s.rflags = program.start.rflags;
  const bool real = program.kind == Kind::Real;
  if (real) {
    load_real(program);
  } else {
    load_protected(program);
  }
  s.idtr = {.base = 0, .limit = 0};  // any exception ends in a triple fault; the listener has seen the first
  s.xcr0 = model_.xcr0_mask();
  s.attention = 0;
  s.interrupt_shadow = s.nmi_blocked = s.halted = false;
  std::memset(s.guest_vector_state.data(), 0, s.guest_vector_state.size());
  store_vector_state(program.start.vector, s.guest_vector_state.data());
  if (cold_tlb || paging_ == real) tlb_.flush_all();
  paging_ = !real;
  vcpu_->update_mode();

  outcome_ = {};
  ended_ = false;
  gave_up_ = false;
}

Outcome EngineMachine::run(const Program& program, bool cold_tlb) {
  start(program, cold_tlb);
  VcpuState& s = *state_;
  while (!(s.attention & attention::kStop) && !gave_up_ && !s.halted) {
    s.attention = 0;
    translator_->run();
  }
  if (s.halted && !ended_) {
    capture(s.rip);
    outcome_.halted = true;
  }
  if (!ended_) outcome_.timeout = true;
  return outcome_;
}

// REP MOVS or STOS; empty if it is something else.
std::span<const std::byte> EngineMachine::repeated_store_at_rip() const {
  constexpr unsigned kMovs = 0xa4, kStos = 0xaa, kRepne = 0xf2, kRepe = 0xf3;
  constexpr unsigned kPrefixes[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, kRepne, kRepe};
  const uint64_t first = offset_of_rip();
  bool repeated = false;
  for (uint64_t at = first; at < std::min(first + jit::kMaxInstructionBytes, area::kBytes); ++at) {
    const auto byte = static_cast<unsigned>(ram_[at]);
    const bool rex = state_->mode.has(ModeBits::kCode64) && (byte & 0xf0) == 0x40;
    repeated |= byte == kRepne || byte == kRepe;
    if (rex || std::ranges::find(kPrefixes, byte) != std::end(kPrefixes)) continue;
    const bool stores = (byte & ~1u) == kMovs || (byte & ~1u) == kStos;
    return memory().subspan(first, repeated && stores ? at + 1 - first : 0);
  }
  return {};
}

EngineMachine::Trace EngineMachine::trace(const Program& program, unsigned first_bytes) {
  constexpr unsigned kMostSteps = 10'000;
  Trace found;
  start(program, false);
  const uint64_t first = offset_of_rip();
  for (unsigned i = 0; i < kMostSteps && !ended_ && !gave_up_ && !state_->halted; ++i) {
    const std::span<const std::byte> instruction = repeated_store_at_rip();
    const std::vector<std::byte> before(instruction.begin(), instruction.end());
    state_->attention = 0;
    translator_->step();
    if (!std::ranges::equal(before, instruction)) found.repeat_overwrites_itself = true;
    const uint64_t next = offset_of_rip();
    if (next > first && next < first + first_bytes) found.enters_itself = true;
  }
  return found;
}

}  // namespace penumbra::fuzz
