// A virtio memory balloon: pages that the driver puts into it are the host's again, until the guest touches
// them.
//
// Virtual I/O Device (VIRTIO) 1.1 (OASIS), 5.5. Not modelled: page poisoning, reporting of free pages.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <utility>

#include "devices/virtio_device.h"

namespace penumbra {

class VirtioBalloon : public VirtioDevice {
 public:
  static constexpr uint64_t kPageBytes = 4096;
  // What the driver says of its memory, by tag (5.5.6.4); all ones: it does not say. The last two are
  // Linux' own.
  static constexpr unsigned kStatistics = 10;
  static constexpr uint64_t kNotSaid = ~uint64_t{0};
  using Statistics = std::array<uint64_t, kStatistics>;

  explicit VirtioBalloon(PhysicalMap& map) : map_(map) {}

  // How many bytes the guest is asked to put into it, in whole pages, and how many its driver says that it
  // holds.
  void set_wanted(uint64_t bytes);
  uint64_t held() const { return actual_ * kPageBytes; }
  // Asks the driver what it says now. False: it has not answered the last question, or does not know of such.
  bool request_statistics();
  const Statistics& statistics() const { return statistics_; }

  // Told when held() may have changed, perhaps more than once; and when the driver has said something.
  void set_size_listener(std::function<void()> listener) { size_listener_ = std::move(listener); }
  void set_statistics_listener(std::function<void()> listener) { statistics_listener_ = std::move(listener); }

  std::string_view name() const override { return "virtio_balloon"; }
  Kind kind() const override { return {.type = 5, .transitional_pci_id = 0x1002, .pci_class = 0x00'ff'00}; }
  uint64_t features() const override;
  std::vector<uint16_t> queue_sizes() const override;
  uint8_t read_configuration(unsigned offset) const override;
  void write_configuration(unsigned offset, uint8_t value) override;
  void notified(unsigned queue) override;
  void reset() override;
  DeviceState save() const override;
  void load(const DeviceState& state) override;

 private:
  static constexpr Statistics nothing_said() {
    Statistics statistics{};
    statistics.fill(kNotSaid);
    return statistics;
  }
  void inflate(const VirtqueueBuffer& buffer);
  void read_statistics(const VirtqueueBuffer& buffer);
  void tell_size();

  PhysicalMap& map_;
  uint32_t wanted_ = 0, actual_ = 0;  // pages
  std::function<void()> size_listener_, statistics_listener_;
  Statistics statistics_ = nothing_said();
  std::optional<uint16_t> question_;  // the head of the buffer that goes back to ask for the next ones
};

}  // namespace penumbra
