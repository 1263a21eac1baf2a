// A line in the log of the TensorRT that loaded this library, whichever TensorRT that is.
//
// ILogger and ILoggerFinder are the two interfaces whose virtual table changed: before TensorRT 11
// their one function is the first entry, from 11 on (and in TensorRT-RTX) they descend from
// IVersionedInterface, whose four entries come first. A call by the headers' layout ends the
// process in the other TensorRT, so nothing is called by it: the object's own type information
// says which of the two it is, and what says neither is left alone.
#pragma once

#include <NvInferRuntime.h>
#include <cxxabi.h>

#include <atomic>
#include <cstring>
#include <string>
#include <typeinfo>

namespace cmlr {

inline std::atomic<void*> host_logger_finder{nullptr};  // an nvinfer1::ILoggerFinder

namespace host_log {

constexpr int kSayNothing = -1, kFirstEntry = 0, kBehindVersionedInterface = 4;

// Calls `seen` with `type` and all it descends from until one of them is what is sought.
template <class Seen>
const std::type_info* find_ancestor(const std::type_info* type, const Seen& seen) {
  if (seen(*type)) return type;
  if (const auto* single = dynamic_cast<const abi::__si_class_type_info*>(type))
    return find_ancestor(single->__base_type, seen);
  if (const auto* several = dynamic_cast<const abi::__vmi_class_type_info*>(type))
    for (unsigned i = 0; i < several->__base_count; ++i)
      if (const auto* found = find_ancestor(several->__base_info[i].__base_type, seen))
        return found;
  return nullptr;
}

inline void* const* virtual_table(void* object) { return *static_cast<void* const**>(object); }

// Where an object of NVIDIA's class has its one function. `ending`: how the class's mangled name
// ends, whatever inline namespace of a version it is in.
inline int entry_of(void* object, const std::string& ending) {
  const auto* type = static_cast<const std::type_info*>(virtual_table(object)[-1]);
  if (!type) return kSayNothing;  // compiled without type information
  const auto* known = find_ancestor(type, [&](const std::type_info& t) {
    const std::string name = t.name();
    return name.rfind("N8nvinfer1", 0) == 0 && name.size() > ending.size() &&
           name.compare(name.size() - ending.size(), ending.size(), ending) == 0;
  });
  if (!known) return kSayNothing;
  const auto is_versioned = [](const std::type_info& t) {
    return std::strcmp(t.name(), typeid(nvinfer1::IVersionedInterface).name()) == 0;
  };
  return find_ancestor(known, is_versioned) ? kBehindVersionedInterface : kFirstEntry;
}

template <class Result, class... Arguments>
Result call(void* object, int entry, Arguments... arguments) {
  using Function = Result (*)(void*, Arguments...);
  return reinterpret_cast<Function>(virtual_table(object)[entry])(object, arguments...);
}

}  // namespace host_log

// No lock is held: a logger written in Python waits for Python's own.
inline void log_error(const std::string& message) {
  void* finder = host_logger_finder.load();
  if (!finder) return;
  const int find = host_log::entry_of(finder, "13ILoggerFinderE");
  void* logger = find < 0 ? nullptr : host_log::call<void*>(finder, find);
  if (!logger) return;
  const int log = host_log::entry_of(logger, "7ILoggerE");
  if (log < 0) return;
  host_log::call<void>(logger, log, nvinfer1::ILogger::Severity::kERROR, message.c_str());
}

}  // namespace cmlr
