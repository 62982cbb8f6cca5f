// A driver of today for a virtio device on PCI: its registers at kModern, split queues in memory, no MSI-X.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "devices/virtio_pci.h"
#include "tests/devices/chip_fixture.h"

namespace penumbra {

class VirtioDriverTest : public testing::Test {
 protected:
  static constexpr uint64_t kModern = 0xfe00'0000, kDevice = kModern + 0x2000, kNotify = kModern + 0x3000;
  static constexpr uint16_t kNext = 1, kWrite = 2;
  static constexpr uint64_t kVersion1 = uint64_t{1} << 32;
  static constexpr uint16_t kEntries = 8;
  static constexpr uint64_t kData = 0x4'0000;

  // The device's functions are at its places from here on; `make` is given the map.
  template <class Make>
  auto& plug_in(Make make) {
    auto device = make(map_);
    auto& made = *device;
    pci_ = std::make_unique<VirtioPci>("device", std::move(device), map_, io_, line_.input(),
                                       [](uint64_t, uint32_t) {});
    pci_->config().write(0x20, 4, kModern);
    pci_->config().write(0x04, 2, 7);
    return made;
  }

  static uint64_t descriptors(unsigned queue) { return 0x1'0000 + queue * 0x4000; }
  static uint64_t available(unsigned queue) { return descriptors(queue) + 0x1000; }
  static uint64_t used(unsigned queue) { return descriptors(queue) + 0x2000; }
  uint64_t get(uint64_t address, unsigned size) { return map_.read({address}, size); }
  void set(uint64_t address, unsigned size, uint64_t value) { map_.write({address}, size, value); }

  void start(uint64_t features, unsigned queues) {
    set(kModern + 20, 1, 0);
    set(kModern + 20, 1, 3);
    for (unsigned half = 0; half < 2; half++) {
      set(kModern + 8, 4, half);
      set(kModern + 12, 4, features >> 32 * half & 0xffff'ffff);
    }
    set(kModern + 20, 1, 11);
    ASSERT_EQ(get(kModern + 20, 1), 11u);
    for (unsigned queue = 0; queue < queues; queue++) {
      set(kModern + 22, 2, queue);
      set(kModern + 24, 2, kEntries);
      set(kModern + 32, 8, descriptors(queue));
      set(kModern + 40, 8, available(queue));
      set(kModern + 48, 8, used(queue));
      set(kModern + 28, 2, 1);
    }
    set(kModern + 20, 1, 15);
  }
  void descriptor(unsigned queue, unsigned index, uint64_t address, uint32_t bytes, uint16_t flags,
                  uint16_t next = 0) {
    const uint64_t at = descriptors(queue) + 16 * index;
    set(at, 8, address);
    set(at + 8, 4, bytes);
    set(at + 12, 2, flags);
    set(at + 14, 2, next);
  }
  void offer(unsigned queue, uint16_t head) {
    const uint64_t index = get(available(queue) + 2, 2);
    set(available(queue) + 4 + 2 * (index % kEntries), 2, head);
    set(available(queue) + 2, 2, index + 1);
  }
  void notify(unsigned queue) {
    set(kModern + 22, 2, queue);
    set(kNotify + get(kModern + 30, 2) * 4, 2, queue);
  }
  // A readable buffer of one piece, which is offered.
  void offer_text(unsigned queue, std::string_view text) {
    map_.write_bytes({kData}, std::as_bytes(std::span(text)));
    descriptor(queue, 0, kData, static_cast<uint32_t>(text.size()), 0);
    offer(queue, 0);
    notify(queue);
  }
  uint64_t used_count(unsigned queue) { return get(used(queue) + 2, 2); }
  uint64_t used_bytes(unsigned queue, unsigned entry) {
    return get(used(queue) + 8 + 8 * (entry % kEntries), 4);
  }
  std::string text(uint64_t address, size_t bytes) {
    std::string result(bytes, '\0');
    map_.read_bytes({address}, std::as_writable_bytes(std::span(result)));
    return result;
  }

  PhysicalMap map_{uint64_t{1} << 20};
  IoBus io_;
  TestLine line_;
  std::unique_ptr<VirtioPci> pci_;
};

}  // namespace penumbra
