// A disk in memory for the tests of disk controllers; requests end at once, or when the test says so.
#pragma once

#include <algorithm>
#include <cerrno>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "devices/block_device.h"

namespace penumbra {

class MemoryDisk : public BlockDevice {
 public:
  explicit MemoryDisk(size_t bytes) : contents(bytes) {}

  std::vector<std::byte> contents;
  bool is_read_only = false, can_discard = false;
  bool holds = false;  // requests wait for release()
  int next_error = 0;  // of one request
  unsigned flushes = 0, discards_seen = 0;
  unsigned medium = 0;
  bool is_open = false, is_locked = false, is_asked_for = false;
  std::string trays;  // what became of the tray

  uint64_t bytes() const override { return contents.size(); }
  bool read_only() const override { return is_read_only; }
  bool discards() const override { return can_discard; }
  unsigned generation() const override { return medium; }

  void move_tray(bool open) override {
    trays += open ? "open " : "close ";
    is_open = open;
  }
  bool tray_open() const override { return is_open; }
  void lock_tray(bool locked) override { is_locked = locked; }
  bool tray_locked() const override { return is_locked; }
  bool take_eject_request() override { return std::exchange(is_asked_for, false); }

  void submit(std::unique_ptr<BlockRequest> request) override {
    if (holds) {
      held_.push_back(std::move(request));
    } else {
      run(*request);
    }
  }
  size_t held() const { return held_.size(); }
  void release() {
    while (!held_.empty()) {
      const auto request = std::move(held_.front());
      held_.pop_front();
      run(*request);
    }
  }

  uint8_t at(size_t offset) const { return static_cast<uint8_t>(contents[offset]); }
  void fill(size_t offset, size_t bytes, uint8_t value) {
    std::fill_n(contents.begin() + static_cast<ptrdiff_t>(offset), bytes, std::byte{value});
  }

 private:
  void run(BlockRequest& request) {
    using enum BlockRequest::Kind;
    const uint64_t length =
        request.kind == Read || request.kind == Write ? request.data.size() : request.bytes;
    request.error = std::exchange(next_error, 0);
    if (request.offset > contents.size() || length > contents.size() - request.offset) request.error = EINVAL;
    if (request.kind != Read && request.kind != Flush && is_read_only) request.error = EROFS;
    if (request.error == 0) {
      const auto place = contents.begin() + static_cast<ptrdiff_t>(request.offset);
      if (request.kind == Read) std::copy_n(place, length, request.data.begin());
      if (request.kind == Write) std::copy(request.data.begin(), request.data.end(), place);
      if (request.kind == WriteZeroes || request.kind == Discard) std::fill_n(place, length, std::byte{0});
      flushes += request.kind == Flush;
      discards_seen += request.kind == Discard;
    }
    request.done(request);
  }
  std::deque<std::unique_ptr<BlockRequest>> held_;
};

}  // namespace penumbra
