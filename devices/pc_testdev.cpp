#include "devices/pc_testdev.h"

#include <utility>

namespace penumbra {

namespace {
constexpr PhysAddr kScratch{0xff00'0000};
constexpr uint64_t kScratchBytes = 0x1'0000;

// Which of the latches' bytes is there; negative: none.
int latch_at(unsigned offset) {
  for (const auto& [first, index] :
       {std::pair{PcTestdev::kLatch, 0}, {PcTestdev::kByteLatch, PcTestdev::kLatchPorts}}) {
    if (offset >= first && offset < first + unsigned{PcTestdev::kLatchPorts})
      return static_cast<int>(offset) - first + index;
  }
  return -1;
}
}  // namespace

PcTestdev::PcTestdev(PhysicalMap& map, std::function<void(unsigned line, bool level)> interrupt)
    : interrupt_(std::move(interrupt)) {
  map.place(map.add_pci_ram(kScratchBytes, written_, "pc-testdev"), kScratch);
}

uint32_t PcTestdev::read(uint16_t offset, unsigned size) {
  uint32_t value = 0;
  for (unsigned i = 0; i < size; i++) {
    const int latch = latch_at(offset + i);
    value |= uint32_t{latch >= 0 ? latches_[static_cast<size_t>(latch)] : uint8_t{0xff}} << 8 * i;
  }
  return value;
}

void PcTestdev::write(uint16_t offset, unsigned size, uint32_t value) {
  if (offset < kLineCount) return drive(offset, value != 0);
  for (unsigned i = 0; i < size; i++) {
    const int latch = latch_at(offset + i);
    if (latch >= 0) latches_[static_cast<size_t>(latch)] = static_cast<uint8_t>(value >> 8 * i);
  }
}

void PcTestdev::drive(unsigned line, bool level) {
  const uint32_t before = lines_;
  lines_ = level ? lines_ | 1u << line : lines_ & ~(1u << line);
  if (lines_ != before) interrupt_(line, level);
}

void PcTestdev::reset() {
  latches_.fill(0);
  for (unsigned line = 0; line < kLineCount; line++) drive(line, false);
}

DeviceState PcTestdev::save() const {
  return {{"version", 1}, {"lines", lines_}, {"latches", latches_}};
}

void PcTestdev::load(const DeviceState& state) {
  require_version(state, 1, name());
  const auto lines = bounded(state, "lines", (1u << kLineCount) - 1);
  state.at("latches").get_to(latches_);
  lines_ = static_cast<uint32_t>(lines);
}

}  // namespace penumbra
