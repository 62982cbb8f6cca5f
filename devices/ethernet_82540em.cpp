#include "devices/ethernet_82540em.h"

#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "core/little_endian.h"
#include "devices/chip.h"
#include "devices/internet_checksum.h"

namespace penumbra {

namespace {

// --- Registers (table 13-2)

constexpr uint32_t kCtrl = 0x0000, kCtrlCopy = 0x0004, kStatus = 0x0008, kEecd = 0x0010, kEerd = 0x0014,
                   kCtrlExt = 0x0018, kMdic = 0x0020, kFcal = 0x0028, kVet = 0x0038, kIcr = 0x00c0,
                   kItr = 0x00c4, kIcs = 0x00c8, kIms = 0x00d0, kImc = 0x00d8, kRctl = 0x0100,
                   kFcttv = 0x0170, kTxcw = 0x0178, kTctl = 0x0400, kTipg = 0x0410, kAit = 0x0458,
                   kLedctl = 0x0e00, kPba = 0x1000, kFcrtl = 0x2160, kFcrth = 0x2168, kRdbal = 0x2800,
                   kRdlen = 0x2808, kRdh = 0x2810, kRdt = 0x2818, kRdtr = 0x2820, kRxdctl = 0x2828,
                   kRadv = 0x282c, kRsrpd = 0x2c00, kTxdmac = 0x3000, kTdbal = 0x3800, kTdlen = 0x3808,
                   kTdh = 0x3810, kTdt = 0x3818, kTidv = 0x3820, kTxdctl = 0x3828, kTadv = 0x382c,
                   kTspmt = 0x3830, kStatistics = 0x4000, kStatisticsEnd = 0x4100, kRxcsum = 0x5000,
                   kMta = 0x5200, kRal = 0x5400, kVfta = 0x5600, kWuc = 0x5800, kWufc = 0x5808,
                   kManc = 0x5820, kIpav = 0x5838, kIp4at = 0x5840, kIp6at = 0x5880;
// From RDBAL to the other registers of a ring; the transmit ring's are in the same order.
constexpr uint32_t kRingBaseHigh = 4;

// Statistics (13.7)
constexpr uint32_t kMpc = 0x4010, kPrc64 = 0x405c, kGprc = 0x4074, kBprc = 0x4078, kMprc = 0x407c,
                   kGptc = 0x4080, kGorcl = 0x4088, kGotcl = 0x4090, kRnbc = 0x40a0, kRoc = 0x40ac,
                   kTorl = 0x40c0, kTotl = 0x40c8, kTpr = 0x40d0, kTpt = 0x40d4, kPtc64 = 0x40d8,
                   kMptc = 0x40f0, kBptc = 0x40f4, kTsctc = 0x40f8;

// Registers that hold what software writes: from, to and with `last`, and the writable bits.
constexpr struct Stored {
  uint32_t first, last, writable, reset;
} kStored[] = {
    {kCtrl, kCtrl, 0xd83c'3b69, 0x0000'0201},  // FD, SPEED 1000
    {kEecd, kEecd, 0x0000'007f, 0x0000'0010},
    {kEerd, kEerd, 0xffff'ff1e, 0},
    {kCtrlExt, kCtrlExt, 0x00ff'ffff, 0},
    {kMdic, kMdic, 0x7fff'ffff, 0x1000'0000},
    {kFcal, kFcal + 8, 0xffff'ffff, 0},
    {kVet, kVet, 0x0000'ffff, 0x0000'8100},
    {kItr, kItr, 0x0000'ffff, 0},
    {kIms, kIms, 0x0001'ffff, 0},
    {kRctl, kRctl, 0x07ff'ffff, 0},
    {kFcttv, kFcttv, 0x0000'ffff, 0},
    {kTxcw, kTxcw, 0xffff'ffff, 0},
    {kTctl, kTctl, 0x03ff'fffa, 0},
    {kTipg, kTipg, 0x3fff'ffff, 0x0060'2008},
    {kAit, kAit, 0x0000'ffff, 0},
    {kLedctl, kLedctl, 0xffff'ffff, 0x0706'8302},
    {kPba, kPba, 0x0000'007f, 0x0010'0030},
    {kFcrtl, kFcrtl, 0x8000'fff8, 0},
    {kFcrth, kFcrth, 0x0000'fff8, 0},
    {kRdbal, kRdbal, 0xffff'fff0, 0},
    {kRdbal + kRingBaseHigh, kRdbal + kRingBaseHigh, 0xffff'ffff, 0},
    {kRdlen, kRdlen, 0x000f'ff80, 0},
    {kRdh, kRdh, 0x0000'ffff, 0},
    {kRdt, kRdt, 0x0000'ffff, 0},
    {kRdtr, kRdtr, 0x0000'ffff, 0},
    {kRxdctl, kRxdctl, 0x013f'3f3f, 0x0101'0000},
    {kRadv, kRadv, 0x0000'ffff, 0},
    {kRsrpd, kRsrpd, 0x0000'0fff, 0},
    {kTxdmac, kTxdmac, 0x0000'0001, 0},
    {kTdbal, kTdbal, 0xffff'fff0, 0},
    {kTdbal + kRingBaseHigh, kTdbal + kRingBaseHigh, 0xffff'ffff, 0},
    {kTdlen, kTdlen, 0x000f'ff80, 0},
    {kTdh, kTdh, 0x0000'ffff, 0},
    {kTdt, kTdt, 0x0000'ffff, 0},
    {kTidv, kTidv, 0x0000'ffff, 0},
    {kTxdctl, kTxdctl, 0xff3f'3f3f, 0},
    {kTadv, kTadv, 0x0000'ffff, 0},
    {kTspmt, kTspmt, 0xffff'ffff, 0x0100'0400},
    {kStatistics, kStatisticsEnd - 4, 0, 0},
    {kRxcsum, kRxcsum, 0x0000'07ff, 0},
    {kMta, kMta + 0x1fc, 0xffff'ffff, 0},
    {kRal, kRal + 0x7c, 0xffff'ffff, 0},
    {kVfta, kVfta + 0x1fc, 0xffff'ffff, 0},
    {kWuc, kWuc, 0x0000'000f, 0},
    {kWufc, kWufc, 0x000f'00ff, 0},
    {kManc, kManc, 0xffff'ffff, 0},
    {kIpav, kIpav, 0x0001'000f, 0},
    {kIp4at, kIp4at + 0x18, 0xffff'ffff, 0},
    {kIp6at, kIp6at + 0xc, 0xffff'ffff, 0},
};

const Stored* stored_register(uint32_t offset) {
  for (const Stored& range : kStored) {
    if (offset >= range.first && offset <= range.last) return &range;
  }
  return nullptr;
}

// CTRL (13.4.1), CTRL_EXT (13.4.6)
constexpr uint32_t kLinkReset = 1u << 3, kSoftwareReset = 1u << 26, kVlanMode = 1u << 30,
                   kPhyReset = 1u << 31, kEepromReset = 1u << 13;
// STATUS (13.4.2)
constexpr uint32_t kFullDuplex = 1u << 0, kLinkUp = 1u << 1, kTransmitOff = 1u << 4,
                   kSpeed1000 = 2u << 6 | 2u << 8;
// EECD (13.4.3), EERD (13.4.4)
constexpr uint32_t kSerialClock = 1u << 0, kSerialSelect = 1u << 1, kSerialIn = 1u << 2, kSerialOut = 1u << 3,
                   kSerialRequest = 1u << 6, kSerialGrant = 1u << 7, kEepromPresent = 1u << 8;
constexpr uint32_t kReadStart = 1u << 0, kReadDone = 1u << 4;
constexpr unsigned kSerialCommandBits = 9;  // a start bit, two of the operation, six of the address
constexpr unsigned kSerialRead = 2;
// MDIC (13.4.7)
constexpr uint32_t kMdiWrite = 1, kMdiRead = 2, kMdiReady = 1u << 28, kMdiInterrupt = 1u << 29,
                   kMdiError = 1u << 30;
constexpr unsigned kPhyAddress = 1;
// Interrupt causes (13.4.17)
constexpr uint32_t kTxdw = 1u << 0, kTxqe = 1u << 1, kLsc = 1u << 2, kRxdmt0 = 1u << 4, kRxt0 = 1u << 7,
                   kMdac = 1u << 9, kAllCauses = 0x0001'ffff;
constexpr Nanoseconds kItrUnit = 256;  // 13.4.18
// RCTL (13.4.22), RXCSUM (13.4.37)
constexpr uint32_t kReceiveEnable = 1u << 1, kUnicastAll = 1u << 3, kMulticastAll = 1u << 4,
                   kLongPackets = 1u << 5, kLoopback = 3u << 6, kBroadcast = 1u << 15, kVlanFilter = 1u << 18,
                   kSizeExtension = 1u << 25, kStripCrc = 1u << 26;
constexpr unsigned kThresholdShift = 8, kMulticastShift = 12, kSizeShift = 16;
constexpr uint32_t kIpChecksums = 1u << 8, kTcpChecksums = 1u << 9;
// TCTL (13.4.33)
constexpr uint32_t kTransmitEnable = 1u << 1, kPadShort = 1u << 3;
constexpr uint32_t kAddressValid = 1u << 31;  // RAH
constexpr unsigned kAddresses = 16;

// --- Descriptors

constexpr size_t kDescriptorBytes = 16;
// Transmit (3.3.3 to 3.3.7)
constexpr uint64_t kEop = 1u << 24, kInsertChecksum = 1u << 26, kSegment = 1u << 26, kReportStatus = 1u << 27,
                   kExtended = 1u << 29, kVlanInsert = 1u << 30;
constexpr uint64_t kTypeMask = 0xf << 20, kContextType = 0 << 20, kTcpContext = 1 << 24,
                   kIpv4Context = 1 << 25;
constexpr uint64_t kInsertIpSum = uint64_t{1} << 40, kInsertTcpSum = uint64_t{1} << 41;
constexpr uint64_t kDone = uint64_t{1} << 32;
// Receive status (3.2.3.1) and errors (3.2.3.2), as the descriptor's status and error bytes
constexpr uint16_t kRxDone = 1, kRxEop = 2, kRxIgnoreSums = 4, kRxVlan = 8, kRxTcpSum = 0x20, kRxIpSum = 0x40,
                   kRxInexact = 0x80, kRxTcpError = 0x2000, kRxIpError = 0x4000;

constexpr size_t kAddressBytes = 6, kHeaderBytes = 14, kTagBytes = 4, kShortest = 60, kFcsBytes = 4;
constexpr size_t kLongest = 1514, kLongestTransmit = 16'288 - kFcsBytes;
constexpr size_t kMostPayload = 0x4'0000;  // of a packet that is sent in segments
// Frames after which the guest's code goes on before the rest is sent.
constexpr unsigned kFramesAtOnce = 2048;

// --- PHY: the registers of IEEE 802.3, clause 22, and of the M88E1011 in the chip (13.4.7)

enum : unsigned {
  kPhyControl,
  kPhyStatus,
  kPhyId1,
  kPhyId2,
  kPhyAdvertised,
  kPhyPartner,
  kPhyExpansion,
  kPhyGigabitControl = 9,
  kPhyGigabitStatus,
  kPhyExtendedStatus = 15,
  kPhySpecificControl,
  kPhySpecificStatus,
};
constexpr uint16_t kPhySoftReset = 0x8000, kPhyLoopback = 0x4000, kPhyNegotiate = 0x1000,
                   kPhyPowerDown = 0x0800, kPhyRestart = 0x0200,
                   kPhySelfClearing = kPhySoftReset | kPhyRestart;
constexpr uint16_t kPhyLinkStatus = 0x0004, kPhyNegotiated = 0x0020;

constexpr struct {
  uint16_t reset, writable;
} kPhy[] = {
    {0x1140, 0x7dc0},  // autonegotiation, full duplex, 1000 Mb/s
    {0x7949, 0},       // all of 10 and 100 Mb/s, extended status, autonegotiation
    {0x0141, 0},      {0x0c20, 0},
    {0x0de1, 0xffff}, {0x0de1 | 0x4000, 0},  // a partner that can all of 10 and 100 Mb/s, and acknowledged
    {0x0001, 0},                             // the partner can negotiate
    {0x2001, 0xffff}, {0, 0xffff},
    {0x0300, 0xff00}, {0x3c00, 0},  // a partner with 1000BASE-T; both receivers work
    {0, 0},           {0, 0},
    {0, 0},           {0, 0},
    {0x3000, 0},                         // 1000BASE-T
    {0x0068, 0xffff},                    // crossover and speed by themselves
    {0xac08, 0},                         // 1000 Mb/s, full duplex, resolved, link
    {0, 0xffff},                         // interrupt enable
    {0, 0},           {0x0c68, 0xffff},  // extended control
};

// 5.6
std::array<uint16_t, Ethernet82540em::kEepromWords> make_eeprom(const MacAddress& address) {
  constexpr uint16_t kSum = 0xbaba;
  std::array<uint16_t, Ethernet82540em::kEepromWords> words;
  words.fill(0xffff);
  for (unsigned i = 0; i < 3; i++) words[i] = static_cast<uint16_t>(address[2 * i] | address[2 * i + 1] << 8);
  words[0x0a] = 0x4403;  // initialization control 1: valid, full duplex, the IDs are here
  words[0x0b] = 0x1100;
  words[0x0c] = 0x1af4;
  words[0x0d] = 0x100e;
  words[0x0e] = 0x8086;
  words[0x0f] = 0x3000;  // initialization control 2: pause frames both ways
  uint16_t sum = 0;
  for (unsigned i = 0; i + 1 < words.size(); i++) sum = static_cast<uint16_t>(sum + words[i]);
  words.back() = static_cast<uint16_t>(kSum - sum);
  return words;
}

uint16_t big16(std::span<const std::byte> bytes, size_t offset) {
  return static_cast<uint16_t>(static_cast<unsigned>(bytes[offset]) << 8 |
                               static_cast<unsigned>(bytes[offset + 1]));
}
void set_big16(std::span<std::byte> bytes, size_t offset, uint16_t value) {
  bytes[offset] = static_cast<std::byte>(value >> 8);
  bytes[offset + 1] = static_cast<std::byte>(value);
}

bool is_multicast(std::span<const std::byte> frame) {
  return static_cast<unsigned>(frame[0]) & 1;
}
bool is_broadcast(std::span<const std::byte> frame) {
  return std::ranges::all_of(frame.first(kAddressBytes),
                             [](std::byte byte) { return byte == std::byte{0xff}; });
}

// 3.6: the sum from `start` to and with `end` (0: the packet's end) goes to `offset`; nothing if that is not
// in the packet.
void insert_checksum(std::span<std::byte> packet, size_t start, size_t offset, size_t end, bool never_zero) {
  const size_t stop = end == 0 || end >= packet.size() ? packet.size() : end + 1;
  if (start >= stop || offset + 2 > packet.size()) return;
  const uint16_t sum = internet_checksum(packet.subspan(start, stop - start));
  set_big16(packet, offset, sum == 0 && never_zero ? 0xffff : sum);
}

}  // namespace

Ethernet82540em::Ethernet82540em(std::string name, PhysicalMap& map, IoBus& io, VirtualClock& clock,
                                 LineOutput interrupt, NetworkBackend& network, const MacAddress& address)
    : PciFunction({.vendor = 0x8086,
                   .device = 0x100e,
                   .revision = 3,
                   .class_code = 0x02'00'00,
                   .subsystem_vendor = 0x1af4,
                   .subsystem = 0x1100,
                   .interrupt_pin = 1}),
      name_(std::move(name)),
      dma_(map, config_),
      clock_(clock),
      interrupt_(std::move(interrupt)),
      network_(network),
      eeprom_(make_eeprom(address)),
      throttle_(clock, [this] { update_interrupt(); }),
      continue_(clock, [this] { transmit(); }) {
  const auto registers = map.add_pci_mmio(kRegisterBytes, *this, name_);
  config_.add_memory_base(0, kRegisterBytes, [&map, registers](std::optional<uint64_t> place) {
    map.place(registers, place ? std::optional(PhysAddr{*place}) : std::nullopt);
  });
  const auto window = io.add_window(kPorts, *this);
  config_.add_io_base(1, kPorts, [&io, window](std::optional<uint64_t> place) {
    io.place(window, place ? std::optional(static_cast<uint16_t>(*place)) : std::nullopt);
  });
  reset_registers();
  network_.set_receiver([this](std::span<const std::byte> frame) { return receive(frame); });
}

// --- Ways to the registers

// 13.2: all of them are 32 bits wide and written as a whole.
uint64_t Ethernet82540em::mmio_read(uint64_t offset, unsigned size) {
  const auto aligned = static_cast<uint32_t>(offset & ~uint64_t{3});
  if (size == 8) return read_register(aligned) | uint64_t{read_register(aligned + 4)} << 32;
  return read_register(aligned) >> offset % 4 * 8;
}

void Ethernet82540em::mmio_write(uint64_t offset, unsigned size, uint64_t value) {
  if (offset % 4 != 0 || size < 4) return;
  write_register(static_cast<uint32_t>(offset), static_cast<uint32_t>(value));
  if (size == 8) write_register(static_cast<uint32_t>(offset + 4), static_cast<uint32_t>(value >> 32));
}

constexpr uint16_t kIoAddress = 0, kIoData = 4;

uint32_t Ethernet82540em::read(uint16_t offset, unsigned size) {
  if (size != 4) return 0xffff'ffff;
  if (offset == kIoAddress) return io_address_;
  return offset == kIoData ? read_register(io_address_) : 0xffff'ffff;
}

void Ethernet82540em::write(uint16_t offset, unsigned size, uint32_t value) {
  if (size != 4) return;
  if (offset == kIoAddress) io_address_ = value & (kRegisterBytes - 4);
  if (offset == kIoData) write_register(io_address_, value);
}

uint32_t Ethernet82540em::read_register(uint32_t offset) {
  if (offset == kCtrlCopy) offset = kCtrl;
  switch (offset) {
    case kStatus:
      return kFullDuplex | kSpeed1000 | (link_up() ? kLinkUp : 0);
    case kEecd:
      return at(kEecd) | kEepromPresent | (at(kEecd) & kSerialRequest ? kSerialGrant : 0) |
             (serial_.out ? kSerialOut : 0);
    case kIcr: {
      const uint32_t causes = std::exchange(causes_, 0);
      update_interrupt();
      return causes;
    }
    case kIcs:
    case kImc:
      return 0;  // write-only
    default:
      break;
  }
  if (!stored_register(offset)) return 0;
  const uint32_t value = at(offset);
  // 13.7: statistics are cleared by being read.
  if (offset >= kStatistics && offset < kStatisticsEnd) at(offset) = 0;
  return value;
}

void Ethernet82540em::write_register(uint32_t offset, uint32_t value) {
  if (offset == kCtrlCopy) offset = kCtrl;
  switch (offset) {
    case kCtrl:
      return write_control(value);
    case kEecd:
      return write_eecd(value);
    case kIcr:
      causes_ &= ~value;
      return update_interrupt();
    case kIcs:
      return raise(value & kAllCauses);
    case kImc:
      at(kIms) &= ~value;
      return update_interrupt();
    case kIms:
      at(kIms) |= value & kAllCauses;
      return update_interrupt();
    case kMdic:
      return write_mdic(value);
    default:
      break;
  }
  const Stored* known = stored_register(offset);
  if (!known || known->writable == 0) return;
  at(offset) = (at(offset) & ~known->writable) | (value & known->writable);
  switch (offset) {
    case kEerd:
      at(kEerd) =
          (value & ~(kReadStart | kReadDone) & 0xffff) |
          (value & kReadStart ? kReadDone | uint32_t{eeprom_[(value >> 8 & 0xff) % kEepromWords]} << 16 : 0);
      break;
    case kCtrlExt:
      at(kCtrlExt) &= ~kEepromReset;  // done at once
      break;
    case kPba:
      at(kPba) = (value & 0x7f) | (64 - std::min(value & 0x7f, 64u))
                                      << 16;  // 13.4.16: the rest of 64 KiB transmits
      break;
    case kRctl:
    case kRdlen:
    case kRdt:
      network_.ready();
      break;
    case kTctl:
    case kTdt:
      transmit();
      break;
    default:
      break;
  }
}

// 13.7: a counter that is full stays so.
void Ethernet82540em::count(uint32_t statistic, uint64_t by) {
  at(statistic) = static_cast<uint32_t>(std::min<uint64_t>(at(statistic) + by, 0xffff'ffff));
}

void Ethernet82540em::count_octets(uint32_t low, uint64_t bytes) {
  const uint64_t total = (at(low) | uint64_t{at(low + 4)} << 32) + bytes;
  at(low) = static_cast<uint32_t>(total);
  at(low + 4) = static_cast<uint32_t>(total >> 32);
}

// `first`: the counter of packets of 64 bytes, which those for up to 127, 255, 511, 1023 and more follow.
void Ethernet82540em::count_size(uint32_t first, size_t bytes) {
  static constexpr size_t kUpTo[] = {64, 127, 255, 511, 1023};
  const auto index = std::ranges::lower_bound(kUpTo, bytes) - kUpTo;
  count(first + 4 * static_cast<uint32_t>(index));
}

// --- Control, EEPROM, PHY

void Ethernet82540em::write_control(uint32_t value) {
  if (value & kSoftwareReset) {
    reset_registers();
    return;
  }
  if (value & kPhyReset) reset_phy();
  const Stored& known = *stored_register(kCtrl);
  at(kCtrl) = value & known.writable & ~(kPhyReset | kLinkReset);
}

void Ethernet82540em::write_eecd(uint32_t value) {
  const Stored& known = *stored_register(kEecd);
  const bool rises = value & ~at(kEecd) & kSerialClock;
  at(kEecd) = value & known.writable & ~kSerialOut;
  if (!(value & kSerialSelect)) {
    serial_ = {};
  } else if (rises && serial_.command_bits == kSerialCommandBits) {
    if (!serial_.reading) return;
    serial_.out = eeprom_[serial_.address] >> (15 - serial_.data_bits) & 1;
    if (++serial_.data_bits == 16) {  // the next word follows
      serial_.data_bits = 0;
      serial_.address = (serial_.address + 1) % kEepromWords;
    }
  } else if (rises) {
    const bool in = value & kSerialIn;
    if (serial_.command_bits == 0 && !in) return;  // no start bit yet
    serial_.command = serial_.command << 1 | in;
    if (++serial_.command_bits < kSerialCommandBits) return;
    serial_.address = serial_.command % kEepromWords;
    serial_.reading = (serial_.command / kEepromWords & 3) == kSerialRead;
    serial_.out = false;  // a zero comes before the data
  }
}

void Ethernet82540em::write_mdic(uint32_t value) {
  const uint32_t operation = value >> 26 & 3, number = value >> 16 & 0x1f;
  uint32_t result = value & ~(kMdiReady | kMdiError);
  if ((value >> 21 & 0x1f) != kPhyAddress) {
    result |= kMdiError;
  } else if (operation == kMdiWrite) {
    write_phy(number, static_cast<uint16_t>(value));
  } else if (operation == kMdiRead) {
    result = (result & ~uint32_t{0xffff}) | read_phy(number);
  }
  at(kMdic) = result | kMdiReady;
  if (value & kMdiInterrupt) raise(kMdac);
}

bool Ethernet82540em::link_up() const {
  return !(phy_[kPhyControl] & kPhyPowerDown);
}

uint16_t Ethernet82540em::read_phy(unsigned number) const {
  if (number == kPhyStatus && link_up()) {
    const bool negotiated = phy_[kPhyControl] & kPhyNegotiate;
    return static_cast<uint16_t>(phy_[number] | kPhyLinkStatus | (negotiated ? kPhyNegotiated : 0));
  }
  return phy_[number];
}

void Ethernet82540em::write_phy(unsigned number, uint16_t value) {
  if (number >= std::size(kPhy)) return;
  if (number == kPhyControl && value & kPhySoftReset) return reset_phy();
  const bool was_up = link_up();
  phy_[number] =
      static_cast<uint16_t>((phy_[number] & ~kPhy[number].writable) | (value & kPhy[number].writable));
  if (number != kPhyControl) return;
  phy_[kPhyControl] &= static_cast<uint16_t>(~kPhySelfClearing);
  // A new negotiation takes the link down and up again.
  if (was_up != link_up() || (value & kPhyRestart && value & kPhyNegotiate)) raise(kLsc);
}

void Ethernet82540em::reset_phy() {
  phy_ = {};
  for (unsigned i = 0; i < std::size(kPhy); i++) phy_[i] = kPhy[i].reset;
}

// CTRL.RST (13.4.1) and power-on: all but the PCI configuration and the EEPROM.
void Ethernet82540em::reset_registers() {
  stored_ = {};
  for (const Stored& known : kStored) at(known.first) = known.reset;
  at(kRal) = eeprom_[0] | uint32_t{eeprom_[1]} << 16;
  at(kRal + 4) = eeprom_[2] | kAddressValid;
  reset_phy();
  causes_ = 0;
  next_interrupt_ = 0;
  offloads_[0] = offloads_[1] = {};
  outgoing_ = {};
  serial_ = {};
  continue_.cancel();
  update_interrupt();
}

// --- Interrupts

void Ethernet82540em::raise(uint32_t causes) {
  causes_ |= causes;
  update_interrupt();
}

void Ethernet82540em::update_interrupt() {
  if (!(causes_ & at(kIms))) {
    throttle_.cancel();
    return drive(false);
  }
  if (asserted_) return;
  const Nanoseconds now = clock_.now();
  if (now < next_interrupt_) {
    if (!throttle_.armed()) throttle_.arm(next_interrupt_);
    return;
  }
  throttle_.cancel();
  next_interrupt_ = now + at(kItr) * kItrUnit;
  drive(true);
}

void Ethernet82540em::drive(bool level) {
  if (asserted_ == level) return;
  asserted_ = level;
  interrupt_(level);
}

// --- Rings (3.2.6, 3.4)

uint32_t Ethernet82540em::ring_size(uint32_t length_register) const {
  return at(length_register) / kDescriptorBytes;
}

uint64_t Ethernet82540em::ring_base(uint32_t low_register) const {
  return at(low_register) | uint64_t{at(low_register + kRingBaseHigh)} << 32;
}

// --- Transmission (3.3)

void Ethernet82540em::transmit() {
  const uint32_t size = ring_size(kTdlen);
  if (transmitting_ || !(at(kTctl) & kTransmitEnable)) return;
  transmitting_ = true;
  continue_.cancel();
  uint32_t causes = 0;
  frames_sent_ = 0;
  // No more than a round: with a tail outside the ring there is no end.
  for (uint32_t taken = 0; taken < size && at(kTdh) < size && at(kTdh) != at(kTdt); taken++) {
    if (frames_sent_ > kFramesAtOnce) {
      continue_.arm(clock_.now());
      break;
    }
    const uint64_t address = ring_base(kTdbal) + at(kTdh) * kDescriptorBytes;
    std::array<std::byte, kDescriptorBytes> descriptor;
    if (!dma_.read(address, descriptor)) break;
    const auto first = load_field<uint64_t>(descriptor, 0), control = load_field<uint64_t>(descriptor, 8);
    const bool legacy = !(control & kExtended);
    if (!legacy && (control & kTypeMask) == kContextType) {
      take_context(first, control);
    } else {
      transmit_data(first, control, legacy);
    }
    if (control & kReportStatus) {
      const uint64_t done = control | kDone;
      if (!dma_.write(address + 8, std::as_bytes(std::span(&done, 1)))) break;
      causes |= kTxdw;
    }
    at(kTdh) = at(kTdh) + 1 == size ? 0 : at(kTdh) + 1;
    if (at(kTdh) == at(kTdt)) causes |= kTxqe;
  }
  transmitting_ = false;
  if (causes) raise(causes);
}

// 3.3.6
void Ethernet82540em::take_context(uint64_t first, uint64_t second) {
  Offload& offload = offloads_[second & kSegment ? 1 : 0];
  offload = {.ip_start = static_cast<uint8_t>(first),
             .ip_offset = static_cast<uint8_t>(first >> 8),
             .tcp_start = static_cast<uint8_t>(first >> 32),
             .tcp_offset = static_cast<uint8_t>(first >> 40),
             .header_bytes = static_cast<uint8_t>(second >> 40),
             .ip_end = static_cast<uint16_t>(first >> 16),
             .tcp_end = static_cast<uint16_t>(first >> 48),
             .segment_bytes = static_cast<uint16_t>(second >> 48),
             .tcp = (second & kTcpContext) != 0,
             .ipv4 = (second & kIpv4Context) != 0};
}

// 3.3.3 and 3.3.7. What all of a packet's descriptors share is in the first one.
void Ethernet82540em::transmit_data(uint64_t address, uint64_t control, bool legacy) {
  Outgoing& packet = outgoing_;
  if (!packet.started) {
    packet.started = true;
    packet.segmented = !legacy && control & kSegment && offloads_[1].segment_bytes != 0;
    packet.insert_ip = !legacy && control & kInsertIpSum;
    packet.insert_tcp = !legacy && control & kInsertTcpSum;
  }
  if (at(kCtrl) & kVlanMode && control & kVlanInsert) packet.tag = static_cast<uint16_t>(control >> 48);
  size_t left = legacy ? control & 0xffff : control & 0xf'ffff;
  while (left > 0) {
    size_t piece = left;
    std::vector<std::byte>* to = &packet.bytes;
    if (packet.segmented) {
      const Offload& offload = offloads_[1];
      const size_t header_left =
          offload.header_bytes - std::min<size_t>(offload.header_bytes, packet.header.size());
      if (header_left > 0) {
        to = &packet.header;
        piece = std::min(piece, header_left);
      } else {
        // A context descriptor may come between those of a packet.
        if (offload.segment_bytes == 0 || packet.payload_bytes + piece > kMostPayload) {
          packet.too_long = true;
          break;
        }
        // More payload than a segment's means that another one follows.
        if (packet.bytes.size() >= offload.segment_bytes) send_segments(false);
        piece = std::min<size_t>(piece, offload.segment_bytes - packet.bytes.size());
        packet.payload_bytes += piece;
      }
    } else if (packet.bytes.size() + piece > kLongestTransmit) {
      packet.too_long = true;
      break;
    }
    const size_t before = to->size();
    to->resize(before + piece);
    if (!dma_.read(address, std::span(*to).subspan(before))) packet.too_long = true;
    address += piece;
    left -= piece;
  }
  if (control & kEop) finish_packet(control, legacy);
}

void Ethernet82540em::finish_packet(uint64_t control, bool legacy) {
  Outgoing& packet = outgoing_;
  if (packet.too_long) {
    // A packet that the chip could not hold, or not read, is not sent.
  } else if (packet.segmented) {
    send_segments(true);
  } else {
    if (legacy && control & kInsertChecksum) {
      insert_checksum(packet.bytes, control >> 40 & 0xff, control >> 16 & 0xff, 0, false);
    }
    const Offload& offload = offloads_[0];
    if (packet.insert_tcp)
      insert_checksum(packet.bytes, offload.tcp_start, offload.tcp_offset, offload.tcp_end, !offload.tcp);
    if (packet.insert_ip)
      insert_checksum(packet.bytes, offload.ip_start, offload.ip_offset, offload.ip_end, false);
    send_frame(packet.bytes);
  }
  outgoing_ = {};
}

// 3.5.5 and 3.5.6: the header of each segment is the packet's with its lengths, numbers and flags adjusted,
// and its checksums made. Software left the TCP length out of the pseudo-header's sum.
void Ethernet82540em::send_segments(bool last) {
  Outgoing& packet = outgoing_;
  const Offload& offload = offloads_[1];
  std::vector<std::byte> frame = packet.header;
  frame.insert(frame.end(), packet.bytes.begin(), packet.bytes.end());
  packet.bytes.clear();
  const size_t ip = offload.ip_start, tcp = offload.tcp_start, size = frame.size();
  constexpr size_t kIpv4Length = 2, kIpv4Id = 4, kIpv6Length = 4, kIpv6Bytes = 40, kUdpLength = 4,
                   kSequence = 4, kFlags = 13;
  constexpr std::byte kFinAndPush{0x09};
  if (offload.ipv4 && ip + kIpv4Id + 2 <= size) {
    set_big16(frame, ip + kIpv4Length, static_cast<uint16_t>(size - ip));
    set_big16(frame, ip + kIpv4Id, static_cast<uint16_t>(big16(frame, ip + kIpv4Id) + packet.segments));
  } else if (!offload.ipv4 && ip + kIpv6Bytes <= size) {
    set_big16(frame, ip + kIpv6Length, static_cast<uint16_t>(size - ip - kIpv6Bytes));
  }
  if (offload.tcp && tcp + kFlags < size) {
    const uint32_t sequence =
        (uint32_t{big16(frame, tcp + kSequence)} << 16 | big16(frame, tcp + kSequence + 2)) +
        uint32_t{packet.segments} * offload.segment_bytes;
    set_big16(frame, tcp + kSequence, static_cast<uint16_t>(sequence >> 16));
    set_big16(frame, tcp + kSequence + 2, static_cast<uint16_t>(sequence));
    if (!last) frame[tcp + kFlags] &= ~kFinAndPush;
  } else if (!offload.tcp && tcp + kUdpLength + 2 <= size) {
    set_big16(frame, tcp + kUdpLength, static_cast<uint16_t>(size - tcp));
  }
  if (packet.insert_tcp && tcp <= size && size_t{offload.tcp_offset} + 2 <= size) {
    const uint32_t sum = big16(frame, offload.tcp_offset) + static_cast<uint32_t>(size - tcp);
    set_big16(frame, offload.tcp_offset, static_cast<uint16_t>((sum & 0xffff) + (sum >> 16)));
    insert_checksum(frame, tcp, offload.tcp_offset, offload.tcp_end, !offload.tcp);
  }
  if (packet.insert_ip) insert_checksum(frame, ip, offload.ip_offset, offload.ip_end, false);
  packet.segments++;
  if (last) count(kTsctc);
  send_frame(frame);
}

void Ethernet82540em::send_frame(std::vector<std::byte>& frame) {
  if (outgoing_.tag && frame.size() >= 2 * kAddressBytes) {
    std::byte tag[kTagBytes];
    set_big16(tag, 0, static_cast<uint16_t>(at(kVet)));
    set_big16(tag, 2, *outgoing_.tag);
    frame.insert(frame.begin() + 2 * kAddressBytes, std::begin(tag), std::end(tag));
  }
  if (frame.size() < kHeaderBytes) return;
  if (at(kTctl) & kPadShort && frame.size() < kShortest) frame.resize(kShortest);
  frames_sent_++;
  const size_t bytes = frame.size() + kFcsBytes;
  count(kTpt);
  count(kGptc);
  count_octets(kTotl, bytes);
  count_octets(kGotcl, bytes);
  count_size(kPtc64, bytes);
  if (is_broadcast(frame)) {
    count(kBptc);
  } else if (is_multicast(frame)) {
    count(kMptc);
  }
  if (at(kRctl) & kLoopback || phy_[kPhyControl] & kPhyLoopback) {
    receive(frame);
  } else if (link_up()) {
    network_.send(frame);
  }
}

// --- Reception (3.2)

size_t Ethernet82540em::buffer_bytes() const {
  const unsigned shift = at(kRctl) >> kSizeShift & 3;
  return at(kRctl) & kSizeExtension && shift != 0 ? size_t{32'768} >> shift : size_t{2048} >> shift;
}

// 3.2.1, 13.5
Ethernet82540em::Match Ethernet82540em::match(std::span<const std::byte> frame) const {
  const uint32_t control = at(kRctl);
  if (control & kVlanFilter && big16(frame, 2 * kAddressBytes) == at(kVet) &&
      frame.size() >= kHeaderBytes + kTagBytes) {
    const unsigned id = big16(frame, kHeaderBytes) & 0xfff;
    if (!(at(kVfta + id / 32 * 4) >> id % 32 & 1)) return Match::None;
  }
  const bool multicast = is_multicast(frame);
  if (multicast ? control & kMulticastAll : control & kUnicastAll) return Match::Exact;
  if (control & kBroadcast && is_broadcast(frame)) return Match::Exact;
  uint64_t address = 0;
  std::memcpy(&address, frame.data(), kAddressBytes);
  for (unsigned i = 0; i < kAddresses; i++) {
    const uint32_t high = at(kRal + 8 * i + 4);
    if (high & kAddressValid && (at(kRal + 8 * i) | uint64_t{high & 0xffff} << 32) == address)
      return Match::Exact;
  }
  if (!multicast) return Match::None;
  static constexpr unsigned kShifts[] = {4, 3, 2, 0};
  const unsigned hash =
      static_cast<unsigned>(address >> 32) >> kShifts[control >> kMulticastShift & 3] & 0xfff;
  return at(kMta + hash / 32 * 4) >> hash % 32 & 1 ? Match::Inexact : Match::None;
}

// 3.2.9: only what the chip understands is judged, IPv4 with or without TCP or UDP behind it.
uint16_t Ethernet82540em::checksum_status(std::span<const std::byte> frame) const {
  constexpr uint16_t kIpv4 = 0x0800;
  constexpr std::byte kTcp{6}, kUdp{17};
  const uint32_t enabled = at(kRxcsum);
  if (!(enabled & (kIpChecksums | kTcpChecksums))) return kRxIgnoreSums;
  if (frame.size() < kHeaderBytes + 20 || big16(frame, 2 * kAddressBytes) != kIpv4) return kRxIgnoreSums;
  const auto packet = frame.subspan(kHeaderBytes);
  const size_t header = (static_cast<unsigned>(packet[0]) & 15) * 4, length = big16(packet, 2);
  if (static_cast<unsigned>(packet[0]) >> 4 != 4 || header < 20 || length < header || length > packet.size())
    return kRxIgnoreSums;
  uint16_t status = 0;
  if (enabled & kIpChecksums) {
    status |= kRxIpSum;
    if (internet_checksum(packet.first(header)) != 0) status |= kRxIpError;
  }
  const bool fragment = (big16(packet, 6) & 0x3fff) != 0;
  const std::byte protocol = packet[9];
  if (!(enabled & kTcpChecksums) || fragment || (protocol != kTcp && protocol != kUdp)) return status;
  const auto segment = packet.subspan(header, length - header);
  if (segment.size() < 8) return status;
  if (protocol == kUdp && big16(segment, 6) == 0) return status;  // without a checksum
  const uint32_t pseudo = internet_sum(packet.subspan(12, 8)) + static_cast<uint32_t>(protocol) +
                          static_cast<uint32_t>(segment.size());
  status |= kRxTcpSum;
  if (internet_checksum(segment, static_cast<uint16_t>((pseudo & 0xffff) + (pseudo >> 16))) != 0)
    status |= kRxTcpError;
  return status;
}

bool Ethernet82540em::receive(std::span<const std::byte> frame) {
  if (!(at(kRctl) & kReceiveEnable) || !link_up() || frame.size() < kHeaderBytes) return true;
  const bool tagged = big16(frame, 2 * kAddressBytes) == at(kVet) && frame.size() >= kHeaderBytes + kTagBytes;
  const Match matched = match(frame);
  const uint32_t size = ring_size(kRdlen), head = at(kRdh), tail = at(kRdt);
  const size_t limit = at(kRctl) & kLongPackets ? kLongestTransmit : kLongest + (tagged ? kTagBytes : 0);
  if (matched != Match::None && frame.size() <= limit) {
    const size_t bytes = std::max(frame.size(), kShortest) + kFcsBytes;
    const size_t needed = (bytes + buffer_bytes() - 1) / buffer_bytes();
    if (head >= size || tail >= size || (tail + size - head) % size < needed) return false;
  }
  const size_t counted = std::max(frame.size(), kShortest) + kFcsBytes;
  count(kTpr);
  count_octets(kTorl, counted);
  if (matched == Match::None) return true;
  if (frame.size() > limit) {
    count(kRoc);
    return true;
  }
  count(kGprc);
  count_octets(kGorcl, counted);
  count_size(kPrc64, counted);
  if (is_broadcast(frame)) {
    count(kBprc);
  } else if (is_multicast(frame)) {
    count(kMprc);
  }

  uint16_t status = checksum_status(frame), special = 0;
  if (matched == Match::Inexact) status |= kRxInexact;
  const bool strip = tagged && at(kCtrl) & kVlanMode;  // 9.3
  scratch_.assign(frame.begin(), frame.end());
  if (scratch_.size() < kShortest) scratch_.resize(kShortest);
  const bool keeps_fcs = !(at(kRctl) & kStripCrc);
  const auto fcs = keeps_fcs ? static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(scratch_.data()),
                                                           static_cast<uInt>(scratch_.size())))
                             : 0;
  if (tagged) special = big16(scratch_, kHeaderBytes);
  if (strip) {
    scratch_.erase(scratch_.begin() + 2 * kAddressBytes, scratch_.begin() + 2 * kAddressBytes + kTagBytes);
    status |= kRxVlan;
  }
  if (keeps_fcs) {
    const auto bytes = std::as_bytes(std::span(&fcs, 1));
    scratch_.insert(scratch_.end(), bytes.begin(), bytes.end());
  }
  store_frame(status, strip ? special : 0);
  return true;
}

// 3.2.3: the frame in scratch_ goes to as many buffers as it needs; what is known of it stands in the last
// descriptor.
void Ethernet82540em::store_frame(uint16_t status, uint16_t special) {
  const uint32_t size = ring_size(kRdlen);
  const std::span<const std::byte> frame = scratch_;
  for (size_t done = 0; done < frame.size();) {
    const uint64_t address = ring_base(kRdbal) + at(kRdh) * kDescriptorBytes;
    const auto piece = frame.subspan(done, std::min(buffer_bytes(), frame.size() - done));
    done += piece.size();
    uint64_t buffer;
    if (!dma_.read(address, std::as_writable_bytes(std::span(&buffer, 1)))) return;
    // A buffer that is no memory loses its part of the frame.
    [[maybe_unused]] const bool stored = dma_.write(buffer, piece);
    const bool last = done == frame.size();
    const uint64_t known = last ? status | kRxEop | uint64_t{special} << 16 : kRxIgnoreSums;
    const uint64_t result = piece.size() | (known | kRxDone) << 32;
    if (!dma_.write(address + 8, std::as_bytes(std::span(&result, 1)))) return;
    at(kRdh) = at(kRdh) + 1 == size ? 0 : at(kRdh) + 1;
  }
  uint32_t causes = kRxt0;
  const uint32_t free = (at(kRdt) + size - at(kRdh)) % size;
  if (free <= size >> (1 + (at(kRctl) >> kThresholdShift & 3))) causes |= kRxdmt0;
  raise(causes);
}

// --- State

void Ethernet82540em::reset() {
  config_.reset();
  reset_registers();
  io_address_ = 0;
}

DeviceState Ethernet82540em::save() const {
  DeviceState registers = DeviceState::object();
  for (uint32_t offset = 0; offset < kStoredBytes; offset += 4) {
    if (at(offset)) registers[std::to_string(offset)] = at(offset);
  }
  DeviceState offloads = DeviceState::array();
  for (const Offload& offload : offloads_) {
    offloads.push_back({{"ip_start", offload.ip_start},
                        {"ip_offset", offload.ip_offset},
                        {"ip_end", offload.ip_end},
                        {"tcp_start", offload.tcp_start},
                        {"tcp_offset", offload.tcp_offset},
                        {"tcp_end", offload.tcp_end},
                        {"header_bytes", offload.header_bytes},
                        {"segment_bytes", offload.segment_bytes},
                        {"tcp", offload.tcp},
                        {"ipv4", offload.ipv4}});
  }
  return {{"version", 1},
          {"config", config_.save()},
          {"registers", registers},
          {"phy", phy_},
          {"io_address", io_address_},
          {"causes", causes_},
          {"asserted", asserted_},
          {"next_interrupt", next_interrupt_},
          {"throttled", throttle_.armed()},
          {"continues", continue_.armed()},
          {"offloads", offloads},
          {"outgoing",
           {{"started", outgoing_.started},
            {"segmented", outgoing_.segmented},
            {"insert_ip", outgoing_.insert_ip},
            {"insert_tcp", outgoing_.insert_tcp},
            {"too_long", outgoing_.too_long},
            {"segments", outgoing_.segments},
            {"payload_bytes", outgoing_.payload_bytes},
            {"tag", outgoing_.tag ? DeviceState(*outgoing_.tag) : DeviceState(nullptr)},
            {"bytes", to_hex(outgoing_.bytes)},
            {"header", to_hex(outgoing_.header)}}},
          {"serial",
           {{"command_bits", serial_.command_bits},
            {"command", serial_.command},
            {"address", serial_.address},
            {"data_bits", serial_.data_bits},
            {"reading", serial_.reading},
            {"out", serial_.out}}}};
}

void Ethernet82540em::load(const DeviceState& state) {
  require_version(state, 1, name());
  decltype(stored_) registers{};
  for (const auto& [key, value] : state.at("registers").items()) {
    uint32_t offset = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), offset);
    if (error != std::errc() || end != key.data() + key.size() || offset % 4 != 0 || !stored_register(offset))
      throw std::invalid_argument("saved 82540EM: no such register");
    registers[offset / 4] = value.get<uint32_t>();
  }
  // Their values steer shifts and rings.
  registers[kRdlen / 4] &= stored_register(kRdlen)->writable;
  registers[kTdlen / 4] &= stored_register(kTdlen)->writable;
  const auto phy = state.at("phy").get<decltype(phy_)>();
  const auto io_address = bounded(state, "io_address", kRegisterBytes - 4);
  const auto causes = bounded(state, "causes", kAllCauses);
  const auto next_interrupt = bounded(state, "next_interrupt", clock_.now() + 0xffff * kItrUnit);
  Offload offloads[2];
  for (unsigned i = 0; i < 2; i++) {
    const DeviceState& saved = state.at("offloads").at(i);
    const auto byte = [&saved](const char* member) {
      return static_cast<uint8_t>(bounded(saved, member, 0xff));
    };
    const auto word = [&saved](const char* member) {
      return static_cast<uint16_t>(bounded(saved, member, 0xffff));
    };
    offloads[i] = {.ip_start = byte("ip_start"),
                   .ip_offset = byte("ip_offset"),
                   .tcp_start = byte("tcp_start"),
                   .tcp_offset = byte("tcp_offset"),
                   .header_bytes = byte("header_bytes"),
                   .ip_end = word("ip_end"),
                   .tcp_end = word("tcp_end"),
                   .segment_bytes = word("segment_bytes"),
                   .tcp = saved.at("tcp").get<bool>(),
                   .ipv4 = saved.at("ipv4").get<bool>()};
  }
  const DeviceState& sent = state.at("outgoing");
  const auto to_bytes = [](const std::string& text) {
    const auto bytes = std::as_bytes(std::span(text));
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  };
  Outgoing outgoing{.started = sent.at("started").get<bool>(),
                    .segmented = sent.at("segmented").get<bool>(),
                    .insert_ip = sent.at("insert_ip").get<bool>(),
                    .insert_tcp = sent.at("insert_tcp").get<bool>(),
                    .too_long = sent.at("too_long").get<bool>(),
                    .segments = static_cast<uint16_t>(bounded(sent, "segments", 0xffff)),
                    .payload_bytes = static_cast<size_t>(bounded(sent, "payload_bytes", kMostPayload)),
                    .tag = {},
                    .bytes = to_bytes(saved_bytes(sent, "bytes", 0, 0xffff)),
                    .header = to_bytes(saved_bytes(sent, "header", 0, 0xff))};
  if (!sent.at("tag").is_null()) outgoing.tag = static_cast<uint16_t>(bounded(sent, "tag", 0xffff));
  const DeviceState& wire = state.at("serial");
  const Serial serial{
      .command_bits = static_cast<unsigned>(bounded(wire, "command_bits", kSerialCommandBits)),
      .command = static_cast<unsigned>(bounded(wire, "command", (1u << kSerialCommandBits) - 1)),
      .address = static_cast<unsigned>(bounded(wire, "address", kEepromWords - 1)),
      .data_bits = static_cast<unsigned>(bounded(wire, "data_bits", 15)),
      .reading = wire.at("reading").get<bool>(),
      .out = wire.at("out").get<bool>()};
  const bool asserted = state.at("asserted").get<bool>(), throttled = state.at("throttled").get<bool>(),
             continues = state.at("continues").get<bool>();
  config_.load(state.at("config"));
  stored_ = registers;
  phy_ = phy;
  io_address_ = static_cast<uint32_t>(io_address) & ~3u;
  causes_ = static_cast<uint32_t>(causes);
  asserted_ = asserted;
  next_interrupt_ = next_interrupt;
  throttled ? throttle_.arm(next_interrupt_) : throttle_.cancel();
  continues ? continue_.arm(clock_.now()) : continue_.cancel();
  std::ranges::copy(offloads, offloads_);
  outgoing_ = std::move(outgoing);
  serial_ = serial;
}

}  // namespace penumbra
