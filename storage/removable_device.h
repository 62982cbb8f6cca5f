// A drive whose medium can be taken out and changed: what is in it now, if anything.
#pragma once

#include <functional>
#include <memory>

#include "devices/block_device.h"

namespace penumbra {

class RemovableDevice final : public BlockDevice {
 public:
  explicit RemovableDevice(std::unique_ptr<BlockDevice> medium) : medium_(std::move(medium)) {}

  // vCPU thread. The old medium lives until what was asked of it has ended. Null: none.
  void change(std::unique_ptr<BlockDevice> medium);
  BlockDevice* medium() { return medium_.get(); }

  uint64_t bytes() const override { return medium_ ? medium_->bytes() : 0; }
  bool read_only() const override { return !medium_ || medium_->read_only(); }
  unsigned generation() const override { return generation_; }
  void submit(std::unique_ptr<BlockRequest> request) override;

 private:
  std::shared_ptr<BlockDevice> medium_;
  unsigned generation_ = 0;
};

}  // namespace penumbra
