// What a disk controller sees of a disk: requests that complete later, on the vCPU's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace penumbra {

struct BlockRequest {
  enum class Kind : uint8_t { Read, Write, WriteZeroes, Discard, Flush };
  Kind kind = Kind::Read;
  uint64_t offset = 0;          // bytes
  uint64_t bytes = 0;           // WriteZeroes and Discard
  std::vector<std::byte> data;  // Read: filled, its size is what is read; Write
  int error = 0;                // errno, when `done` is called
  std::function<void(BlockRequest& request)> done;
};

// What a disk tells its driver of sizes, in bytes: the smallest piece that is read or written, the one that
// costs no reading before, and those of requests and discards that are efficient (0: not said).
struct BlockSizes {
  uint32_t logical = 512, physical = 512;
  uint32_t least_request = 0, best_request = 0, discard = 0;
};

class BlockDevice {
 public:
  virtual ~BlockDevice() = default;

  // A medium may have been taken out or changed: every look counts.
  virtual uint64_t bytes() const = 0;  // 0: no medium
  virtual bool read_only() const = 0;
  virtual bool discards() const { return false; }  // whether Discard frees anything
  // Increases with every change of the medium.
  virtual unsigned generation() const { return 0; }
  // A drive's tray, which the guest moves, or keeps a person from moving.
  virtual void move_tray(bool open) {}
  virtual bool tray_open() const { return false; }
  virtual void lock_tray(bool locked) {}
  virtual bool tray_locked() const { return false; }
  // Whether a person has asked for a locked medium since the last call.
  virtual bool take_eject_request() { return false; }

  // Takes the request, and calls its `done` once on the vCPU's thread, perhaps before submit() returns.
  // Requests may pass one another. A Flush is done when all that was done before it was submitted is on
  // stable storage. Requests that reach beyond the end fail with EINVAL; writes to a read-only device with
  // EROFS.
  virtual void submit(std::unique_ptr<BlockRequest> request) = 0;
};

}  // namespace penumbra
