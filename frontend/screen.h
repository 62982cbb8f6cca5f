// What the machine's screen shows, for people and files.
#pragma once

#include <string>

#include "devices/vga_renderer.h"
#include "devices/vga_std.h"

namespace penumbra {

// vCPU thread.
class Screen {
 public:
  explicit Screen(VgaStd& vga) : vga_(vga) {}

  VgaImage image() const;
  // A line of UTF-8 for each row; empty in graphics modes.
  std::string text() const;

 private:
  VgaStd& vga_;
};

// PNG, or PPM when the name ends in .ppm. Throws std::runtime_error that says what the host refused.
void write_image(const VgaImage& image, const std::string& path);

}  // namespace penumbra
