#include "mmu/page_tracker.h"

namespace penumbra {

void PageTracker::note_writer(PageFrame frame, LinearAddr page) {
  if (frame.number >= frames_.size()) return;
  Frame& entry = frames_[frame.number];
  const uint64_t number = page.value >> kPageShift;
  if (!entry.writer) {
    entry.writer = 1;
    entry.writer_page = number;
  } else if (entry.writer_page != number) {
    entry.many_writers = 1;
  }
}

PageTracker::Writers PageTracker::writers(PageFrame frame) const {
  if (frame.number >= frames_.size()) return {};
  const Frame& entry = frames_[frame.number];
  return {.any = entry.writer != 0,
          .many = entry.many_writers != 0,
          .page = {static_cast<uint64_t>(entry.writer_page) << kPageShift}};
}

void PageTracker::forget_writers(PageFrame frame) {
  if (frame.number >= frames_.size()) return;
  frames_[frame.number].writer = 0;
  frames_[frame.number].many_writers = 0;
}

}  // namespace penumbra
