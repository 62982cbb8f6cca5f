// The terminal in raw mode, given back whatever happens.
//
// A process has one terminal, so these are functions, with the saved state in terminal.cpp.
#pragma once

namespace penumbra::terminal {

// Installs handlers for the signals of a crash (SIGSEGV, SIGABRT, ...): they restore the terminal, call
// `report` (which may only do what a signal handler may) and let the process die as it would have. Call
// before another component installs handlers that chain to these.
void guard_crashes(void (*report)(int signal));

// Raw mode on standard input, if that is a terminal and this process is in its foreground; restored at exit.
// Output processing stays on.
void make_raw();

// Signal safe, any thread, any number of times.
void restore();

// Whether a write of a line would not wait for a reader.
bool takes_output(int fd);

}  // namespace penumbra::terminal
