// Per-frame bookkeeping of guest RAM: which frames hold translated code and which linear page may write them
// without asking. A write to a frame that holds code must go through before_write().
#pragma once

#include <cstdint>
#include <vector>

#include "mmu/address.h"

namespace penumbra {

// Told when bytes that may be translated code are about to change.
class CodeWriteListener {
 public:
  virtual ~CodeWriteListener() = default;
  // [offset, offset + size) of `frame` is about to be written; does not cross the page.
  virtual void code_written(PageFrame frame, uint64_t offset, uint64_t size) = 0;
};

class PageTracker {
 public:
  // `frames`: number of 4 KiB frames tracked, from physical 0 up. Of frames above, only whether any of them
  // holds code is known.
  void resize(uint64_t frames) { frames_.assign(frames, {}); }
  uint64_t frame_count() const { return frames_.size(); }
  void set_listener(CodeWriteListener* listener) { listener_ = listener; }

  bool holds_code(PageFrame frame) const {
    return frame.number < frames_.size() && frames_[frame.number].code;
  }
  bool can_hold_code(PageFrame frame) const { return frame.number < frames_.size(); }
  void set_holds_code(PageFrame frame, bool code) { frames_[frame.number].code = code; }
  bool holds_untracked_code() const { return untracked_code_; }
  void set_holds_untracked_code(bool code) { untracked_code_ = code; }

  void before_write(PageFrame frame, uint64_t offset, uint64_t size) {
    if (holds_code(frame) && listener_) listener_->code_written(frame, offset, size);
  }

  // The linear page through which a TLB lets the frame be written directly. The first one is remembered, a
  // second one sets `many`, which makes a caller search the whole TLB.
  struct Writers {
    bool any = false;
    bool many = false;
    LinearAddr page;
  };
  void note_writer(PageFrame frame, LinearAddr page);
  Writers writers(PageFrame frame) const;
  void forget_writers(PageFrame frame);

 private:
  struct Frame {
    uint64_t writer_page : 52 = 0;
    uint64_t writer : 1 = 0;
    uint64_t many_writers : 1 = 0;
    uint64_t code : 1 = 0;
  };
  std::vector<Frame> frames_;
  bool untracked_code_ = false;
  CodeWriteListener* listener_ = nullptr;
};

}  // namespace penumbra
