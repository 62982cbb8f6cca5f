#include "tests/silicon/moo_file.h"

#include <zlib.h>

#include <memory>
#include <span>
#include <stdexcept>
#include <string_view>

namespace penumbra::test {

namespace {

class Bytes {
 public:
  Bytes(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }
  std::span<const uint8_t> take(size_t count) {
    if (count > bytes_.size()) throw std::runtime_error("chunk beyond the end");
    const auto taken = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return taken;
  }
  uint32_t number(unsigned bytes) {
    uint32_t value = 0;
    unsigned shift = 0;
    for (const uint8_t byte : take(bytes)) {
      value |= uint32_t{byte} << shift;
      shift += 8;
    }
    return value;
  }
  std::string_view text(size_t count) {
    const auto characters = take(count);
    return {reinterpret_cast<const char*>(characters.data()), count};
  }

 private:
  std::span<const uint8_t> bytes_;
};

// Calls on_chunk(tag, body) for each chunk.
template <class OnChunk>
void for_each_chunk(Bytes bytes, OnChunk on_chunk) {
  while (!bytes.empty()) {
    const std::string_view tag = bytes.text(4);
    const uint32_t length = bytes.number(4);
    on_chunk(tag, Bytes(bytes.take(length)));
  }
}

void read_state(Bytes body, std::array<uint16_t, kMooRegisters>& registers, std::vector<MooByte>& memory) {
  for_each_chunk(body, [&](std::string_view tag, Bytes chunk) {
    if (tag == "REGS") {
      const uint32_t present = chunk.number(2);
      for (unsigned i = 0; i < kMooRegisters; ++i) {
        if (present >> i & 1) registers[i] = static_cast<uint16_t>(chunk.number(2));
      }
    } else if (tag == "RAM ") {
      memory.resize(chunk.number(4));
      for (MooByte& byte : memory) {
        byte.address = chunk.number(4);
        byte.value = static_cast<uint8_t>(chunk.number(1));
      }
    }
  });
}

MooCase read_case(Bytes body) {
  MooCase made;
  made.index = body.number(4);
  for_each_chunk(body, [&](std::string_view tag, Bytes chunk) {
    if (tag == "NAME") {
      made.name = chunk.text(chunk.number(4));
    } else if (tag == "BYTS") {
      const auto bytes = chunk.take(chunk.number(4));
      made.bytes.assign(bytes.begin(), bytes.end());
    } else if (tag == "INIT") {
      read_state(chunk, made.before, made.memory_before);
      made.after = made.before;
    } else if (tag == "FINA") {
      read_state(chunk, made.after, made.memory_changed);
    } else if (tag == "EXCP") {
      made.exception = static_cast<uint8_t>(chunk.number(1));
    }
  });
  return made;
}

std::vector<uint8_t> unpack(const std::filesystem::path& path) {
  const std::unique_ptr<gzFile_s, decltype(&gzclose)> file(gzopen(path.c_str(), "rb"), &gzclose);
  if (!file) throw std::runtime_error("cannot be opened");
  std::vector<uint8_t> bytes;
  std::array<uint8_t, 65536> piece;
  int count;
  while ((count = gzread(file.get(), piece.data(), piece.size())) > 0) {
    bytes.insert(bytes.end(), piece.begin(), piece.begin() + count);
  }
  if (count < 0) throw std::runtime_error("is damaged");
  return bytes;
}

}  // namespace

std::vector<MooCase> read_moo_file(const std::filesystem::path& path) {
  try {
    const std::vector<uint8_t> bytes = unpack(path);
    std::vector<MooCase> cases;
    bool first = true;
    for_each_chunk(Bytes(bytes), [&](std::string_view tag, Bytes body) {
      if (first && tag != "MOO ") throw std::runtime_error("is no MOO file");
      first = false;
      if (tag == "TEST") cases.push_back(read_case(body));
    });
    return cases;
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(path.string() + ": " + error.what());
  }
}

}  // namespace penumbra::test
