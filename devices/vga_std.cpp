#include "devices/vga_std.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <string_view>

#include "devices/chip.h"
#include "devices/edid.h"

namespace penumbra {

namespace {

using R = VgaRegisters;

// Ports
constexpr uint16_t kAttributePort = 0x3c0, kAttributeRead = 0x3c1, kMiscellaneousWrite = 0x3c2,
                   kSequencerIndex = 0x3c4, kSequencerData = 0x3c5, kPelMask = 0x3c6, kDacReadIndex = 0x3c7,
                   kDacWriteIndex = 0x3c8, kDacData = 0x3c9, kFeatureRead = 0x3ca, kMiscellaneousRead = 0x3cc,
                   kGraphicsIndex = 0x3ce, kGraphicsData = 0x3cf;
// These are at 3Bxh in monochrome modes, at 3Dxh in colour.
constexpr uint16_t kCrtcIndex = 0x3d4, kCrtcData = 0x3d5, kStatus = 0x3da, kMonochromeAlias = 0x20;

constexpr uint8_t kDisplayDisabled = 0x01, kVerticalRetrace = 0x08;  // input status 1
constexpr uint8_t kCrtcProtect = 0x80, kProtected = 7, kLineCompareBit8 = 0x10;
constexpr uint8_t kPaletteAddressSource = 0x20;

constexpr uint8_t kSequencerBits[R::kSequencers] = {0x03, 0x3d, 0x0f, 0x3f, 0x0e};
constexpr uint8_t kGraphicsBits[R::kGraphics] = {0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff};

// DISPI
constexpr uint16_t kDispiVersion = 0xb0c5, kDispiOldest = 0xb0c0;
constexpr uint16_t kMostX = 16000, kMostY = 12000, kMostBits = 32;
constexpr uint64_t kBankBytes = 64 * 1024;
constexpr uint16_t kEnableBits =
    R::kDispiEnabled | R::kDispiCapabilities | R::kDispiDac8 | R::kDispiLinear | R::kDispiKeepMemory;

// Base address 2
constexpr uint64_t kRegistersBytes = 4096, kMmioPorts = 0x400, kMmioPortsEnd = 0x420, kMmioDispi = 0x500,
                   kMmioExtended = 0x600, kMmioByteOrder = 0x604;
constexpr uint32_t kExtendedBytes = 8, kLittleEndian = 0x1e1e'1e1e;

// A bit of each plane to all bits of its byte.
constexpr uint32_t spread(unsigned planes) {
  uint32_t mask = 0;
  for (unsigned plane = 0; plane < 4; ++plane) {
    if (planes >> plane & 1) mask |= 0xffu << 8 * plane;
  }
  return mask;
}

constexpr uint32_t in_all_planes(uint8_t value) {
  return value * 0x0101'0101u;
}

}  // namespace

VgaStd::VgaStd(VirtualClock& clock, PhysicalMap& map, std::span<const std::byte> rom)
    : PciFunction({.vendor = 0x1234,
                   .device = 0x1111,
                   .revision = 2,
                   .class_code = 0x03'00'00,
                   .subsystem_vendor = 0x1af4,
                   .subsystem = 0x1100}),
      clock_(clock),
      map_(map),
      frame_buffer_(map.add_pci_ram(kMemoryBytes, changed_, "VGA memory")),
      memory_(map.device_ram(frame_buffer_)) {
  const auto placement = [this](PhysicalMap::RegionId region) {
    return [this, region](std::optional<uint64_t> address) {
      map_.place(region, address ? std::optional(PhysAddr{*address}) : std::nullopt);
    };
  };
  config_.add_memory_base(0, kMemoryBytes, placement(frame_buffer_), false, true);
  config_.add_memory_base(2, kRegistersBytes,
                          placement(map.add_pci_mmio(kRegistersBytes, registers_window_, "VGA registers")));
  add_rom(map, rom);
  map.add_mmio(PhysAddr{kWindow}, kWindowBytes, window_, "VGA window");
  reset();
}

void VgaStd::reset() {
  config_.reset();
  registers_ = {};
  registers_.dispi[R::kDispiId] = kDispiVersion;
  registers_.dispi[R::kMemory64k] = static_cast<uint16_t>(kMemoryBytes / kBankBytes);
  sequencer_index_ = graphics_index_ = crtc_index_ = attribute_index_ = 0;
  attribute_data_next_ = dac_reading_ = false;
  dac_read_index_ = dac_write_index_ = dac_component_ = 0;
  dac_pending_ = {};
  dispi_index_ = 0;
  latches_ = 0;
  change();
}

// --- ports

uint32_t VgaStd::read(uint16_t offset, unsigned size) {
  if (offset == kDispiIndex && size == 2) return dispi_index_;
  if (offset == kDispiData && size == 2) return dispi_read();
  uint32_t value = 0;
  for (unsigned i = 0; i < size; ++i) {
    const unsigned at = offset + i;
    value |= uint32_t{at < kLegacyPorts ? read_port(static_cast<uint16_t>(kFirstPort + at)) : uint8_t{0xff}}
             << 8 * i;
  }
  return value;
}

void VgaStd::write(uint16_t offset, unsigned size, uint32_t value) {
  if (offset == kDispiIndex && size == 2) {
    dispi_index_ = static_cast<uint16_t>(value);
  } else if (offset == kDispiData && size == 2) {
    dispi_write(static_cast<uint16_t>(value));
  } else {
    for (unsigned i = 0; i < size && offset + i < kLegacyPorts; ++i) {
      write_port(static_cast<uint16_t>(kFirstPort + offset + i), static_cast<uint8_t>(value >> 8 * i));
    }
  }
}

// Of the two places of the CRTC's ports there is one at a time.
bool VgaStd::decodes(uint16_t port) const {
  if (port >= 0x3c0 && port < 0x3d0) return true;
  const bool color = registers_.miscellaneous & R::kMiscColor;
  return color == (port >= 0x3d0);
}

uint8_t VgaStd::read_port(uint16_t port) {
  if (!decodes(port)) return 0xff;
  if (port < 0x3c0) port += kMonochromeAlias;
  switch (port) {
    case kAttributePort:
      return static_cast<uint8_t>(attribute_index_ |
                                  (registers_.palette_address_source ? kPaletteAddressSource : 0));
    case kAttributeRead:
      return attribute_index_ < R::kAttributes ? registers_.attribute[attribute_index_] : 0;
    case kMiscellaneousWrite:
      return 0;  // input status 0: no retrace interrupt, the switch sense
    case kSequencerIndex:
      return sequencer_index_;
    case kSequencerData:
      return sequencer_index_ < R::kSequencers ? registers_.sequencer[sequencer_index_] : 0;
    case kPelMask:
      return registers_.pel_mask;
    case kDacReadIndex:
      return dac_reading_ ? 3 : 0;
    case kDacWriteIndex:
      return dac_write_index_;
    case kDacData:
      return dac_read();
    case kFeatureRead:
      return registers_.feature;
    case kMiscellaneousRead:
      return registers_.miscellaneous;
    case kGraphicsIndex:
      return graphics_index_;
    case kGraphicsData:
      return graphics_index_ < R::kGraphics ? registers_.graphics[graphics_index_] : 0;
    case kCrtcIndex:
      return crtc_index_;
    case kCrtcData:
      return crtc_index_ < R::kCrtcs ? registers_.crtc[crtc_index_] : 0;
    case kStatus:
      attribute_data_next_ = false;
      return status();
    default:
      return 0xff;
  }
}

void VgaStd::write_port(uint16_t port, uint8_t value) {
  if (!decodes(port)) return;
  if (port < 0x3c0) port += kMonochromeAlias;
  switch (port) {
    case kAttributePort:
      return write_attribute(value);
    case kMiscellaneousWrite:
      registers_.miscellaneous = value;
      return change();
    case kSequencerIndex:
      sequencer_index_ = value & 7;
      return;
    case kSequencerData:
      if (sequencer_index_ >= R::kSequencers) return;
      registers_.sequencer[sequencer_index_] = value & kSequencerBits[sequencer_index_];
      return change();
    case kPelMask:
      registers_.pel_mask = value;
      return change();
    case kDacReadIndex:
      dac_read_index_ = value;
      dac_component_ = 0;
      dac_reading_ = true;
      return;
    case kDacWriteIndex:
      dac_write_index_ = value;
      dac_component_ = 0;
      dac_reading_ = false;
      return;
    case kDacData:
      return dac_write(value);
    case kGraphicsIndex:
      graphics_index_ = value & 0x0f;
      return;
    case kGraphicsData:
      if (graphics_index_ >= R::kGraphics) return;
      registers_.graphics[graphics_index_] = value & kGraphicsBits[graphics_index_];
      return change();
    case kCrtcIndex:
      crtc_index_ = value & 0x3f;
      return;
    case kCrtcData:
      return write_crtc(value);
    case kStatus:
      registers_.feature = value;
      return;
    default:
      return;
  }
}

void VgaStd::write_crtc(uint8_t value) {
  if (crtc_index_ >= R::kCrtcs) return;
  uint8_t& at = registers_.crtc[crtc_index_];
  if (crtc_index_ <= kProtected && registers_.crtc[R::kRetraceEnd] & kCrtcProtect) {
    // Of the protected registers, only the line compare bit in the overflow register can be written.
    if (crtc_index_ != R::kOverflow) return;
    value = static_cast<uint8_t>((at & ~kLineCompareBit8) | (value & kLineCompareBit8));
  }
  at = value;
  change();
}

void VgaStd::write_attribute(uint8_t value) {
  if (!attribute_data_next_) {
    attribute_index_ = value & 0x1f;
    registers_.palette_address_source = value & kPaletteAddressSource;
  } else if (attribute_index_ < R::kAttributes) {
    registers_.attribute[attribute_index_] = attribute_index_ < R::kAttributeMode ? value & 0x3f : value;
  }
  attribute_data_next_ = !attribute_data_next_;
  change();
}

uint8_t VgaStd::dac_read() {
  const uint8_t value = registers_.dac[dac_read_index_ * 3u + dac_component_];
  if (++dac_component_ == 3) {
    dac_component_ = 0;
    ++dac_read_index_;
  }
  return value;
}

// The three components take effect together.
void VgaStd::dac_write(uint8_t value) {
  dac_pending_[dac_component_] = value;
  if (++dac_component_ < 3) return;
  dac_component_ = 0;
  std::ranges::copy(dac_pending_, &registers_.dac[dac_write_index_++ * 3u]);
  change();
}

// Where the beam is, from the CRTC's totals and the dot clock; programs wait for retraces.
uint8_t VgaStd::status() {
  const auto& crtc = registers_.crtc;
  const uint8_t overflow = crtc[R::kOverflow];
  constexpr Nanoseconds kSecond = 1'000'000'000;
  const uint64_t dot_clock = (registers_.miscellaneous >> 2 & 3) == 1 ? 28'322'000 : 25'175'000;
  const unsigned clocks = registers_.sequencer[R::kClockingMode] & R::kHalfDotClock ? 2 : 1;
  const unsigned dots = (registers_.sequencer[R::kClockingMode] & R::kEightDots ? 8 : 9) * clocks;
  const unsigned characters = crtc[R::kHorizontalTotal] + 5u, shown = crtc[R::kHorizontalEnd] + 1u;
  const unsigned lines = (crtc[R::kVerticalTotal] | (overflow & 1u) << 8 | (overflow & 0x20u) << 4) + 2;
  const unsigned retrace = crtc[R::kRetraceStart] | (overflow & 4u) << 6 | (overflow & 0x80u) << 2;
  const unsigned retrace_lines = ((crtc[R::kRetraceEnd] - retrace) & 0x0f) + 1;
  const uint64_t line_ns = std::max<uint64_t>(uint64_t{characters} * dots * kSecond / dot_clock, 1);
  const uint64_t in_frame = clock_.now() % (line_ns * lines);
  const uint64_t line = in_frame / line_ns, character = in_frame % line_ns * characters / line_ns;
  uint8_t status = 0;
  if (line >= registers_.lines() || character >= shown) status |= kDisplayDisabled;
  if (line >= retrace && line - retrace < retrace_lines) status |= kVerticalRetrace | kDisplayDisabled;
  return status;
}

// --- DISPI

uint16_t VgaStd::dispi_read() const {
  if (dispi_index_ >= R::kDispis) return 0;
  if (registers_.dispi[R::kEnable] & R::kDispiCapabilities) {
    if (dispi_index_ == R::kXResolution) return kMostX;
    if (dispi_index_ == R::kYResolution) return kMostY;
    if (dispi_index_ == R::kBitsPerPixel) return kMostBits;
  }
  return registers_.dispi[dispi_index_];
}

void VgaStd::dispi_write(uint16_t value) {
  switch (dispi_index_) {
    case R::kDispiId:
      if (value >= kDispiOldest && value <= kDispiVersion) registers_.dispi[R::kDispiId] = value;
      return;
    case R::kEnable:
      return dispi_enable(value);
    case R::kBank:
      registers_.dispi[R::kBank] = static_cast<uint16_t>(value % (kMemoryBytes / kBankBytes));
      return;
    case R::kXResolution:
    case R::kYResolution:
    case R::kBitsPerPixel:
    case R::kVirtualWidth:
    case R::kXOffset:
    case R::kYOffset:
      registers_.dispi[dispi_index_] = value;
      if (registers_.dispi_enabled()) dispi_fit();
      return change();
    default:
      return;
  }
}

void VgaStd::dispi_enable(uint16_t value) {
  auto& dispi = registers_.dispi;
  const bool was = registers_.dispi_enabled();
  dispi[R::kEnable] = value & kEnableBits;
  if (!was && registers_.dispi_enabled()) {
    dispi[R::kVirtualWidth] = dispi[R::kXResolution];
    dispi[R::kXOffset] = dispi[R::kYOffset] = 0;
    dispi_fit();
    if (!(value & R::kDispiKeepMemory)) {
      std::ranges::fill(memory_.first(std::min<size_t>(
                            memory_.size(), registers_.dispi_line_bytes() * dispi[R::kYResolution])),
                        std::byte{0});
    }
  }
  if (!registers_.dispi_enabled()) dispi[R::kBank] = 0;
  change();
}

// What is shown lies in memory, whatever was asked for.
void VgaStd::dispi_fit() {
  auto& dispi = registers_.dispi;
  constexpr uint16_t kDepths[] = {4, 8, 15, 16, 24, 32};
  if (std::ranges::find(kDepths, dispi[R::kBitsPerPixel]) == std::end(kDepths)) dispi[R::kBitsPerPixel] = 8;
  const auto whole = [](uint16_t width) {
    return static_cast<uint16_t>(std::clamp<unsigned>(width & ~7u, 8, kMostX));
  };
  dispi[R::kXResolution] = whole(dispi[R::kXResolution]);
  dispi[R::kVirtualWidth] = std::max(whole(dispi[R::kVirtualWidth]), dispi[R::kXResolution]);
  const uint64_t line = registers_.dispi_line_bytes();
  const uint64_t lines = kMemoryBytes / line;
  dispi[R::kYResolution] = static_cast<uint16_t>(
      std::clamp<uint64_t>(dispi[R::kYResolution], 1, std::min<uint64_t>(lines, kMostY)));
  dispi[R::kVirtualHeight] = static_cast<uint16_t>(std::min<uint64_t>(lines, 0xffff));
  const auto end = [&] {
    return (uint64_t{dispi[R::kYOffset]} + dispi[R::kYResolution]) * line +
           uint64_t{dispi[R::kXOffset]} * registers_.dispi_bits() / 8;
  };
  if (end() > kMemoryBytes) dispi[R::kYOffset] = 0;
  if (end() > kMemoryBytes) dispi[R::kXOffset] = 0;
}

// --- the window

// The display interface's packed modes are banks of the linear memory, whatever the sequencer says.
bool VgaStd::chained() const {
  if (registers_.dispi_enabled()) return registers_.dispi[R::kBitsPerPixel] != 4;
  return registers_.sequencer[R::kMemoryMode] & R::kChain4;
}

bool VgaStd::window_address(uint64_t& offset) const {
  constexpr struct {
    uint64_t first, bytes;
  } kMaps[4] = {{0, 0x2'0000}, {0, 0x1'0000}, {0x1'0000, 0x8000}, {0x1'8000, 0x8000}};
  if (registers_.dispi_enabled()) {
    if (offset >= kBankBytes) return false;
    offset += registers_.dispi[R::kBank] * kBankBytes;
    return true;
  }
  if (!(registers_.miscellaneous & R::kMiscRam)) return false;
  const auto& map = kMaps[registers_.graphics[R::kMiscellaneous] >> 2 & 3];
  if (offset - map.first >= map.bytes) return false;
  offset -= map.first;
  return true;
}

uint32_t VgaStd::cell(uint64_t counter) const {
  uint32_t value;
  std::memcpy(&value, &memory_[counter * 4 % memory_.size()], 4);
  return value;
}

uint8_t VgaStd::window_read(uint64_t offset) {
  if (!window_address(offset)) return 0xff;
  if (chained()) {
    latches_ = cell(offset / 4);
    return static_cast<uint8_t>(latches_ >> 8 * (offset & 3));
  }
  const auto& graphics = registers_.graphics;
  unsigned plane = graphics[R::kReadMap];
  if (graphics[R::kGraphicsMode] & R::kReadOddEven) {
    plane = (plane & 2) | (offset & 1);
    offset >>= 1;
  }
  latches_ = cell(offset);
  if (!(graphics[R::kGraphicsMode] & R::kReadCompare)) return static_cast<uint8_t>(latches_ >> 8 * plane);
  const uint32_t differs =
      (latches_ ^ spread(graphics[R::kColorCompare])) & spread(graphics[R::kColorDontCare]);
  return static_cast<uint8_t>(~(differs | differs >> 8 | differs >> 16 | differs >> 24));
}

void VgaStd::write_cell(uint64_t counter, uint8_t value, uint32_t planes) {
  const auto& graphics = registers_.graphics;
  const unsigned rotation = graphics[R::kDataRotate] & 7;
  const auto rotated = static_cast<uint8_t>(value >> rotation | value << (8 - rotation));
  const uint32_t set_reset = spread(graphics[R::kSetReset]);
  uint32_t bits = in_all_planes(graphics[R::kBitMask]), data = 0;
  switch (graphics[R::kGraphicsMode] & 3) {
    case 0: {
      const uint32_t enabled = spread(graphics[R::kEnableSetReset]);
      data = (in_all_planes(rotated) & ~enabled) | (set_reset & enabled);
      break;
    }
    case 1:
      data = latches_;
      break;
    case 2:
      data = spread(value & 0x0f);
      break;
    default:
      data = set_reset;
      bits &= in_all_planes(rotated);
  }
  if ((graphics[R::kGraphicsMode] & 3) != 1) {
    switch (graphics[R::kDataRotate] >> 3 & 3) {
      case 1:
        data &= latches_;
        break;
      case 2:
        data |= latches_;
        break;
      case 3:
        data ^= latches_;
        break;
      default:
        break;
    }
    data = (data & bits) | (latches_ & ~bits);
  }
  const uint32_t stored = (cell(counter) & ~planes) | (data & planes);
  std::memcpy(&memory_[counter * 4 % memory_.size()], &stored, 4);
}

void VgaStd::window_write(uint64_t offset, uint8_t value) {
  if (!window_address(offset)) return;
  const unsigned map_mask = registers_.sequencer[R::kMapMask];
  if (registers_.dispi_enabled() && chained()) {
    memory_[offset % memory_.size()] = std::byte{value};
  } else if (chained()) {
    write_cell(offset / 4, value, spread(map_mask & 1u << (offset & 3)));
  } else if (!(registers_.sequencer[R::kMemoryMode] & R::kSequential)) {
    write_cell(offset >> 1, value, spread(map_mask & (offset & 1 ? 0xa : 0x5)));
  } else {
    write_cell(offset, value, spread(map_mask));
  }
}

uint64_t VgaStd::Window::mmio_read(uint64_t offset, unsigned size) {
  uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) value |= uint64_t{vga_.window_read(offset + i)} << 8 * i;
  return value;
}

void VgaStd::Window::mmio_write(uint64_t offset, unsigned size, uint64_t value) {
  for (unsigned i = 0; i < size; ++i) vga_.window_write(offset + i, static_cast<uint8_t>(value >> 8 * i));
  vga_.change();
}

// --- base address 2: the ports, and the display interface's registers as an array

uint64_t VgaStd::Registers::mmio_read(uint64_t offset, unsigned size) {
  if (offset >= kMmioPorts && offset + size <= kMmioPortsEnd) {
    return vga_.read(static_cast<uint16_t>(offset - kMmioPorts + 0x10), size);
  }
  if (offset >= kMmioDispi && offset < kMmioDispi + 2 * R::kDispis && size == 2 && offset % 2 == 0) {
    vga_.dispi_index_ = static_cast<uint16_t>((offset - kMmioDispi) / 2);
    return vga_.dispi_read();
  }
  if (offset == kMmioExtended && size == 4) return kExtendedBytes;
  if (offset == kMmioByteOrder && size == 4) return kLittleEndian;
  if (offset >= kMmioPorts) return ~uint64_t{0};
  static constexpr auto kEdid = monitor_edid();
  uint64_t value = 0;
  for (unsigned i = 0; i < size && offset + i < kEdid.size(); ++i)
    value |= uint64_t{kEdid[offset + i]} << 8 * i;
  return value;
}

void VgaStd::Registers::mmio_write(uint64_t offset, unsigned size, uint64_t value) {
  if (offset >= kMmioPorts && offset + size <= kMmioPortsEnd) {
    vga_.write(static_cast<uint16_t>(offset - kMmioPorts + 0x10), size, static_cast<uint32_t>(value));
  } else if (offset >= kMmioDispi && offset < kMmioDispi + 2 * R::kDispis && size == 2 && offset % 2 == 0) {
    vga_.dispi_index_ = static_cast<uint16_t>((offset - kMmioDispi) / 2);
    vga_.dispi_write(static_cast<uint16_t>(value));
  }
}

// --- state

DeviceState VgaStd::save() const {
  return {{"version", 1},
          {"config", config_.save()},
          {"miscellaneous", registers_.miscellaneous},
          {"feature", registers_.feature},
          {"sequencer", registers_.sequencer},
          {"graphics", registers_.graphics},
          {"crtc", registers_.crtc},
          {"attribute", registers_.attribute},
          {"palette_address_source", registers_.palette_address_source},
          {"dac", to_hex(registers_.dac)},
          {"pel_mask", registers_.pel_mask},
          {"dispi", registers_.dispi},
          {"sequencer_index", sequencer_index_},
          {"graphics_index", graphics_index_},
          {"crtc_index", crtc_index_},
          {"attribute_index", attribute_index_},
          {"attribute_data_next", attribute_data_next_},
          {"dac_read_index", dac_read_index_},
          {"dac_write_index", dac_write_index_},
          {"dac_component", dac_component_},
          {"dac_reading", dac_reading_},
          {"dac_pending", dac_pending_},
          {"dispi_index", dispi_index_},
          {"latches", latches_}};
}

void VgaStd::load(const DeviceState& state) {
  require_version(state, 1, name());
  VgaRegisters loaded;
  loaded.miscellaneous = static_cast<uint8_t>(bounded(state, "miscellaneous", 0xff));
  loaded.feature = static_cast<uint8_t>(bounded(state, "feature", 0xff));
  state.at("sequencer").get_to(loaded.sequencer);
  state.at("graphics").get_to(loaded.graphics);
  state.at("crtc").get_to(loaded.crtc);
  state.at("attribute").get_to(loaded.attribute);
  state.at("palette_address_source").get_to(loaded.palette_address_source);
  std::ranges::copy(saved_bytes(state, "dac", loaded.dac.size(), loaded.dac.size()), loaded.dac.begin());
  loaded.pel_mask = static_cast<uint8_t>(bounded(state, "pel_mask", 0xff));
  state.at("dispi").get_to(loaded.dispi);
  for (unsigned i = 0; i < R::kSequencers; ++i) loaded.sequencer[i] &= kSequencerBits[i];
  for (unsigned i = 0; i < R::kGraphics; ++i) loaded.graphics[i] &= kGraphicsBits[i];
  loaded.dispi[R::kBank] = static_cast<uint16_t>(loaded.dispi[R::kBank] % (kMemoryBytes / kBankBytes));
  loaded.dispi[R::kMemory64k] = registers_.dispi[R::kMemory64k];
  const auto sequencer_index = bounded(state, "sequencer_index", 7),
             graphics_index = bounded(state, "graphics_index", 0x0f),
             crtc_index = bounded(state, "crtc_index", 0x3f),
             attribute_index = bounded(state, "attribute_index", 0x1f),
             dac_read_index = bounded(state, "dac_read_index", 0xff),
             dac_write_index = bounded(state, "dac_write_index", 0xff),
             dac_component = bounded(state, "dac_component", 2),
             dispi_index = bounded(state, "dispi_index", 0xffff),
             latches = bounded(state, "latches", 0xffff'ffff);
  const bool attribute_data_next = state.at("attribute_data_next").get<bool>(),
             dac_reading = state.at("dac_reading").get<bool>();
  const auto dac_pending = state.at("dac_pending").get<std::array<uint8_t, 3>>();
  config_.load(state.at("config"));
  registers_ = loaded;
  if (registers_.dispi_enabled()) dispi_fit();
  sequencer_index_ = static_cast<uint8_t>(sequencer_index);
  graphics_index_ = static_cast<uint8_t>(graphics_index);
  crtc_index_ = static_cast<uint8_t>(crtc_index);
  attribute_index_ = static_cast<uint8_t>(attribute_index);
  attribute_data_next_ = attribute_data_next;
  dac_read_index_ = static_cast<uint8_t>(dac_read_index);
  dac_write_index_ = static_cast<uint8_t>(dac_write_index);
  dac_component_ = static_cast<uint8_t>(dac_component);
  dac_reading_ = dac_reading;
  dac_pending_ = dac_pending;
  dispi_index_ = static_cast<uint16_t>(dispi_index);
  latches_ = static_cast<uint32_t>(latches);
  change();
}

}  // namespace penumbra
