// Files of the host that are read whole: kernels, initial RAM disks, firmware.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace penumbra {

// The file's bytes. At most `limit` of them: a larger or endless file is refused as "more than the LIMIT
// of WHAT". Pipes are read to their end. Throws std::runtime_error naming the file.
std::vector<std::byte> read_host_file(const std::string& path, uint64_t limit, std::string_view what);

// Exact, in the largest unit that divides it: "64 MiB", "639 KiB", "300 bytes".
std::string size_text(uint64_t bytes);

}  // namespace penumbra
