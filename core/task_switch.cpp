// Hardware task switches through 16-bit and 32-bit TSSs (SDM vol. 3, chapter 7). Not in long mode.
#include "core/descriptor.h"
#include "core/vcpu.h"

namespace penumbra {

namespace {

// Offsets in a 32-bit TSS (SDM vol. 3, figure 7-2) and a 16-bit one (figure 7-10).
struct TssLayout {
  unsigned bytes;  // of a register
  unsigned min_limit;
  unsigned ip, flags, registers, selectors, selector_stride, selector_count, ldt;
};
constexpr TssLayout kTss32Layout{.bytes = 4,
                                 .min_limit = 0x67,
                                 .ip = 0x20,
                                 .flags = 0x24,
                                 .registers = 0x28,
                                 .selectors = 0x48,
                                 .selector_stride = 4,
                                 .selector_count = 6,
                                 .ldt = 0x60};
constexpr TssLayout kTss16Layout{.bytes = 2,
                                 .min_limit = 0x2b,
                                 .ip = 0x0e,
                                 .flags = 0x10,
                                 .registers = 0x12,
                                 .selectors = 0x22,
                                 .selector_stride = 2,
                                 .selector_count = 4,
                                 .ldt = 0x2a};
constexpr unsigned kTss32Bytes = 104, kCr3Offset = 0x1c, kTrapOffset = 0x64;
// The dynamic fields that a switch saves: from IP to the last selector.
constexpr unsigned kMaxSaved = 0x60 - 0x20;

constexpr const TssLayout& layout_of(unsigned type) {
  return (type & ~system_type::kBusy) == system_type::kTss32 ? kTss32Layout : kTss16Layout;
}

uint32_t field(const std::byte* image, unsigned offset, unsigned bytes) {
  uint32_t value = 0;
  for (unsigned i = bytes; i-- != 0;) value = value << 8 | static_cast<uint32_t>(image[offset + i]);
  return value;
}

void set_field(std::byte* image, unsigned offset, unsigned bytes, uint64_t value) {
  for (unsigned i = 0; i < bytes; ++i) image[offset + i] = static_cast<std::byte>(value >> 8 * i);
}

}  // namespace

Result<void> Vcpu::switch_task(const TaskSwitch& request) {
  VcpuState& s = state_;
  const uint16_t selector = request.selector;
  const bool back = request.source == TaskSwitchSource::Iret;
  const bool nested = request.source == TaskSwitchSource::Call;
  const uint8_t bad = back ? vector::kTs : vector::kGp;
  const uint32_t error = selector_error(selector, request.external);

  // --- checks in the old task
  if (is_null(selector) || selector & 4) return raise(bad, error);
  auto descriptor = read_descriptor(selector, bad, request.external);
  if (!descriptor) return std::unexpected(descriptor.error());
  const unsigned type = descriptor->type();
  const unsigned available = type & ~system_type::kBusy;
  if (descriptor->is_segment() || (available != system_type::kTss16 && available != system_type::kTss32) ||
      back != static_cast<bool>(type & system_type::kBusy)) {
    return raise(bad, error);
  }
  if (!descriptor->present()) return raise(vector::kNp, error);
  const TssLayout& to = layout_of(type);
  const bool wide = to.bytes == 4;
  if (descriptor->limit() < to.min_limit) return raise(vector::kTs, error);

  // --- everything that can fault on memory: read the new TSS, check that the old one can be written
  const LinearAddr new_tss = wrap(descriptor->base());
  std::byte image[kTss32Bytes];
  if (auto done = read_linear(new_tss, image, to.min_limit + 1, TlbView::Supervisor); !done) return done;
  if (nested) {
    if (auto done = probe_write(new_tss, 2, TlbView::Supervisor); !done) return done;
  }
  const TssLayout& from = layout_of(s.tr.type());
  const unsigned saved_bytes = from.selectors + from.selector_count * from.selector_stride - from.ip;
  const LinearAddr save_area = wrap(s.tr.base + from.ip);
  std::byte saved[kMaxSaved];
  if (auto done = probe_write(save_area, saved_bytes, TlbView::Supervisor); !done) return done;
  if (auto done = read_linear(save_area, saved, saved_bytes, TlbView::Supervisor); !done) return done;
  Descriptor old_descriptor;
  const bool old_in_table =
      !is_null(s.tr.selector) && find_descriptor(s.tr.selector, 8, old_descriptor.address);
  if (!nested && old_in_table) {
    auto raw = read_linear(old_descriptor.address, 8, TlbView::Supervisor);
    if (!raw) return std::unexpected(raw.error());
    old_descriptor.raw = *raw;
    if (auto done = probe_write(old_descriptor.address + 5, 1, TlbView::Supervisor); !done) return done;
  }
  if (auto done = probe_write(descriptor->address + 5, 1, TlbView::Supervisor); !done) return done;

  // --- save the old task; none of these writes can fault any more
  set_field(saved, 0, from.bytes, request.return_rip);
  set_field(saved, from.flags - from.ip, from.bytes, request.flags);
  for (unsigned i = 0; i < 8; ++i) {
    set_field(saved, from.registers - from.ip + i * from.bytes, from.bytes, s.gpr[i]);
  }
  for (unsigned i = 0; i < from.selector_count; ++i) {
    set_field(saved, from.selectors - from.ip + i * from.selector_stride, 2, s.segments[i].selector);
  }
  if (auto done = write_linear(save_area, saved, saved_bytes, TlbView::Supervisor); !done) return done;
  if (!nested && old_in_table) {
    const unsigned free_type = old_descriptor.type() & ~system_type::kBusy;
    if (auto done = set_descriptor_type(old_descriptor, free_type); !done) return done;
  }
  if (nested) {
    if (auto done = write_linear(new_tss, uint64_t{s.tr.selector}, 2, TlbView::Supervisor); !done)
      return done;
  }
  if (!back) {
    if (auto done = set_descriptor_type(*descriptor, type | system_type::kBusy); !done) return done;
  }

  // --- the new task's registers: from here on faults belong to the new task
  s.tr = descriptor->segment(selector);
  s.tr.attributes |= system_type::kBusy;
  s.cr0 |= cr0::kTs;
  s.dr[7] &= ~uint64_t{0x155};  // local breakpoint enables, LE (SDM vol. 3, 17.2.4)
  debug_.registers_changed();
  s.interrupt_shadow = s.debug_shadow = false;
  const bool was_open = s.rflags & flag::kIf;

  uint64_t flags = field(image, to.flags, to.bytes);
  if (!wide) flags |= s.rflags & 0x38'0000 & ~flag::kAc;  // a 16-bit image has the low half only
  constexpr uint64_t kDefined = 0x3f'7fd5;
  s.rflags = (flags & kDefined) | flag::kFixed1 | (nested ? flag::kNt : 0);
  s.rip = field(image, to.ip, to.bytes);
  for (unsigned i = 0; i < 8; ++i) {
    const uint32_t value = field(image, to.registers + i * to.bytes, to.bytes);
    s.gpr[i] = wide ? value : 0xffff'0000 | value;  // upper halves are undefined; as on the 80386
  }
  uint16_t selectors[6] = {};
  for (unsigned i = 0; i < to.selector_count; ++i) {
    selectors[i] = static_cast<uint16_t>(field(image, to.selectors + i * to.selector_stride, 2));
  }
  const auto ldt = static_cast<uint16_t>(field(image, to.ldt, 2));
  // Selectors are visible to a handler of the faults below, but nothing is reachable through them yet.
  for (unsigned i = 0; i < 6; ++i) s.segments[i] = null_segment(selectors[i]);
  s.segments[kCs].attributes |= Segment::kBig;
  s.ldtr = null_segment(ldt);
  s.cpl = static_cast<uint8_t>(s.rflags & flag::kVm ? 3 : rpl_of(selectors[kCs]));
  update_mode();
  if (!was_open && s.rflags & flag::kIf) interrupts_opened();

  if (wide && s.cr0 & cr0::kPg) {
    if (auto done = write_cr3(field(image, kCr3Offset, 4)); !done) {
      return raise(vector::kTs, error);
    }
  }
  if (auto done = load_task_segments(selectors, ldt, request.external); !done) return done;
  update_mode();

  if (request.has_error_code) {
    if (auto done = push(request.error_code, to.bytes); !done) return done;
  }
  if (s.rip > s.segments[kCs].limit) return raise(vector::kGp, request.external);
  if (wide && field(image, kTrapOffset, 2) & 1) {
    return std::unexpected(Exception{.vector = vector::kDb, .dr6 = 1u << 15, .trap = true});
  }
  return {};
}

// SDM vol. 3, table 7-1, the checks after the switch.
Result<void> Vcpu::load_task_segments(const uint16_t (&selectors)[6], uint16_t ldt, uint32_t external) {
  VcpuState& s = state_;
  auto ldt_segment = check_ldt(ldt, vector::kTs);
  if (!ldt_segment) return std::unexpected(ldt_segment.error());
  s.ldtr = *ldt_segment;

  if (s.rflags & flag::kVm) {
    for (unsigned i = 0; i < 6; ++i) s.segments[i] = v8086_segment(selectors[i]);
    return {};
  }

  const uint16_t cs = selectors[kCs];
  if (is_null(cs)) return raise(vector::kTs, external);
  auto code = read_descriptor(cs, vector::kTs, external);
  if (!code) return std::unexpected(code.error());
  const uint32_t cs_error = selector_error(cs, external);
  if (!code->is_code() || (code->conforming() ? code->dpl() > s.cpl : code->dpl() != s.cpl)) {
    return raise(vector::kTs, cs_error);
  }
  if (!code->present()) return raise(vector::kNp, cs_error);
  if (auto done = set_accessed(*code); !done) return done;
  s.segments[kCs] = code->segment(cs);

  auto stack = check_stack_segment(selectors[kSs], s.cpl, vector::kTs, external);
  if (!stack) return std::unexpected(stack.error());
  s.segments[kSs] = *stack;

  for (SegmentIndex index : {kEs, kDs, kFs, kGs}) {
    const uint16_t selector = selectors[index];
    if (is_null(selector)) continue;
    auto segment = check_data_segment(index, selector);
    if (!segment) {
      Exception fault = segment.error();
      if (fault.vector == vector::kGp) fault.vector = vector::kTs;
      if (fault.vector != vector::kPf) fault.error_code |= external;
      return std::unexpected(fault);
    }
    s.segments[index] = *segment;
  }
  return {};
}

}  // namespace penumbra
