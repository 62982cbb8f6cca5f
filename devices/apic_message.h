// An interrupt message on its way to local APICs: from an I/O APIC, an MSI, or an interprocessor interrupt.
#pragma once

#include <cstdint>
#include <functional>

namespace penumbra {

struct ApicMessage {
  // SDM vol. 3, 10.6.1 and 10.11.2
  enum Delivery : uint8_t {
    kFixed = 0,
    kLowestPriority = 1,
    kSmi = 2,
    kNmi = 4,
    kInit = 5,
    kStartUp = 6,
    kExtInt = 7
  };
  uint8_t destination = 0;
  bool logical = false;
  uint8_t delivery = kFixed;
  uint8_t vector = 0;
  bool level = false;  // trigger mode

  // A device's write there is an interrupt.
  static constexpr bool is_at(uint64_t address) { return address >> 20 == 0xfee; }
  // Of the address and data that a device writes (SDM vol. 3, 10.11).
  static ApicMessage from_msi(uint64_t address, uint32_t data) {
    return {.destination = static_cast<uint8_t>(address >> 12),
            .logical = (address & 4) != 0,
            .delivery = static_cast<uint8_t>(data >> 8 & 7),
            .vector = static_cast<uint8_t>(data),
            .level = (data & 0x8000) != 0};
  }
  static bool is_nmi(uint64_t address, uint32_t data) {
    return is_at(address) && from_msi(address, data).delivery == kNmi;
  }
};

using ApicMessageSink = std::function<void(const ApicMessage& message)>;

}  // namespace penumbra
