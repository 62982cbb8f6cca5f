// The guest physical address space: RAM in one memfd, ROM images and MMIO regions, behind the A20 gate.
//
// RAM below 4 GiB ends at most at kLowRamLimit; the rest continues at 4 GiB, as on a PC (see ram_below_4g()).
// Addresses that nothing claims read as ones and swallow writes. Regions come, go and move while the guest
// runs (shadow RAM, PCI base addresses); what the address space then shows is computed once a change, as
// sorted ranges.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
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
  // Negative where the host has no memory files; ram_fd_error() is the errno then.
  int ram_fd() const { return ram_fd_; }
  int ram_fd_error() const { return ram_fd_error_; }
  // Where a host address of RAM is in ram_fd().
  uint64_t ram_offset(const std::byte* host) const { return static_cast<uint64_t>(host - ram_); }

  // What stands in the address space beside RAM, or in its place. Of the regions that claim a page the one of
  // the highest layer shows, and of one layer the one that was added first.
  enum class Layer : uint8_t {
    Pci,  // below RAM: where guests put it with base address registers
    Ram,
    Hole,    // where the chip set decodes no RAM
    Board,   // ROM and chips, where the chip set decodes them
    Shadow,  // RAM that the chip set shows in place of the board
  };
  enum class Visibility : uint8_t { Hidden, ReadOnly, Writable };
  struct RegionId {
    unsigned index = 0;
  };

  // Regions are whole pages; all of these throw std::invalid_argument when they are not.
  // On the board, and seen at once; throw when they overlap another one on the board.
  RegionId add_rom(PhysAddr start, std::span<const std::byte> image);
  RegionId add_mmio(PhysAddr start, uint64_t size, MmioHandler& handler, std::string name);
  // A chip's memory that reads as ROM does; writes are the chip's, and without direct reads, reads are, too.
  RegionId add_flash(PhysAddr start, std::span<const std::byte> contents, MmioHandler& handler,
                     std::string name);
  void add_hole(PhysAddr start, uint64_t size);
  // Nowhere until place().
  RegionId add_pci_mmio(uint64_t size, MmioHandler& handler, std::string name);
  RegionId add_pci_rom(std::span<const std::byte> image);
  // Memory of a chip, zeroed, which the guest reaches as it does RAM; no code that it runs from there is
  // dropped when it is written. `written` is set before a write, and where the guest is about to write
  // without anyone being told. Throws std::runtime_error when the host refuses the memory, or there were
  // kDeviceRamLimit bytes before.
  static constexpr uint64_t kDeviceRamLimit = uint64_t{64} << 20;
  RegionId add_pci_ram(uint64_t size, std::atomic<bool>& written, std::string name);
  std::span<std::byte> device_ram(RegionId region);  // and of add_flash()
  // Clears `written` of a region of add_pci_ram(); the next write sets it again.
  void watch_writes(RegionId region);
  // Told which frames must not be written directly any more.
  void set_watch_listener(std::function<void(PageFrame first, uint64_t frames)> listener) {
    watch_listener_ = std::move(listener);
  }
  // RAM at its own address, in front of what else is there. Hidden until show().
  RegionId add_shadow(PhysAddr start, uint64_t size);

  // At any time. A region that would leave the physical address space is nowhere.
  void place(RegionId region, std::optional<PhysAddr> start);
  void set_direct_reads(RegionId flash, bool direct);
  void show(RegionId region, Visibility visibility);

  // Called after a change of what is seen: TLBs are stale. `code`: so is what was translated from memory that
  // the page tracker does not cover; it was told of the rest.
  void set_change_listener(std::function<void(bool code)> listener) {
    change_listener_ = std::move(listener);
  }

  // A20 gate: when closed, physical address bit 20 reads as 0 (masks every access). Callers flush TLBs.
  void set_a20(bool open) { a20_mask_ = open ? ~uint64_t{0} : ~(uint64_t{1} << 20); }
  // The address that the bus sees.
  PhysAddr behind_a20(PhysAddr address) const { return {address.value & a20_mask_}; }
  bool a20() const { return a20_mask_ == ~uint64_t{0}; }

  // What a page of physical memory is.
  enum class PageKind : uint8_t { Ram, Rom, Mmio, Unclaimed };
  struct Page {
    PageKind kind = PageKind::Unclaimed;
    HostPtr host = nullptr;          // start of the page's bytes: Ram and Rom only
    MmioHandler* handler = nullptr;  // Mmio, and Rom whose writes a chip takes
    uint64_t region_offset = 0;      // offset of the page in the handler's region
    PageFrame frame;                 // after the A20 gate; key for the page tracker
    std::atomic<bool>* written =
        nullptr;  // a chip's memory: who writes, or lets others write directly, sets it
  };
  Page page(PhysAddr address) const;
  // Whether all of the range, at least a byte, is RAM that may be written: what a chip's DMA may reach.
  bool is_ram(PhysAddr address, uint64_t bytes) const;

  // CPU or DMA access to up to 8 bytes within one page. Writes to RAM notify the page tracker first.
  uint64_t read(PhysAddr address, unsigned size);
  void write(PhysAddr address, unsigned size, uint64_t value);

  // DMA and loaders: any length, any alignment; unclaimed bytes read as ones. ROM ignores writes.
  void read_bytes(PhysAddr address, std::span<std::byte> to);
  void write_bytes(PhysAddr address, std::span<const std::byte> from);

  PageTracker& tracker() { return tracker_; }

 private:
  struct Region {
    Layer layer = Layer::Board;
    uint64_t start = 0, bytes = 0;
    HostPtr host = nullptr;          // ROM, flash: a copy of the image; RAM
    MmioHandler* handler = nullptr;  // MMIO, flash
    std::string name;
    Visibility visibility = Visibility::ReadOnly;
    bool placed = true;
    bool owns_host = false;
    bool direct_reads = true;
    std::atomic<bool>* written = nullptr;  // a chip's memory
  };
  // What is seen from `start` up to `end`; nothing, if both pointers are null.
  struct Range {
    uint64_t start = 0, end = 0;
    HostPtr host = nullptr;
    MmioHandler* handler = nullptr;
    uint64_t region_offset = 0;
    bool writable = false;
    std::atomic<bool>* written = nullptr;
  };
  RegionId add(Region region);
  RegionId add_image(Region region, std::span<const std::byte> image);
  void changed();
  void compute_ranges();
  void announce_changes(const std::vector<Range>& before);
  static const Range* find(const std::vector<Range>& ranges, uint64_t physical);

  uint64_t ram_bytes_ = 0;
  int ram_fd_ = -1, ram_fd_error_ = 0;
  HostPtr ram_ = nullptr;  // and behind it, room for kDeviceRamLimit
  uint64_t device_ram_bytes_ = 0;
  uint64_t a20_mask_ = ~uint64_t{0};
  std::vector<Region> regions_;  // as they were added
  std::vector<Range> ranges_;    // sorted, without overlaps
  std::function<void(bool code)> change_listener_;
  std::function<void(PageFrame first, uint64_t frames)> watch_listener_;
  PageTracker tracker_;
};

}  // namespace penumbra
