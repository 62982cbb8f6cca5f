// The guest physical address space: RAM in one memfd, ROM images and MMIO regions, behind the A20 gate.
//
// RAM below 4 GiB ends at most at kLowRamLimit; the rest continues at 4 GiB, as on a PC (see ram_below_4g()).
// Addresses that nothing claims read as ones and swallow writes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "mmu/address.h"
#include "mmu/page_tracker.h"

namespace penumbra {

// Registers or memory of a chip that the CPU reaches through the physical address space.
// Accesses are 1, 2, 4 or 8 bytes and never cross the end of the region.
class MmioHandler {
 public:
  virtual ~MmioHandler() = default;
  virtual uint64_t mmio_read(uint64_t offset, unsigned size) = 0;
  virtual void mmio_write(uint64_t offset, unsigned size, uint64_t value) = 0;
};

class PhysicalMap {
 public:
  // Where RAM below 4 GiB ends at the latest; above are PCI holes, chips and firmware.
  static constexpr uint64_t kLowRamLimit = 0xC000'0000;

  // Makes a map with `ram_bytes` of RAM (multiple of 4 KiB, at least 1 MiB).
  // Throws std::runtime_error when the host refuses the memory.
  explicit PhysicalMap(uint64_t ram_bytes);
  ~PhysicalMap();
  PhysicalMap(const PhysicalMap&) = delete;
  PhysicalMap& operator=(const PhysicalMap&) = delete;

  uint64_t ram_bytes() const { return ram_bytes_; }
  uint64_t ram_below_4g() const { return ram_bytes_ < kLowRamLimit ? ram_bytes_ : kLowRamLimit; }
  uint64_t ram_above_4g() const { return ram_bytes_ - ram_below_4g(); }  // bytes of RAM at physical 4 GiB
  int ram_fd() const { return ram_fd_; }
  // Where a host address of RAM is in ram_fd().
  uint64_t ram_offset(const std::byte* host) const { return static_cast<uint64_t>(host - ram_); }

  // Regions are page aligned and cover RAM when they overlap it (ROM and video below 1 MiB).
  // Throws std::invalid_argument when a region overlaps another one or is not page aligned.
  void add_rom(PhysAddr start, std::span<const std::byte> image);
  void add_mmio(PhysAddr start, uint64_t size, MmioHandler& handler, std::string name);

  // A20 gate: when closed, physical address bit 20 reads as 0 (masks every access). Callers flush TLBs.
  void set_a20(bool open) { a20_mask_ = open ? ~uint64_t{0} : ~(uint64_t{1} << 20); }
  bool a20() const { return a20_mask_ == ~uint64_t{0}; }

  // What a page of physical memory is.
  enum class PageKind : uint8_t { Ram, Rom, Mmio, Unclaimed };
  struct Page {
    PageKind kind = PageKind::Unclaimed;
    HostPtr host = nullptr;          // start of the page's bytes: Ram and Rom only
    MmioHandler* handler = nullptr;  // Mmio only
    uint64_t region_offset = 0;      // offset of the page in its MMIO region
    PageFrame frame;                 // after the A20 gate; key for the page tracker
  };
  Page page(PhysAddr address) const;

  // CPU or DMA access to up to 8 bytes within one page. Writes to RAM notify the page tracker first.
  uint64_t read(PhysAddr address, unsigned size);
  void write(PhysAddr address, unsigned size, uint64_t value);

  // DMA and loaders: any length, any alignment; unclaimed bytes read as ones. ROM ignores writes.
  void read_bytes(PhysAddr address, std::span<std::byte> to);
  void write_bytes(PhysAddr address, std::span<const std::byte> from);

  PageTracker& tracker() { return tracker_; }

 private:
  struct Region {
    uint64_t start = 0, bytes = 0;
    HostPtr host = nullptr;           // ROM: a copy of the image
    MmioHandler* handler = nullptr;   // MMIO
    std::string name;
  };
  void add(Region region);
  const Region* region_at(uint64_t physical) const;

  uint64_t ram_bytes_ = 0;
  int ram_fd_ = -1;
  HostPtr ram_ = nullptr;
  uint64_t a20_mask_ = ~uint64_t{0};
  std::vector<Region> regions_;  // sorted by start
  PageTracker tracker_;
};

}  // namespace penumbra
