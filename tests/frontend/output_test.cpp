#include "frontend/output.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <semaphore>
#include <sstream>
#include <thread>

#include "frontend/user_error.h"

namespace penumbra {
namespace {

void put(Output& output, std::string_view text) {
  for (const char character : text) output.put(static_cast<uint8_t>(character));
}

constexpr std::chrono::seconds kLong{60};

std::string read_all(int fd) {
  std::string got;
  char buffer[4096];
  for (ssize_t count; (count = read(fd, buffer, sizeof(buffer))) > 0;)
    got.append(buffer, static_cast<size_t>(count));
  return got;
}

class OutputFile : public testing::Test {
 protected:
  OutputFile() {
    std::string name = (std::filesystem::temp_directory_path() / "output_test.XXXXXX").string();
    folder = mkdtemp(name.data());
    path = (folder / "file").string();
  }
  ~OutputFile() override { std::filesystem::remove_all(folder); }
  std::string content() const {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
  }
  std::filesystem::path folder;
  std::string path;
};

TEST_F(OutputFile, LinesAreWrittenAtOnceTheRestWhenFlushed) {
  Output output(path);
  int told = 0;
  output.set_waiting_listener([&] { ++told; });
  put(output, "line\r\npro");
  EXPECT_EQ(content(), "line\r\n");
  put(output, "mpt");
  EXPECT_EQ(told, 2);  // for "l" and for "p"
  output.flush();
  EXPECT_EQ(content(), "line\r\nprompt");
  EXPECT_TRUE(output.empty());
}

TEST_F(OutputFile, NothingIsLostAtTheEnd) {
  {
    Output output(path);
    put(output, "no line end");
  }
  EXPECT_EQ(content(), "no line end");
}

TEST_F(OutputFile, LongLinesAreWrittenInPieces) {
  const std::string line(10'000, 'x');
  Output output(path);
  put(output, line);
  EXPECT_GE(content().size(), 8192u);
  output.flush();
  EXPECT_EQ(content(), line);
}

TEST_F(OutputFile, APathThatCannotBeMadeIsTheUsersError) {
  try {
    Output output(path + "/beneath/a/file");
    FAIL() << "made " << path;
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find(path), std::string::npos);
  }
}

TEST(Output, AClosedPipeIsToldOnceAndTheRestDropped) {
  signal(SIGPIPE, SIG_IGN);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  close(ends[0]);
  Output output(ends[1], "pipe");
  std::vector<int> errors;
  output.set_failure_listener([&](const Output& failed, int error) {
    EXPECT_EQ(failed.name(), "pipe");
    errors.push_back(error);
  });
  put(output, "one\n");
  EXPECT_TRUE(output.wait_written(kLong));
  put(output, "two\nthree\n");
  EXPECT_EQ(errors, std::vector<int>{EPIPE});
  close(ends[1]);
}

TEST(Output, ADescriptorThatDoesNotBlockIsWaitedFor) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_NONBLOCK), 0);
  std::string sent;
  for (int i = 0; i < 40'000; ++i) sent += "line " + std::to_string(i) + "\n";
  std::string got;
  if (const pid_t child = fork(); child == 0) {
    {
      Output output(ends[1], "pipe");
      put(output, sent);
    }
    _exit(0);
  }
  close(ends[1]);
  fcntl(ends[0], F_SETFL, 0);
  got = read_all(ends[0]);
  close(ends[0]);
  EXPECT_EQ(got, sent);
}

// The vCPU's thread waited in write(), so that neither gdb nor a monitor could stop the guest.
TEST(Output, AReaderThatDoesNotReadMakesNobodyWait) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  std::string sent, got;
  std::thread reader;
  {
    Output output(ends[1], "pipe");
    std::vector<Output::Pressure> seen;
    output.set_pressure_listener([&] { seen.push_back(output.pressure()); });
    std::binary_semaphore news(0);
    output.set_news_listener([&] {
      news.release();
      return true;
    });
    // A pipe that is full, then more than both limits.
    const std::string full(static_cast<size_t>(fcntl(ends[1], F_GETPIPE_SZ)), '.');
    ASSERT_EQ(write(ends[1], full.data(), full.size()), static_cast<ssize_t>(full.size()));
    sent = full;
    for (int i = 0; i < 60'000; ++i) {
      const std::string line = "line " + std::to_string(i) + "\n";
      put(output, line);
      sent += line;
    }
    using enum Output::Pressure;
    EXPECT_EQ(seen, (std::vector{Slow, Full}));
    EXPECT_GT(output.unwritten(), Output::kFull);
    EXPECT_FALSE(output.wait_written(std::chrono::milliseconds(1)));
    reader = std::thread([&] { got = read_all(ends[0]); });
    news.acquire();
    output.attend();
    EXPECT_EQ(seen, (std::vector{Slow, Full, None}));
  }
  close(ends[1]);
  reader.join();
  EXPECT_EQ(got, sent);
  close(ends[0]);
}

TEST(Output, WhatNobodyTakesCanBeAbandoned) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  {
    Output output(ends[1], "pipe");
    put(output, std::string(100'000, 'x'));
    output.say("text");
    EXPECT_FALSE(output.wait_written(std::chrono::milliseconds(1)));
    output.abandon();
  }
  close(ends[0]);  // ends the writing thread
}

}  // namespace
}  // namespace penumbra
