#include "core/debug_unit.h"

#include <algorithm>

namespace penumbra {

namespace {

constexpr bool overlap(uint64_t first, uint64_t bytes, uint64_t second, uint64_t second_bytes) {
  return first - second < second_bytes || second - first < bytes;
}

}  // namespace

DebugUnit::DebugUnit(VcpuState& state, SoftTlb& tlb) : state_(state), tlb_(tlb) {
  tlb_.set_watched(&watched_);
}

void DebugUnit::set_breakpoints(std::vector<LinearAddr> addresses) {
  std::ranges::sort(addresses);
  breakpoints_.swap(addresses);
  if (!listener_) return;
  for (const LinearAddr address : breakpoints_) {
    if (!std::ranges::binary_search(addresses, address)) listener_->breakpoint_added(address);
  }
  if (!std::ranges::includes(breakpoints_, addresses)) listener_->breakpoints_removed();
}

void DebugUnit::set_watchpoints(std::vector<Watchpoint> watchpoints) {
  if (watchpoints == watchpoints_) return;
  watchpoints_.swap(watchpoints);
  watch_pages();
}

DebugStop DebugUnit::take_stop() {
  const DebugStop stop = stop_;
  stop_ = {};
  return stop;
}

uint64_t DebugUnit::length(unsigned number) const {
  constexpr uint64_t kLengths[] = {1, 2, 8, 4};
  return kLengths[state_.dr[7] >> (18 + number * 4) & 3];
}

void DebugUnit::registers_changed() {
  const bool port_breakpoints = state_.cr4 & cr4::kDe;  // else R/W 10b is undefined
  const std::array<uint64_t, 8> seen = seen_;
  seen_ = state_.dr;
  const bool had_data = guest_data_;
  guest_instructions_ = guest_data_ = guest_ports_ = false;
  bool moved = false, removed = false;
  for (unsigned i = 0; i < 4; ++i) {
    const bool was_instruction = (seen[7] >> i * 2 & 3) != 0 && (seen[7] >> (16 + i * 4) & 3) == 0;
    const bool is_instruction = enabled(i) && condition(i) == Condition::Instruction;
    if (was_instruction && !(is_instruction && seen[i] == state_.dr[i])) removed = true;
    if (!enabled(i)) continue;
    switch (condition(i)) {
      case Condition::Instruction:
        guest_instructions_ = true;
        // An address that was enabled before may have been passed over since by no block: telling twice is
        // harmless.
        if (listener_ && (seen[i] != state_.dr[i] || seen[7] != state_.dr[7])) {
          listener_->breakpoint_added({state_.dr[i]});
        }
        break;
      case Condition::Port:
        guest_ports_ = guest_ports_ || port_breakpoints;
        break;
      default:
        guest_data_ = true;
        moved = moved || seen[i] != state_.dr[i];
        break;
    }
  }
  if (removed && listener_) listener_->breakpoints_removed();
  if (guest_data_ != had_data || (guest_data_ && (moved || seen[7] != state_.dr[7]))) watch_pages();
}

void DebugUnit::watch_pages() {
  watched_.clear();
  for (const Watchpoint& watchpoint : watchpoints_)
    watched_.add(watchpoint.address, watchpoint.bytes, watchpoint.reads);
  for (unsigned i = 0; i < 4; ++i) {
    if (!enabled(i) || (condition(i) != Condition::Write && condition(i) != Condition::Access)) continue;
    watched_.add({state_.dr[i] & ~(length(i) - 1)}, length(i), condition(i) == Condition::Access);
  }
  tlb_.flush_all();
}

bool DebugUnit::stops_at(LinearAddr address) const {
  return std::ranges::binary_search(breakpoints_, address);
}

void DebugUnit::note_stop(LinearAddr address) {
  stop_ = {.kind = DebugStop::Kind::Breakpoint, .address = address, .watchpoint = {}};
  attend();
}

bool DebugUnit::ends_block_before(LinearAddr address) const {
  return has_breakpoints() && (stops_at(address) || instruction_traps(address) != 0);
}

// Breakpoints that are met but not enabled show in DR6 too (SDM vol. 3, 17.2.3).
uint64_t DebugUnit::instruction_traps(LinearAddr address) const {
  if (!guest_instructions_) return 0;
  uint64_t met = 0;
  bool wanted = false;
  for (unsigned i = 0; i < 4; ++i) {
    if (condition(i) != Condition::Instruction || state_.dr[i] != address.value) continue;
    met |= 1u << i;
    wanted = wanted || enabled(i);
  }
  return wanted ? met : 0;
}

void DebugUnit::note_port(uint16_t port, unsigned size) {
  if (!guest_ports_) return;
  uint64_t met = 0;
  bool wanted = false;
  for (unsigned i = 0; i < 4; ++i) {
    if (condition(i) != Condition::Port) continue;
    if (!overlap(port, size, state_.dr[i] & ~(length(i) - 1), length(i))) continue;
    met |= 1u << i;
    wanted = wanted || enabled(i);
  }
  if (!wanted) return;
  pending_traps_ |= met;
  attend();
}

void DebugUnit::note_access(LinearAddr address, unsigned size, bool write) {
  for (const Watchpoint& watchpoint : watchpoints_) {
    if (!(write ? watchpoint.writes : watchpoint.reads)) continue;
    if (!overlap(address.value, size, watchpoint.address.value, watchpoint.bytes)) continue;
    if (stop_.kind == DebugStop::Kind::None) {
      stop_ = {.kind = DebugStop::Kind::Watchpoint,
               .address = {std::max(address.value, watchpoint.address.value)},
               .watchpoint = watchpoint};
    }
    attend();
    break;
  }
  if (!guest_data_) return;
  uint64_t met = 0;
  bool wanted = false;
  for (unsigned i = 0; i < 4; ++i) {
    if (condition(i) != Condition::Access && !(condition(i) == Condition::Write && write)) continue;
    if (!overlap(address.value, size, state_.dr[i] & ~(length(i) - 1), length(i))) continue;
    met |= 1u << i;
    wanted = wanted || enabled(i);
  }
  if (!wanted) return;
  pending_traps_ |= met;
  attend();
}

bool DebugUnit::meets(LinearAddr address, unsigned size, bool reads, bool writes) const {
  for (const Watchpoint& watchpoint : watchpoints_) {
    if (((writes && watchpoint.writes) || (reads && watchpoint.reads)) &&
        overlap(address.value, size, watchpoint.address.value, watchpoint.bytes)) {
      return true;
    }
  }
  for (unsigned i = 0; guest_data_ && i < 4; ++i) {
    const bool wanted = condition(i) == Condition::Access || (condition(i) == Condition::Write && writes);
    if (enabled(i) && wanted && overlap(address.value, size, state_.dr[i] & ~(length(i) - 1), length(i)))
      return true;
  }
  return false;
}

uint64_t DebugUnit::take_traps() {
  const uint64_t traps = pending_traps_;
  pending_traps_ = 0;
  // Only a stop has to go to the run loop.
  if (stop_.kind == DebugStop::Kind::None)
    state_.attention.fetch_and(~attention::kDebug, std::memory_order_relaxed);
  return traps;
}

void DebugUnit::forget_accesses() {
  if (stop_.kind == DebugStop::Kind::Watchpoint) stop_ = {};
  take_traps();
}

}  // namespace penumbra
