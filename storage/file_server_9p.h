// The server of the 9P2000.L protocol for one shared folder: a message in, its answer out. It blocks.
//
// Plan 9 manual, section 5 (intro(5)); the Linux dialect: github.com/chaos/diod, protocol.md, and
// linux/net/9p. Messages are a guest's: every field is checked, and what a guest can make the server keep is
// bounded. Not there: authentication, 9P2000 and 9P2000.u; locks hold among the programs of one guest, which
// its kernel sees to, and are always granted here, as by QEMU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "storage/shared_folder.h"

namespace penumbra {

class FileServer9p {
 public:
  // At most `most_open` files of the host are open at a time.
  FileServer9p(const SharedFolderOptions& options, unsigned most_open);

  // The answer, of up to `room` bytes and kMostMessage; empty when the message has no tag to answer to or an
  // error has no room.
  std::vector<std::byte> answer(std::span<const std::byte> message, size_t room);
  // The client has forgotten all of it.
  void reset();

 private:
  class Reader;
  class Writer;
  using Bytes = std::vector<std::byte>;

  // What the client's number stands for.
  struct Fid {
    enum class Use : uint8_t { Name, File, Folder, ReadAttribute, WriteAttribute };
    std::string path;  // names with slashes between them; empty: the shared folder
    uint32_t user = 0;
    Use use = Use::Name;
    Descriptor opened{};      // File, Folder
    std::string attribute{};  // WriteAttribute: it is set when the number is given up
    Bytes value{};            // ReadAttribute, WriteAttribute
    size_t value_bytes = 0;   // WriteAttribute: how many there are to be
    int flags = 0;            // WriteAttribute
    size_t weight() const;
  };

  // Handlers return an errno.
  using Handler = int (FileServer9p::*)(Reader& in, Writer& out);
  static Handler handler_of(uint8_t type);
  int version(Reader& in, Writer& out);
  int authenticate(Reader& in, Writer& out);
  int attach(Reader& in, Writer& out);
  int flush(Reader& in, Writer& out);
  int walk(Reader& in, Writer& out);
  int open(Reader& in, Writer& out);
  int create(Reader& in, Writer& out);
  int read(Reader& in, Writer& out);
  int write(Reader& in, Writer& out);
  int read_folder(Reader& in, Writer& out);
  int get_attributes(Reader& in, Writer& out);
  int set_attributes(Reader& in, Writer& out);
  int file_system(Reader& in, Writer& out);
  template <class Make>
  int make_name(uint32_t number, const std::string& name, uint32_t group, Writer& out, Make make);
  int make_folder(Reader& in, Writer& out);
  int make_link(Reader& in, Writer& out);
  int make_node(Reader& in, Writer& out);
  int read_link(Reader& in, Writer& out);
  int link(Reader& in, Writer& out);
  int rename(Reader& in, Writer& out);
  int rename_at(Reader& in, Writer& out);
  int remove(Reader& in, Writer& out);
  int remove_at(Reader& in, Writer& out);
  int sync(Reader& in, Writer& out);
  int walk_attribute(Reader& in, Writer& out);
  int create_attribute(Reader& in, Writer& out);
  int lock(Reader& in, Writer& out);
  int get_lock(Reader& in, Writer& out);
  int clunk(Reader& in, Writer& out);

  Fid* find(uint32_t number);
  int add(uint32_t number, Fid fid);
  int give_up(std::map<uint32_t, Fid>::iterator at);
  int set_path(Fid& fid, std::string path);
  SharedFolder::Result<Descriptor> target(const Fid& fid) const;
  int put_qid(Writer& out, const Descriptor& file);
  uint64_t qid_path(dev_t device, uint64_t inode);
  int put_new_qid(Writer& out, const Descriptor& folder, const std::string& name);
  int move(const std::string& from, const std::string& old_name, const std::string& to,
           const std::string& new_name);
  int removed(const std::string& folder, const std::string& name, bool is_folder);
  int refusal_to_write() const;

  const SharedFolder folder_;
  const unsigned most_open_;
  unsigned open_ = 0;
  size_t limit_ = 0;  // bytes of a message, as agreed; 0: there is no session
  std::map<uint32_t, Fid> fids_;
  size_t weight_ = 0;                  // bytes of fids_
  std::map<dev_t, uint64_t> devices_;  // of the host, by the order in which they were seen
};

}  // namespace penumbra
