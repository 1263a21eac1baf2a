// FFmpeg tells in its log alone that packets of RTP never came, and that a picture of HEVC builds
// upon one that is not there. This reads it on the way: without the interpreter's lock, which a
// thread of FFmpeg must not wait for, and by thread, for each stream is read and decoded by one.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstring>

namespace cmlr {

struct Losses {
  std::int64_t rtp_packets = 0;
  std::int64_t lost_references = 0;
};

inline Losses& losses() {
  static thread_local Losses of_thread;
  return of_thread;
}

// As av_log_set_callback takes it. It writes nothing, as PyAV's own does until it is told to.
inline void read_loss_log(void*, int, const char* format, std::va_list values) {
  if (std::strcmp(format, "RTP: missed %d packets\n") == 0) {
    // Of one that came twice it misses -1, in 16 bits and less one where it takes care of them; of
    // the very last number alone none.
    const int missed = va_arg(values, int);
    if (missed != -1 && missed != 0xfffe) losses().rtp_packets += missed > 0 ? missed : 1;
  } else if (std::strncmp(format, "RTP: PT=%02x: bad cseq", 22) == 0) {
    losses().rtp_packets += 2;  // numbers that jump far: it leaves out the first, and nobody knows
  } else if (std::strncmp(format, "Could not find ref with POC", 27) == 0) {
    ++losses().lost_references;
  }
}

}  // namespace cmlr
