// FFmpeg's demuxer of RTP tells in its log alone that packets never came. This reads it on the way:
// without the interpreter's lock, which a thread of FFmpeg must not wait for, and by thread, for
// each stream is read by one.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstring>

namespace cmlr {

inline std::int64_t& rtp_gaps() {
  static thread_local std::int64_t gaps = 0;
  return gaps;
}

// As av_log_set_callback takes it. It writes nothing, as PyAV's own does until it is told to.
inline void read_rtp_log(void*, int, const char* format, std::va_list values) {
  if (std::strncmp(format, "RTP: ", 5) != 0) return;
  if (std::strcmp(format, "RTP: missed %d packets\n") == 0) {
    // Of one that came twice it misses -1, in 16 bits and less one where it takes care of them.
    const int missed = va_arg(values, int);
    rtp_gaps() += missed != -1 && missed != 0xfffe;
  } else if (std::strncmp(format + 5, "PT=%02x: bad cseq", 17) == 0) {
    ++rtp_gaps();  // numbers that jump far: it leaves out the first
  }
}

}  // namespace cmlr
