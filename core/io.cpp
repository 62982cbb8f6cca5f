// Port input and output: permission (SDM vol. 1, 19.5), and the string forms.
#include "core/descriptor.h"
#include "core/host_vector_scope.h"
#include "core/io_bus.h"
#include "core/register_access.h"
#include "core/vcpu.h"

namespace penumbra {

Result<void> Vcpu::check_port(uint16_t port, unsigned size) {
  const unsigned iopl = (state_.rflags >> 12) & 3;
  if (!v8086() && state_.cpl <= iopl) return {};
  const Segment& tss = state_.tr;
  const unsigned type = tss.type();
  constexpr unsigned kMapBaseField = 102;
  if ((type != system_type::kTss32 && type != system_type::kTss32Busy) || tss.limit < kMapBaseField + 1) {
    return raise(vector::kGp, 0);
  }
  auto map_base = read_linear(wrap(tss.base + kMapBaseField), 2, TlbView::Supervisor);
  if (!map_base) return std::unexpected(map_base.error());
  // Two bytes are read always, since the bits may straddle; both must lie inside the limit.
  const uint64_t offset = *map_base + port / 8;
  if (offset + 1 > tss.limit) return raise(vector::kGp, 0);
  auto map = read_linear(wrap(tss.base + offset), 2, TlbView::Supervisor);
  if (!map) return std::unexpected(map.error());
  const uint64_t wanted = ((1u << size) - 1) << (port & 7);
  if (*map & wanted) return raise(vector::kGp, 0);
  return {};
}

uint32_t Vcpu::read_port(uint16_t port, unsigned size) {
  HostVectorScope scope(state_);
  ++stats_.io_reads;
  debug_.note_port(port, size);
  return io_.read(port, size);
}

void Vcpu::write_port(uint16_t port, unsigned size, uint32_t value) {
  HostVectorScope scope(state_);
  ++stats_.io_writes;
  debug_.note_port(port, size);
  io_.write(port, size, value);
}

Result<Outcome> Vcpu::execute_io(const SystemInstruction& insn) {
  if (insn.op == SystemOp::Ins || insn.op == SystemOp::Outs) return string_io(insn);
  const unsigned size = insn.operand_bytes > 4 ? 4 : insn.operand_bytes;
  const auto port = static_cast<uint16_t>(insn.immediate_present ? insn.immediate & 0xff : state_.gpr[kRdx]);
  if (auto allowed = check_port(port, size); !allowed) return std::unexpected(allowed.error());
  if (insn.op == SystemOp::In) {
    write_gpr(kRax, read_port(port, size), size);
  } else {
    write_port(port, size, static_cast<uint32_t>(read_gpr(state_, kRax, size)));
  }
  advance(insn);
  // A chip may have reset the machine, moved A20 or raised its line: let the run loop look.
  return state_.attention.load(std::memory_order_relaxed) ? Outcome::Redirect : Outcome::Next;
}

// One element at a time: every one has a side effect. The element's memory is checked before the port is
// read, and read before the port is written, so that a fault restarts the instruction with nothing lost.
Result<Outcome> Vcpu::string_io(const SystemInstruction& insn) {
  const unsigned size = insn.operand_bytes > 4 ? 4 : insn.operand_bytes;
  const bool input = insn.op == SystemOp::Ins;
  const bool repeat = insn.repeat != SystemInstruction::Repeat::None;
  const auto port = static_cast<uint16_t>(state_.gpr[kRdx]);
  if (auto allowed = check_port(port, size); !allowed) return std::unexpected(allowed.error());
  if (repeat && read_gpr(state_, kRcx, insn.address_bytes) == 0) return advance(insn);

  const unsigned pointer = input ? kRdi : kRsi;
  const uint64_t step = state_.rflags & flag::kDf ? ~uint64_t{size} + 1 : size;
  const TlbView view = current_view();
  HostVectorScope scope(state_);
  for (;;) {
    const uint64_t offset = read_gpr(state_, pointer, insn.address_bytes);
    auto address =
        linearize(input ? kEs : insn.segment, offset, size, input ? AccessKind::Write : AccessKind::Read);
    if (!address) return std::unexpected(address.error());
    if (input) {
      if (auto done = probe_write(*address, size, view); !done) return std::unexpected(done.error());
      if (auto done = write_linear(*address, read_port(port, size), size, view); !done) {
        return std::unexpected(done.error());
      }
    } else {
      auto value = read_linear(*address, size, view);
      if (!value) return std::unexpected(value.error());
      write_port(port, size, static_cast<uint32_t>(*value));
    }
    write_gpr(pointer, offset + step, insn.address_bytes);
    if (!repeat) break;
    const uint64_t left = (state_.gpr[kRcx] - 1) & size_mask(insn.address_bytes);
    write_gpr(kRcx, left, insn.address_bytes);
    if (left == 0) break;
    const bool attended = state_.attention.load(std::memory_order_relaxed) != 0;
    // As in execute_string(): RF between iterations.
    if (attended || state_.mode.has(ModeBits::kSingleStep)) state_.rflags |= flag::kRf;
    if (state_.mode.has(ModeBits::kSingleStep)) {
      // TF traps after every iteration, with RIP at the instruction (SDM vol. 3, 17.3.1.4).
      return std::unexpected(Exception{.vector = vector::kDb, .dr6 = 1u << 14, .trap = true});
    }
    if (attended) return Outcome::Redirect;
  }
  advance(insn);
  return state_.attention.load(std::memory_order_relaxed) ? Outcome::Redirect : Outcome::Next;
}

}  // namespace penumbra
