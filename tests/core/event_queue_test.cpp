#include "core/event_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>

namespace penumbra {
namespace {

TEST(EventQueue, RunsEventsInTheOrderOfTheirPosts) {
  EventQueue queue;
  std::string order;
  for (const char name : {'a', 'b', 'c'}) EXPECT_TRUE(queue.post([&order, name] { order += name; }));
  EXPECT_EQ(order, "");
  queue.drain();
  EXPECT_EQ(order, "abc");
  queue.drain();
  EXPECT_EQ(order, "abc");
}

TEST(EventQueue, TellsTheListenerOfEveryPost) {
  EventQueue queue;
  int told = 0;
  queue.set_listener([&] { ++told; });
  EXPECT_TRUE(queue.post([] {}));
  EXPECT_TRUE(queue.post([] {}));
  EXPECT_EQ(told, 2);
}

// An event that posts itself anew would keep the guest from running otherwise.
TEST(EventQueue, WhatAnEventPostsWaitsForTheNextDrain) {
  EventQueue queue;
  int runs = 0;
  std::function<void()> again = [&] {
    ++runs;
    EXPECT_TRUE(queue.post(again));
  };
  EXPECT_TRUE(queue.post(again));
  queue.drain();
  EXPECT_EQ(runs, 1);
  queue.drain();
  EXPECT_EQ(runs, 2);
}

TEST(EventQueue, RefusesPostsBeyondItsLimitUntilItIsDrained) {
  EventQueue queue;
  size_t ran = 0;
  for (size_t i = 0; i < EventQueue::kLimit; ++i) EXPECT_TRUE(queue.post([&] { ++ran; }));
  EXPECT_FALSE(queue.post([&] { ++ran; }));
  queue.drain();
  EXPECT_EQ(ran, EventQueue::kLimit);
  EXPECT_TRUE(queue.post([] {}));
}

TEST(EventQueue, LosesNothingThatOtherThreadsPost) {
  constexpr int kThreads = 4, kPosts = 5000;
  EventQueue queue;
  int ran = 0;
  std::atomic<int> running{kThreads};
  std::vector<std::jthread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int posted = 0; posted < kPosts;) {
        if (queue.post([&ran] { ++ran; })) {
          ++posted;
        } else {
          std::this_thread::yield();
        }
      }
      --running;
    });
  }
  while (running.load() > 0) queue.drain();
  queue.drain();
  EXPECT_EQ(ran, kThreads * kPosts);
}

}  // namespace
}  // namespace penumbra
