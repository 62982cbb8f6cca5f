// A bytecode interpreter with indirect jumps, and calls through function pointers.
#include "bench.h"

enum { kPush, kAdd, kMul, kXor, kDup, kSwap, kCall, kLoop, kEnd };

static uint32_t twist(uint32_t x) { return x * 2654435761u; }
static uint32_t flip(uint32_t x) { return x ^ x >> 15; }
static uint32_t turn(uint32_t x) { return x << 7 | x >> 25; }
static uint32_t (*const volatile functions[])(uint32_t) = {twist, flip, turn, flip};

static uint64_t work(long count, long size) {
  (void)size;
  static const uint8_t program[] = {kPush, 17,   kAdd,   kDup,  kMul, kCall, 0, kDup,  kCall, 1,     kXor,  kPush,
                                    3,     kMul, kCall,  2,     kDup, kPush, 9, kSwap, kAdd,  kXor,  kCall, 3,
                                    kPush, 101,  kSwap,  kCall, 0,    kAdd,  kLoop, kEnd};
  static const void* const labels[] = {&&push, &&add, &&mul, &&exclusive_or, &&dup, &&swap, &&call, &&loop, &&end};
  uint32_t stack[16] = {1}, *top = stack;
  long left = count * 1000;
  const uint8_t* next = program;
#define NEXT goto* labels[*next++]
  NEXT;
push:
  *++top = *next++;
  NEXT;
add:
  top--;
  *top += top[1];
  NEXT;
mul:
  top--;
  *top *= top[1];
  NEXT;
exclusive_or:
  top--;
  *top ^= top[1];
  NEXT;
dup:
  top[1] = *top;
  top++;
  NEXT;
swap: {
  const uint32_t other = top[-1];
  top[-1] = *top;
  *top = other;
  NEXT;
}
call:
  *top = functions[*next++](*top);
  NEXT;
loop:
  stack[0] = *top | 1;
  top = stack + 1;
  *top = stack[0] ^ (uint32_t)left;
  if (--left) next = program;
  NEXT;
end:
  return stack[0];
}
